import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from spikebench.energy import estimator_rules
from spikebench.energy.estimator_rules import RULES
from spikebench.energy.estimators import (
    Estimator,
    EstimatorError,
    energies,
    energies_by_part,
    energy_by_operation,
    implied_rate,
    load_estimators,
)
from spikebench.energy.operations import NeuronRow, OperationReport, OperationRow
from spikebench.energy.profile import profile_operations
from spikebench.errors import UserError
from spikebench.registry import ESTIMATORS, CollisionError

CHIP = """
chip:
  title: a chip
  rule: rate
  constants: {mac_pj: 2, ac_pj: 0.5}
  source: its data sheet
"""


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


def real(**changes):
    return row(**({"value_kind": "real", "rate": 0.9} | changes))


def count(*rows, time_steps=4, neurons=(), form="as-coded"):
    return OperationReport(
        images=1, time_steps=time_steps, rows=list(rows), neurons=list(neurons), form=form
    )


def picojoules(id_, *rows, **options):
    estimator = load_estimators()[id_]
    return 1e9 * energies(count(*rows, **options, form=estimator.form))[id_]


@pytest.fixture
def named(tmp_path, monkeypatch):
    """Writes estimator files and names them in the environment."""

    def name(*texts):
        paths = [tmp_path / f"{number}.yaml" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        monkeypatch.setenv("SPIKEBENCH_ESTIMATORS", os.pathsep.join(map(str, paths)))
        return paths

    return name


@pytest.fixture(autouse=True)
def _only_shipped_ones(monkeypatch):
    monkeypatch.delenv("SPIKEBENCH_ESTIMATORS", raising=False)


def test_shipped_estimators():
    forms = {id_: estimator.form for id_, estimator in load_estimators().items()}
    assert list(forms.items()) == [
        ("rate-45nm", "as-coded"),
        ("exact-45nm", "as-coded"),
        ("paper-45nm", "paper"),
        ("lemaire-45nm", "as-coded"),
        ("dense-45nm", "as-coded"),
    ]
    for id_, estimator in load_estimators().items():
        assert estimator.id == id_
        assert estimator.constants


def test_spikes_are_accumulated():
    for kind in ("binary", "scaled"):
        assert picojoules("rate-45nm", row(value_kind=kind)) == pytest.approx(1000 * 4 * 0.25 * 0.9)
        assert picojoules("exact-45nm", row(value_kind=kind)) == pytest.approx(800 * 0.9)


def test_an_integer_spike_is_accumulated_as_often_as_it_says():
    integer = row(value_kind="integer", rate=0.25, magnitude=0.6)
    assert picojoules("rate-45nm", integer) == pytest.approx(1000 * 4 * 0.6 * 0.9)
    assert picojoules("exact-45nm", integer) == pytest.approx(800 * 0.9)


@pytest.mark.parametrize(
    "multiplied", [real(), row(value_kind="integer", magnitude=40.0, encodes=True)]
)
def test_other_values_are_multiplied(multiplied):
    assert picojoules("rate-45nm", multiplied) == pytest.approx(1000 * 4 * 4.6)
    assert picojoules("exact-45nm", multiplied) == pytest.approx(800 * 4.6)


@pytest.mark.parametrize(
    ("first", "second", "each"),
    [
        (("binary", 0.25), ("integer", 0.75), 0.25 * 0.9),
        (("real", 1.0), ("binary", 0.5), 0.5 * 0.9),
        (("real", 0.9), ("real", 0.8), 4.6),
    ],
)
def test_a_product_is_charged_at_the_rate_of_its_spikes(first, second, each):
    product = row(
        kind="matmul",
        value_kind=first[0],
        rate=first[1],
        other_value_kind=second[0],
        other_rate=second[1],
    )
    assert picojoules("rate-45nm", product) == pytest.approx(1000 * 4 * each)


def test_dense_hardware_multiplies_whatever_comes():
    for any_row in (row(), row(rate=0.0, exact_synaptic_operations=0.0), real()):
        assert picojoules("dense-45nm", any_row) == pytest.approx(1000 * 4 * 4.6)


def test_the_papers_estimator_is_the_rate_rule_on_the_papers_form():
    rows = (real(encodes=True), row())
    assert picojoules("paper-45nm", *rows) == pytest.approx(picojoules("rate-45nm", *rows))
    assert list(energies(count(*rows, form="paper"))) == ["paper-45nm"]


def test_each_form_gets_its_estimators_in_the_order_of_the_file():
    coded, fused, folded = (count(row(), form=form) for form in ("as-coded", "paper", "dense"))
    assert list(energies(fused, folded, coded)) == list(load_estimators())
    assert "paper-45nm" not in energies(coded)
    assert energies(folded) == energies() == {}


def test_two_reports_of_one_form_are_an_error():
    with pytest.raises(ValueError, match="'paper'"):
        energies(count(row(), form="paper"), count(real(), form="paper"))


def membrane(**changes):
    fields = {
        "name": "lif",
        "kind": "LIF",
        "neurons": 256.0,
        "updates": 512.0,
        "state_bytes": 1024.0,
        "rate": 20 / 512,
        "spikes": 20.0,
    }
    return NeuronRow(**(fields | changes))


@pytest.mark.parametrize("id_", ["rate-45nm", "exact-45nm", "lemaire-45nm", "dense-45nm"])
def test_the_energy_of_a_model_is_the_sum_over_its_rows(id_):
    estimator = load_estimators()[id_]
    report = count(
        row(name="b"), real(name="a"), row(name="silent", rate=0.0), neurons=[membrane()]
    )
    by_name = energy_by_operation(report, estimator)
    assert list(by_name) == ["b", "a", "silent"] + ["lif"] * (id_ == "lemaire-45nm")
    assert sum(by_name.values()) == energies(report)[id_]
    alone = energy_by_operation(count(real(name="a")), estimator)
    assert by_name["a"] == pytest.approx(alone["a"])


def test_neurons_that_cost_nothing_are_left_out():
    lemaire = load_estimators()["lemaire-45nm"]
    free = lemaire.model_copy(update={"constants": dict.fromkeys(lemaire.constants, 0.0)})
    assert energy_by_operation(count(row(), neurons=[membrane()]), free) == {"layer": 0.0}


def test_rows_of_one_name_are_added_up():
    report = count(row(), row(), neurons=[membrane(name="layer")])
    once = count(row())
    for id_ in ("rate-45nm", "exact-45nm", "dense-45nm"):
        assert energies(report)[id_] == pytest.approx(2 * energies(once)[id_])
    lemaire = load_estimators()["lemaire-45nm"]
    both = energy_by_operation(report, lemaire)["layer"]
    neurons = energy_by_operation(count(neurons=[membrane()]), lemaire)["lif"]
    assert both == pytest.approx(2 * energy_by_operation(once, lemaire)["layer"] + neurons)


def test_an_estimator_refuses_another_form():
    with pytest.raises(ValueError, match="'paper'.*'as-coded'"):
        energy_by_operation(count(row()), load_estimators()["paper-45nm"])


def test_a_network_without_neurons_is_charged_as_multiply_accumulates():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 8 * 8, 5)
    )
    batch = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    coded = profile_operations(model, [batch])
    fused = profile_operations(model, [batch], form="paper")
    energy = energies(coded, fused)
    macs = 4 * 8 * 8 * 3 * 9 + 4 * 8 * 8 * 5
    for id_ in ("rate-45nm", "paper-45nm", "dense-45nm"):
        assert energy[id_] == pytest.approx(macs * 4.6e-9)
    assert energy["exact-45nm"] == pytest.approx(coded.synaptic_operations * 4.6e-9)
    # The equations of the formal network, layer by layer, as in the tests below.
    conv = (
        6912 * 3.2 + 256 * 0.1 + (192 + 256 + 108) * 0.1
        + 6912 * sram(192) + (6912 + 256) * sram(108) + 256 * sram(256)
    )  # fmt: skip
    linear = (
        1280 * 3.2 + 5 * 0.1 + (256 + 5) * 0.1
        + 256 * sram(256) + (1280 + 5) * sram(1280) + 5 * sram(5)
    )  # fmt: skip
    assert energy["lemaire-45nm"] == pytest.approx((conv + linear) * 1e-9)


