"""Operation counts against the published Meta-SpikeFormer code: every figure, exactly."""

import pytest

from benchmark import profile_operations
from benchmark.backbones.published import from_published


@pytest.fixture(scope="module")
def report(golden):
    batch = golden.input(**golden.operations["input"])
    return profile_operations(golden.classifier(golden.operations["T"]), [batch])


@pytest.fixture(scope="module")
def layers(golden, report):
    """Pairs of the published figures and our row."""
    rows = {row.name: row for row in report.rows}
    layers = golden.operations["layers"]
    return [(layer, rows[from_published(name)]) for name, layer in layers.items()]


def test_every_operation_is_found_once(golden, report):
    expected = [from_published(name) for name in golden.operations["layers"]]
    assert len(report.rows) == 154
    assert sorted(row.name for row in report.rows) == sorted(expected)
    assert (report.images, report.time_steps) == (2, 4)


def test_totals(golden, report):
    assert report.dense_macs == golden.operations["totals"]["dense_macs_per_step"]
    assert report.synaptic_operations == golden.operations["totals"]["exact_sops"]


def test_dense_and_exact_counts(layers):
    for layer, row in layers:
        assert row.dense_macs == layer["dense_macs"], row.name
        assert row.exact_synaptic_operations == layer["exact_sops"], row.name


def test_weighted_operations(layers):
    weighted = [(layer, row) for layer, row in layers if row.kind != "matmul"]
    assert len(weighted) == 138
    for layer, row in weighted:
        assert row.dense_macs_unpadded == layer["dense_macs_without_padding"], row.name
        assert row.rate == layer["input_nonzero_rate"], row.name
        assert row.value_kind == ("binary" if layer["binary_input"] else "real"), row.name
        assert row.other_rate is None, row.name


def test_attention_products(layers):
    products = [(layer, row) for layer, row in layers if row.kind == "matmul"]
    assert len(products) == 16
    for layer, row in products:
        rates = [rate for name, rate in layer.items() if name.endswith("_rate")]
        assert [row.rate, row.other_rate] == rates, row.name
        second = "binary" if "v_rate" in layer else "integer"
        assert (row.value_kind, row.other_value_kind) == ("binary", second), row.name


def test_firing_rates(golden, report):
    published = golden.outputs[report.time_steps]["firing_rates"]
    expected = {from_published(name): rate for name, rate in published.items()}
    assert report.firing_rates == expected


def test_images_are_counted_alike_in_any_batching(golden, report):
    images = golden.input(**golden.operations["input"])
    one_by_one = profile_operations(golden.classifier(report.time_steps), images.split(1))
    assert one_by_one == report
