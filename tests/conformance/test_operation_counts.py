"""Operation counts against the published Meta-SpikeFormer code: every figure, exactly."""

import pytest

from spikebench import profile_operations
from spikebench.inference.deploy import in_form
from spikebench.weights.meta_spikeformer import from_published


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


@pytest.fixture(scope="module")
def forms(golden, report):
    """The same model and images in all three forms."""
    batch = golden.input(**golden.operations["input"])
    model = golden.classifier(report.time_steps)
    deployed = {
        form: profile_operations(in_form(model, form), [batch], form=form)
        for form in ("dense", "paper")
    }
    return {"as-coded": report, **deployed}


def test_folding_norms_changes_no_count_but_the_norms(forms):
    coded, dense = forms["as-coded"], forms["dense"]
    assert dense.firing_rates == coded.firing_rates
    folded = {row.name: row for row in dense.rows}
    spikes = [row for row in coded.rows if row.value_kind == "binary" and not row.encodes]
    assert len(spikes) == 85
    for row in spikes:
        twin = folded.get(row.name) or folded[row.name.replace(".pw1", ".0")]
        assert (twin.rate, twin.exact_synaptic_operations) == (
            row.rate,
            row.exact_synaptic_operations,
        ), row.name
    assert any("norm" in one.operation for one in coded.uncounted)
    assert not any("norm" in one.operation for one in dense.uncounted)


def test_a_fused_operation_has_the_rate_of_its_input(forms):
    coded, fused = ({row.name: row for row in forms[form].rows} for form in ("as-coded", "paper"))
    assert forms["paper"].firing_rates == forms["as-coded"].firing_rates
    heads = {
        name: row for name, row in coded.items() if name.endswith((".conv.pw1", "sep_conv.dw"))
    }
    assert len(heads) == 4 + 4 * 8
    for name, head in heads.items():
        if name.endswith("dw"):
            twin, taps = fused[name.replace(".dw", ".pw2.conv")], 49
        else:
            twin, taps = fused[name.removesuffix(".pw1")], 9
        assert (twin.value_kind, twin.rate, twin.rates) == ("binary", head.rate, head.rates), name
        channels = head.weights // 49 if taps == 49 else round(head.weights**0.5)
        assert twin.weights % (taps * channels) == 0, name
    assert [name for name, row in fused.items() if row.accumulations is None] == [
        "backbone.stages.0.downsample.conv"
    ]