# Lemaire et al. 2022. Numbers of the equations are those of the paper.

ADD, MUL = 0.1, 3.1


def sram(words):
    """Picojoules of one access to a memory of 32-bit words."""
    return 13.2 + 1.09e-5 * 32 * words


FIFO = sram(1000)


def test_the_sram_line_is_the_least_squares_one_through_the_published_points():
    per_bit, base = np.polyfit(np.array([8e3, 32e3, 1e6]) * 8, [10, 20, 100], 1)
    constants = load_estimators()["lemaire-45nm"].constants
    assert constants["sram_pj_per_bit"] == pytest.approx(per_bit, rel=5e-3)
    assert constants["sram_pj"] == pytest.approx(base, rel=5e-3)


def test_lemaire_of_a_spiking_convolution_with_its_neurons():
    # 2 to 4 channels of 8 x 8, 3 x 3 weights, stride 1, T = 2, LIF. 10 spikes come in, none on the
    # border, so that each meets 4 * 3 * 3 = 36 weights; 20 go out.
    convolution = row(
        name="conv",
        dense_macs=4608.0,
        inputs=128.0,
        outputs=256.0,
        weights=72,
        rate=10 / 256,
        exact_synaptic_operations=360.0,
    )
    energy = picojoules("lemaire-45nm", convolution, time_steps=2, neurons=[membrane()])

    potentials = 4 * 8 * 8
    accumulations = 10 * 4 * 3 * 3 + 2 * potentials + 20  # (1): synapses, biases, resets
    leaks = 2 * potentials  # (1): a multiply-accumulate at each time step
    operations = accumulations * ADD + leaks * (MUL + ADD)
    read_in = 10  # (5)
    read_parameters = 10 * 4 * 3 * 3 + 2 * potentials  # (7)
    read_potentials = 10 * 4 * 3 * 3 + 2 * potentials  # (9)
    write_out = 20  # (13)
    write_potentials = 10 * 4 * 3 * 3 + 2 * potentials  # (14)
    memory = (
        (read_in + write_out) * FIFO
        + read_parameters * sram(2 * 4 * 3 * 3)
        + (read_potentials + write_potentials) * sram(potentials)
    )
    addressing = 10 * 4 * 3 * 3 * ADD + 10 * 2 * (MUL + ADD)  # (16)
    assert energy == pytest.approx(operations + memory + addressing)
    assert energy == pytest.approx(1727.6 + 35115.29 + 100, abs=0.01)  # worked out by hand


