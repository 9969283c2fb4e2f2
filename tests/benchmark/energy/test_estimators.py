import subprocess
import sys

import pytest

from benchmark.energy import estimators
from benchmark.energy.estimators import energies, load_estimators
from benchmark.energy.operations import OperationReport, OperationRow


def row(**changes):
    fields = {
        "name": "layer",
        "kind": "conv2d",
        "dense_macs": 1000.0,
        "dense_macs_unpadded": 900.0,
        "value_kind": "binary",
        "rate": 0.25,
        "exact_synaptic_operations": 800.0,
    }
    return OperationRow(**(fields | changes))


def picojoules(*rows, time_steps=4):
    report = OperationReport(images=1, time_steps=time_steps, rows=list(rows), firing_rates={})
    return {name: energy * 1e9 for name, energy in energies(report).items()}


def test_shipped_estimators():
    assert list(load_estimators()) == ["rate-45nm", "exact-45nm"]
    for id_, estimator in load_estimators().items():
        assert estimator.id == id_
        assert estimator.title
        assert estimator.source
        assert 0 < estimator.ac_pj < estimator.mac_pj


@pytest.mark.parametrize("kind", ["binary", "scaled", "integer"])
def test_spikes_are_accumulated(kind):
    assert picojoules(row(value_kind=kind)) == pytest.approx(
        {"rate-45nm": 1000 * 4 * 0.25 * 0.9, "exact-45nm": 800 * 0.9}
    )


def test_real_values_are_multiplied():
    assert picojoules(row(value_kind="real")) == pytest.approx(
        {"rate-45nm": 1000 * 4 * 4.6, "exact-45nm": 800 * 4.6}
    )


@pytest.mark.parametrize(
    ("first", "second", "rate"),
    [
        (("binary", 0.25), ("integer", 0.75), 0.25 * 0.9),
        (("real", 1.0), ("binary", 0.5), 0.5 * 0.9),
        (("real", 0.9), ("real", 0.8), 4.6),
    ],
)
def test_a_product_is_charged_at_the_rate_of_its_spikes(first, second, rate):
    product = row(
        kind="matmul",
        value_kind=first[0],
        rate=first[1],
        other_value_kind=second[0],
        other_rate=second[1],
    )
    assert picojoules(product)["rate-45nm"] == pytest.approx(1000 * 4 * rate)


def test_rows_add_up():
    both = picojoules(row(), row(value_kind="real"))
    assert both == pytest.approx(
        {name: picojoules(row())[name] + picojoules(row(value_kind="real"))[name] for name in both}
    )
    assert picojoules() == {"rate-45nm": 0.0, "exact-45nm": 0.0}


def test_an_unknown_rule_is_one_clear_error():
    text = "a: {title: A, rule: guess, mac_pj: 1, ac_pj: 1, source: none}"
    with pytest.raises(
        ValueError,
        match=r"^estimators.yaml: 'a' has the unknown rule 'guess'; known: rate, exact$",
    ):
        estimators._parse(text)


@pytest.mark.parametrize("text", ["a: {title: A}", "a: 3"])
def test_an_incomplete_estimator_is_named(text):
    with pytest.raises(ValueError, match="'a' is not an estimator"):
        estimators._parse(text)


def test_estimators_need_no_torch():
    code = (
        "import sys; from benchmark.energy.estimators import load_estimators; "
        "load_estimators(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
