from __future__ import annotations

import copy
import re

import pytest

from spikebench.registry import UnknownNameError
from spikebench.suites.overrides import apply_override, parse_value, split_override
from spikebench.task import ConfigError

DATA = {
    "model": {"width": 64, "depths": [1, 2], "act": None},
    "hooks": [{"type": "A", "every": 1}, {"type": "B", "every": 2}],
    "max_epochs": 12,
}


def applied(override: str) -> dict:
    data = copy.deepcopy(DATA)
    apply_override(data, override, "digits.py")
    return data


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-0.5", -0.5),
        ("1e-3", 1e-3),
        ("true", True),
        ("True", True),
        ("null", None),
        ("None", None),
        ("[0, 1]", [0, 1]),
        ("(4, 8)", (4, 8)),
        ("{'opt': 'sgd'}", {"opt": "sgd"}),
        ('{"opt": "sgd"}', {"opt": "sgd"}),
        (
            "{type: Pretrained, checkpoint: a-1.pth}",
            {"type": "Pretrained", "checkpoint": "a-1.pth"},
        ),
        ("[{type: Hook, lr: 1e-3}, b]", [{"type": "Hook", "lr": 1e-3}, "b"]),
        ("'12'", "12"),
        ("sgd", "sgd"),
        ("a=b", "a=b"),
        ("", ""),
        ("data/[x", "data/[x"),
        ("__import__('os')", "__import__('os')"),
    ],
)
def test_a_value_is_json_or_python_or_yaml_or_a_string(text: str, value: object):
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{max_epochs: 3", "'}'"),
        ("[1, 2}", "']'"),
        ("{[1]: 2}", "unhashable"),
        ("{a: 1, a: 2}", "'a'"),
        ("[" * 9999, "nested"),
    ],
)
def test_what_opens_a_bracket_and_is_no_list_is_refused(text: str, reason: str):
    with pytest.raises(ConfigError) as error:
        parse_value(text)
    assert reason in str(error.value)
    assert len(str(error.value)) < 250
    assert parse_value(f"'{text}'") == text


def test_an_override_is_split_at_its_first_equals_sign():
    assert split_override("data.root = /a=b ") == ("data.root", "/a=b")


@pytest.mark.parametrize("override", ["seeds", "", "=3"])
def test_what_has_no_key_or_no_value_is_refused(override: str):
    with pytest.raises(ConfigError, match=re.escape(repr(override))):
        applied(override)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("max_epochs=1", ("max_epochs",), 1),
        ("model.width=32", ("model", "width"), 32),
        ("model.act=relu", ("model", "act"), "relu"),
        ("model.depths.1=5", ("model", "depths", 1), 5),
        ("hooks.1.every=9", ("hooks", 1, "every"), 9),
        ("hooks.0={}", ("hooks", 0), {}),
        ("+model.bias=false", ("model", "bias"), False),
        ("+model.width=8", ("model", "width"), 8),
        ("+new=[1]", ("new",), [1]),
        ("+hooks.0.name=x", ("hooks", 0, "name"), "x"),
    ],
)
def test_one_value_is_set_and_nothing_else(override: str, path: tuple, value: object):
    changed = applied(override)
    expected: dict = copy.deepcopy(DATA)
    node = expected
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    assert changed == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_epoch=1", "'max_epochs'"),
        ("model.widht=1", "'model.width'"),
        ("hooks.0.evry=1", "'hooks.0.every'"),
        ("modle.width=1", "'model'"),
        ("+modle.width=1", "'model'"),
    ],
)
def test_a_misspelt_key_is_an_error_that_suggests_the_right_one(override: str, message: str):
    with pytest.raises(UnknownNameError) as caught:
        applied(override)
    assert message in str(caught.value)


@pytest.mark.parametrize("index", ["2", "-1", "first", ""])
def test_a_wrong_index_is_refused(index: str):
    with pytest.raises(ConfigError, match=r"digits\.py"):
        applied(f"hooks.{index}.every=1")


def test_an_override_cannot_lead_into_a_number():
    with pytest.raises(ConfigError, match="'max_epochs' is 12"):
        applied("max_epochs.more=1")


@pytest.mark.parametrize("override", ["model.widht=1", "hooks.7=1", "max_epochs.more=1"])
def test_a_refused_override_changes_nothing(override: str):
    data = copy.deepcopy(DATA)
    with pytest.raises((ConfigError, UnknownNameError)):
        apply_override(data, override, "digits.py")
    assert data == DATA