def test_lemaire_of_a_spiking_linear_layer():
    # 30 inputs, 7 outputs, T = 3; 12 spikes come in.
    linear = row(
        kind="linear",
        dense_macs=210.0,
        inputs=30.0,
        outputs=7.0,
        weights=210,
        rate=12 / 90,
        exact_synaptic_operations=84.0,
    )
    operations = (12 * 7 + 3 * 7) * ADD  # (2), where the paper counts N_in times too many
    memory = 12 * FIFO + (12 * 7 + 3 * 7) * sram(210) + 2 * 12 * 7 * sram(7)  # (5), (8), (10), (15)
    addressing = 12 * 7 * ADD  # (17)
    energy = picojoules("lemaire-45nm", linear, time_steps=3)
    assert energy == pytest.approx(operations + memory + addressing)


def test_lemaire_sends_an_integer_spike_as_often_as_it_says():
    binary = row(kind="linear", inputs=30.0, outputs=7.0, weights=210, rate=0.8)
    integer = row(**binary.model_dump() | {"value_kind": "integer", "rate": 0.3, "magnitude": 0.8})
    assert picojoules("lemaire-45nm", integer) == picojoules("lemaire-45nm", binary)


def test_lemaire_of_a_formal_convolution():
    # 1 to 4 channels of 8 x 8, 3 x 3 weights, run at both of 2 time steps.
    convolution = real(dense_macs=2304.0, inputs=64.0, outputs=256.0, weights=36)
    macs = 4 * 8 * 8 * 1 * 3 * 3
    operations = macs * (MUL + ADD) + 256 * ADD  # (1)
    memory = macs * sram(64) + (macs + 256) * sram(36) + 256 * sram(256)  # (3), (6), (11)
    addressing = (64 + 256 + 4 * 3 * 3) * ADD  # (16)
    energy = picojoules("lemaire-45nm", convolution, time_steps=2)
    assert energy == pytest.approx(2 * (operations + memory + addressing))


