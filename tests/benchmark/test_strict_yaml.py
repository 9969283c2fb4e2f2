from __future__ import annotations

import pytest
import yaml

from spikebench.strict_yaml import StrictLoader


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: 2\na: 1\n",
        "[{b: 1, a: {a: 1}, b: 2}]",
        "- &x {c: 1, c: 2}\n- *x\n",
        "{1: a, 1: b}",
    ],
)
def test_a_key_that_comes_twice_is_named_with_its_place(text: str):
    with pytest.raises(yaml.YAMLError, match=r"the key '[abc1]' comes twice\n +in .*line \d"):
        yaml.load(text, StrictLoader)


@pytest.mark.parametrize(
    "text",
    [
        "[{a: 1}, {a: 2}]",
        "{1: a, '1': b}",
        "[&x {a: 1}, {<<: *x, a: 2}]",
        # the first merge is flattened by the second, and constructed after it
        "- {deep: {deeper: &y {<<: &x {a: 1}, a: 2}}}\n- {<<: *y, a: 3}\n- *y\n",
    ],
)
def test_all_else_is_read_as_it_always_is(text: str):
    assert yaml.load(text, StrictLoader) == yaml.safe_load(text)


def test_an_exponent_makes_a_number_and_a_date_or_name_does_not():
    text = "[1e-3, -2E+5, 1.e3, e3, 1e, 1e3x, 2024-01-01]"
    *read, date = yaml.load(text, StrictLoader)
    assert read == [1e-3, -2e5, 1e3, "e3", "1e", "1e3x"]
    assert date == yaml.safe_load("2024-01-01")
