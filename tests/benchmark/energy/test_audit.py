from __future__ import annotations

import subprocess
import sys

import pytest

from spikebench.energy.audit import NO_NEURONS, audit
from tests.benchmark.energy.reports import neurons, norm, operation, product, report


def names(rows):
    return [row.name for row in rows]


ENCODING = operation("stem", "real", rate=1.0, encodes=True)


def test_spikes_are_added_and_the_encoding_is_exempt():
    found = audit(report(ENCODING, operation("a"), operation("b", "scaled"), operation("c")))
    assert found.addition_only is True
    assert names(found.encoding) == ["stem"]
    assert found.real == found.unseen == ()
    assert found.verdict == (
        "addition only; "
        "the encoding of the image multiplies in 1 of 4 operations (25 % of the dense work)"
    )
    events = operation("stem", encodes=True)
    assert audit(report(events, operation("a"))).verdict == "addition only"


@pytest.mark.parametrize(
    "row", [operation("x", "real", rate=0.01), product("x", "real", "real")], ids=["conv", "matmul"]
)
def test_real_values_behind_the_encoding_are_multiplied(row):
    found = audit(report(ENCODING, row, operation("a"), operation("b")))
    assert found.addition_only is False
    assert names(found.real) == ["x"]
    assert names(found.encoding) == ["stem"]
    assert found.verdict == (
        "not addition only: values are multiplied in 1 of 4 operations (25 % of the dense work); "
        "the encoding of the image multiplies in 1 of 4 operations (25 % of the dense work)"
    )


@pytest.mark.parametrize(
    ("row", "adds", "integers"),
    [
        (product("x", "binary", "integer", other_magnitude=3.0), True, True),
        (product("x", "integer", "binary", magnitude=3.0), True, True),
        (product("x", "real", "binary"), True, False),
        (product("x", "scaled", "real"), True, False),
        (product("x", "real", "integer", other_magnitude=3.0), True, True),
        (operation("x", "integer", magnitude=3.0), True, True),
        (operation("x", "integer", magnitude=3.0, encodes=True), False, True),
    ],
)
def test_integers_are_listed_whether_they_are_added_or_not(row, adds, integers):
    found = audit(report(row))
    assert names(found.integer) == (["x"] if integers else [])
    assert names(found.encoding) == ([] if adds else ["x"])
    assert found.addition_only
    assert found.unseen == ()


def test_elementwise_arithmetic_is_named_and_does_not_decide():
    parts = [norm("a"), norm("b", 30.0), norm("c", 60.0, operation="aten::mul")]
    found = audit(report(operation("conv"), uncounted=parts))
    assert found.addition_only
    assert found.elementwise == tuple(parts)
    assert found.verdict == (
        "addition only but for elementwise arithmetic: aten::batch_norm (20 % of the dense work), "
        "aten::mul (30 % of the dense work)"
    )


def test_what_has_no_rule_decides():
    unknown = norm("rnn", 300.0, operation="aten::lstm", reason="no rule")
    found = audit(report(operation("conv"), uncounted=[norm("a", 0.0), unknown]))
    assert found.addition_only is False
    assert (found.no_rule, names(found.elementwise)) == ((unknown,), ["a"])
    assert found.verdict == (
        "not addition only: there is no counting rule for aten::lstm (75 % of the dense work)"
    )
    both = audit(report(operation("conv", "real"), uncounted=[unknown]))
    assert "multiplied in 1 of 1 operations (25 % of the dense work) and there is" in both.verdict


def test_a_size_that_nobody_knows_is_no_share():
    parts = [norm("a"), norm("b", None), norm("c", operation="aten::mul")]
    found = audit(report(operation("conv"), uncounted=parts))
    assert found.share(found.elementwise) is None
    assert found.share([parts[2]]) == pytest.approx(10 / 120)
    assert "aten::batch_norm (share not known), aten::mul (8.33 % of" in found.verdict
    assert audit(report(neurons=[])).share([]) is None


def test_without_neurons_every_operation_multiplies():
    """Nothing has fired before any of them: an encoding of all would be exempt."""
    binary = operation("mask", encodes=True)
    found = audit(report(ENCODING, binary, neurons=[]))
    assert found.addition_only is False
    assert found.verdict == NO_NEURONS == "no spiking neurons: every operation multiplies"
    assert names(found.real) == ["stem", "mask"]
    assert found.encoding == found.silent == found.unseen == ()


@pytest.mark.parametrize("fields", [{}, {"neurons": []}, {"uncounted": [norm("a")]}])
def test_where_nothing_was_counted_nothing_is_decided(fields):
    found = audit(report(**fields))
    assert found.addition_only is None
    assert found.verdict.startswith("undecided: nothing was counted")
    unknown = norm("rnn", operation="aten::lstm", reason="no rule")
    assert audit(report(uncounted=[unknown])).addition_only is False


@pytest.mark.parametrize(
    ("row", "unseen"),
    [
        (operation("x", rate=0.0), True),
        (product("x", "binary", "binary", rate=0.0), False),
        (product("x", "binary", "binary", rate=0.0, other_rate=0.0), True),
        (product("x", "real", "binary", other_rate=0.0), True),
        (product("x", "binary", "integer", rate=0.0, other_magnitude=2.0), False),
        (operation("x", rate=1e-9), False),
        (operation("x", rate=0.0, encodes=True), False),
    ],
)
def test_zeros_alone_prove_nothing(row, unseen):
    found = audit(report(row, operation("a")))
    assert names(found.unseen) == (["x"] if unseen else [])
    assert found.addition_only is (None if unseen else True)
    undecided = "undecided: only zeros were read in 1 of 2 operations (50 % of the dense work)"
    assert found.verdict == (undecided if unseen else "addition only")


def test_a_multiplication_decides_whatever_zeros_leave_open():
    found = audit(report(operation("x", rate=0.0), operation("y", "real")))
    assert found.addition_only is False
    assert found.verdict == (
        "not addition only: values are multiplied in 1 of 2 operations (50 % of the dense work); "
        "only zeros were read in 1 of 2 operations (50 % of the dense work)"
    )


def test_what_is_undecided_says_the_rest_too():
    found = audit(report(ENCODING, operation("x", rate=0.0), uncounted=[norm("a", 50.0)]))
    assert found.verdict == (
        "undecided: only zeros were read in 1 of 2 operations (40 % of the dense work); "
        "elementwise arithmetic: aten::batch_norm (20 % of the dense work); "
        "the encoding of the image multiplies in 1 of 2 operations (40 % of the dense work)"
    )


def test_layers_that_never_or_always_fire_are_named():
    layers = [
        neurons("quiet", [0.0, 0.0]),
        neurons("nearly quiet", [0.0, 1e-12]),
        neurons("late", [0.0, 1.0]),
        neurons("loud", [1.0, 1.0]),
        neurons("nearly loud", [1.0, 1.0 - 1e-12]),
    ]
    found = audit(report(operation("a"), neurons=layers))
    assert (found.silent, found.saturated) == (("quiet",), ("loud",))


def test_the_check_needs_no_torch():
    code = "import sys, spikebench.energy.audit; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