def test_lemaire_takes_an_operand_of_a_product_for_its_weights():
    product = row(
        kind="matmul", dense_macs=500.0, inputs=60.0, outputs=25.0, rate=0.2,
        other_inputs=35.0, other_value_kind="real", other_rate=1.0,
        exact_synaptic_operations=100.0,
    )  # fmt: skip
    spikes, met = 0.2 * 60, 100
    expected = met * 2 * ADD + spikes * FIFO + met * sram(35) + 2 * met * sram(25)
    assert picojoules("lemaire-45nm", product, time_steps=1) == pytest.approx(expected)


def test_lemaire_agrees_with_spikingjelly():
    """Each price alone, so that counts are compared, not constants."""
    counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
    from spikingjelly.activation_based import layer, neuron

    torch.manual_seed(0)
    conv = layer.Conv2d(3, 6, 1, step_mode="m")  # spikes meet the same weights wherever they are
    model = nn.Sequential(conv, neuron.LIFNode(step_mode="m", decay_input=False)).eval()
    spikes = (torch.rand(4, 1, 3, 5, 5) < 0.3).float()
    with torch.no_grad():
        fired = model(spikes).sum().item()
    model[1].reset()

    points = tuple((float(size), 0.25) for size in range(4))  # 1 pJ for each word of 4 bytes
    prices = {"add": (1, 0, 0), "mul": (0, 1, 0), "memory": (0, 0, 1)}
    convolution = row(
        dense_macs=450.0,
        inputs=75.0,
        outputs=150.0,
        weights=18,
        rate=spikes.mean().item(),
        exact_synaptic_operations=spikes.sum().item() * 6,
    )
    report = count(
        convolution, neurons=[membrane(neurons=150.0, updates=600.0, spikes=fired, rate=0.1)]
    )
    for add, mul, access in prices.values():
        ours = Estimator(
            id="x", title="x", rule="lemaire", source="x",
            constants={
                "add_pj": add, "mul_pj": mul, "sram_pj": access, "sram_pj_per_bit": 0,
                "word_bits": 32, "fifo_words": 1000,
            },
        )  # fmt: skip
        config = counters.LemaireEnergyConfig(
            cost_config=counters.LemaireEnergyCostConfig(
                e_add_pj=add,
                e_mul_pj=mul,
                memory_breakpoints=points if access else tuple((p[0], 0.0) for p in points),
            )
        )
        theirs = counters.estimate_lemaire_energy(model, spikes, config=config).total_pj
        model[1].reset()
        assert sum(energy_by_operation(report, ours).values()) == pytest.approx(theirs * 1e-9)


# Parts of a model.


def test_parts_are_the_first_components_of_names():
    rows = (
        row(name="backbone.a.conv", dense_macs=100.0),
        row(name="backbone.b.conv", dense_macs=200.0),
        row(name="neck.conv", dense_macs=400.0),
        row(name="backbones", dense_macs=800.0),
        row(name="backbone", dense_macs=1600.0),
    )
    parts = energies_by_part(count(*rows))["rate-45nm"]
    each = 4 * 0.25 * 0.9e-9  # time steps, rate, mJ an addition
    expected = {"backbone": 1900 * each, "neck": 400 * each, "backbones": 800 * each}
    assert parts == pytest.approx(expected)
    assert list(parts) == list(expected)


def test_parts_add_up_to_the_energy_of_the_model_for_all_estimators():
    rows = (
        real(name="backbone.stem", dense_macs=123.0, encodes=True, inputs=48.0, weights=9),
        row(name="neck.conv", inputs=60.0, outputs=30.0, weights=27),
        row(name="matmul", kind="matmul", other_value_kind="real", other_rate=1.0),
    )
    neurons = (membrane(name="backbone.lif"), membrane(name="head.lif"))
    reports = [count(*rows, neurons=neurons, form=form) for form in ("as-coded", "paper")]
    parts = energies_by_part(*reports)
    assert list(parts) == list(load_estimators())
    for id_, whole in energies(*reports).items():
        assert sum(parts[id_].values()) == pytest.approx(whole, rel=1e-12)
    # an estimator that charges membranes charges them to their part; others have no such part
    alone = energies(count(neurons=neurons[1:]))["lemaire-45nm"]
    assert parts["lemaire-45nm"]["head"] == pytest.approx(alone)
    assert alone > 0
    assert list(parts["rate-45nm"]) == ["backbone", "neck", "matmul"]


def test_a_part_that_costs_nothing_is_there():
    quiet = row(name="neck.conv", rate=0.0, exact_synaptic_operations=0.0)
    assert energies_by_part(count(quiet))["exact-45nm"] == {"neck": 0.0}


def test_parts_of_two_reports_of_one_form_are_refused():
    with pytest.raises(ValueError, match="'as-coded'"):
        energies_by_part(count(row()), count(row()))


# The rate that an energy implies.


def test_the_implied_rate_gives_the_energy_back():
    rows = (
        real(name="stem", dense_macs=500.0, encodes=True),
        row(name="a", rate=0.3),
        row(name="b", dense_macs=3000.0, rate=0.3),
    )
    estimator = load_estimators()["rate-45nm"]
    energy = energies(count(*rows))["rate-45nm"]
    assert implied_rate(count(*rows), energy, estimator) == pytest.approx(0.3)
    # What the rows carry does not matter, nor does the form.
    others = (rows[0], real(name="a"), row(name="b", dense_macs=3000.0, rate=0.9))
    assert implied_rate(count(*others, form="paper"), energy, estimator) == pytest.approx(0.3)


@pytest.mark.parametrize(("energy", "rate"), [(100, 3.0), (10, -2.0)])
def test_an_implied_rate_may_be_impossible(energy, rate):
    rows = (real(dense_macs=10.0, encodes=True), row(dense_macs=20.0))
    estimator = load_estimators()["rate-45nm"]
    implied = implied_rate(count(*rows, time_steps=1), energy * 1e-9, estimator)
    assert implied == pytest.approx(rate)  # (energy - 10 * 4.6) / (20 * 0.9)


@pytest.mark.parametrize(
    ("form", "dense_macs", "rate"),
    [("as-coded", 24.817e9, 0.58), ("dense", 37.914e9, 0.38), ("paper", 57.486e9, 0.25)],
)
def test_the_published_energy_of_55m_fits_the_fused_form(form, dense_macs, rate):
    """52.4 mJ at T = 4; the stem, 0.118 GMACs, meets the image once."""
    stem = real(name="stem", dense_macs=0.118e9 / 4, encodes=True)
    report = count(stem, row(dense_macs=dense_macs - 0.118e9), form=form)
    assert round(implied_rate(report, 52.4, load_estimators()["paper-45nm"]), 2) == rate


def test_no_rate_is_implied_without_rows_behind_neurons():
    with pytest.raises(ValueError, match="no operation"):
        implied_rate(count(real(encodes=True)), 1.0, load_estimators()["rate-45nm"])


def test_no_rate_is_implied_by_another_rule():
    with pytest.raises(ValueError, match="'lemaire-45nm'"):
        implied_rate(count(row()), 1.0, load_estimators()["lemaire-45nm"])


# Files of estimators.


def test_a_chip_comes_after_the_shipped_ones(named):
    named(CHIP, CHIP.replace("chip:", "fused-chip:\n  form: paper"))
    assert list(load_estimators())[-2:] == ["chip", "fused-chip"]
    assert picojoules("chip", row(), real()) == pytest.approx(1000 * 4 * (0.25 * 0.5 + 2))
    assert "fused-chip" in energies(count(row(), form="paper"))


def test_a_change_of_the_variable_is_seen(named, monkeypatch):
    (path,) = named(CHIP)
    assert load_estimators()["chip"].constants["mac_pj"] == 2
    path.write_text(CHIP.replace("mac_pj: 2", "mac_pj: 3"))
    assert load_estimators()["chip"].constants["mac_pj"] == 3
    monkeypatch.setenv("SPIKEBENCH_ESTIMATORS", os.pathsep)
    assert "chip" not in load_estimators()


def error_of(kind=EstimatorError):
    with pytest.raises(kind) as caught:
        load_estimators()
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, ValueError)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_wrong_estimator_is_one_line_with_place_value_and_remedy(named):
    (path,) = named(CHIP.replace("rule: rate", "rule: rat"))
    start = f"{path}: estimator 'chip': unknown rule 'rat'; did you mean 'rate'"
    assert error_of().startswith(start)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("mac_pj: 2, ", "", "mac_pj"),
        ("ac_pj: 0.5", "ac_pj: 0.5, acc_pj: 1", "acc_pj"),
        ("mac_pj: 2", "mac_pj: -2", "constants.mac_pj.* -2"),
        ("mac_pj: 2", "mac_pj: two", "constants.mac_pj.* 'two'"),
        ("mac_pj: 2", "mac_pj: true", "constants.mac_pj.* True"),
        ("mac_pj: 2", "mac_pj: .nan", "constants.mac_pj.* nan"),
        ("mac_pj: 2", "mac_pj: .inf", "constants.mac_pj.* inf"),
        ("mac_pj: 2", "mac_pj:", "constants.mac_pj.* None"),
        ("{mac_pj: 2, ac_pj: 0.5}", "4.6", "constants.* 4.6"),
        ("title: a chip", "title:", "title.* None"),
        ("title: a chip", "form: fused\n  title: a chip", "form.*'as-coded'.*'fused'"),
        ("title: a chip", "name: x\n  title: a chip", "name.*'x'"),
        ("title: a chip", "id: x\n  title: a chip", "'id': 'x'"),
        ("  source: its data sheet\n", "", "source"),
    ],
)
def test_a_wrong_entry_names_file_estimator_and_fault(named, old, new, found):
    assert old in CHIP
    (path,) = named(CHIP.replace(old, new))
    message = error_of()
    assert message.startswith(f"{path}: estimator 'chip': ")
    assert re.search(found, message)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("chip: 3", "'chip'.* 3"),
        ("", "None"),
        ("- chip", r"\['chip'\]"),
        ("chip: [", "YAML"),
        (CHIP + CHIP, "YAML.*'chip'"),
        (CHIP.replace("2,", "2, mac_pj: 3,"), "YAML.*'mac_pj'"),
        ("chip: !!python/object:os.system {}", "YAML.*python/object"),
    ],
)
def test_a_wrong_file_is_named(named, text, found):
    (path,) = named(text)
    message = error_of()
    assert message.startswith(f"{path}: ")
    assert re.search(found, message)


def test_a_missing_file_is_named_with_the_variable(monkeypatch, tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        monkeypatch.setenv("SPIKEBENCH_ESTIMATORS", str(path))
        message = error_of()
        assert message.startswith(f"{path}: ")
        assert "SPIKEBENCH_ESTIMATORS" in message


def test_an_id_that_exists_already_names_both_files(named):
    first, second = named(CHIP, CHIP)
    assert f"'chip' is registered twice: {first} and {second}" in error_of(CollisionError)
    (path,) = named(CHIP.replace("chip:", "rate-45nm:"))
    assert re.search(rf"'rate-45nm'.*estimators\.yaml and {path}", error_of(CollisionError))


# Estimators of other packages.

BRINGS_ONE = """
from spikebench.energy.estimator_rules import rule
from spikebench.energy.estimators import Estimator

@rule
def {rule}(report, *, step_pj):
    for row in report.rows:
        yield row.name, report.time_steps * step_pj

def chip():
    constants = {{"step_pj": 7.0}}
    return Estimator(id="{id}", title="x", rule="{rule}", constants=constants, source="x")

made = chip()
"""


@pytest.fixture
def bring(tmp_path, monkeypatch):
    """Installs a package with entry points of the group of estimators."""
    monkeypatch.setattr(ESTIMATORS, "_entries", dict(ESTIMATORS._entries))
    monkeypatch.setattr(ESTIMATORS, "_places", dict(ESTIMATORS._places))
    before = dict(RULES)

    def install(package, code, **points):
        folder = tmp_path / package
        info = folder / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = ["[spikebench.estimators]", *(f"{name} = {at}" for name, at in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines))
        (folder / f"{package}.py").write_text(code)
        monkeypatch.syspath_prepend(str(folder))
        ESTIMATORS.__dict__.pop("_points", None)  # read before the package was installed

    yield install
    ESTIMATORS.__dict__.pop("_points", None)
    RULES.clear()
    RULES.update(before)


@pytest.mark.parametrize("entry", ["chip", "made"])
def test_a_package_brings_an_estimator_with_a_rule_of_its_own(bring, named, entry):
    package = f"brings_{entry}"
    code = BRINGS_ONE.format(rule=f"steps_{entry}", id="steps-chip")
    bring(package, code, **{"steps-chip": f"{package}:{entry}"})
    named(CHIP)
    assert list(load_estimators())[-2:] == ["steps-chip", "chip"]
    assert picojoules("steps-chip", row(), time_steps=4) == pytest.approx(28)


def test_a_packages_estimator_of_a_taken_id_names_both_places(bring, named):
    bring(
        "brings_taken",
        BRINGS_ONE.format(rule="steps_taken", id="rate-45nm"),
        **{"rate-45nm": "brings_taken:made"},
    )
    found = r"'rate-45nm' is registered twice: .*estimators\.yaml and package 'brings_taken'"
    assert re.search(found, error_of(CollisionError))


def test_a_packages_estimator_of_an_id_that_a_file_gives_names_both_places(bring, named):
    code = BRINGS_ONE.format(rule="steps_file", id="chip")
    bring("brings_file", code, chip="brings_file:chip")
    (path,) = named(CHIP)
    assert f"'chip' is registered twice: brings_file.chip and {path}" in error_of(CollisionError)


def test_an_entry_that_is_no_estimator_is_named(bring):
    bring("brings_three", "chip = 3", chip="brings_three:chip")
    assert re.search(r"'brings_three'.*'chip'.*Estimator.* 3$", error_of())


def test_an_estimator_of_another_id_is_named(bring):
    code = BRINGS_ONE.format(rule="steps_other", id="other")
    bring("brings_other", code, chip="brings_other:chip")
    assert re.search(r"brings_other\.chip.*'chip'.*'other'", error_of())


def test_a_rule_of_a_taken_name_names_both_places():
    def rate(report):
        yield "x", 1.0

    with pytest.raises(CollisionError, match=r"estimator_rules\.rate.*locals.*rate"):
        estimator_rules.rule(rate)
    assert RULES["rate"] is estimator_rules.rate


def test_estimators_cannot_be_changed():
    with pytest.raises(TypeError):
        load_estimators()["mine"] = load_estimators()["rate-45nm"]
    with pytest.raises(ValueError, match="frozen"):
        load_estimators()["rate-45nm"].rule = "exact"


def test_every_rule_is_shipped_and_finite():
    assert {estimator.rule for estimator in load_estimators().values()} == set(RULES)
    rows = (row(), real(), row(kind="matmul", other_value_kind="real", other_rate=1.0))
    for energy in energies(count(*rows, neurons=[membrane()])).values():
        assert math.isfinite(energy)
        assert energy > 0


def test_estimators_need_no_torch():
    code = (
        "import sys; from spikebench.energy.estimators import load_estimators; "
        "load_estimators(); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
