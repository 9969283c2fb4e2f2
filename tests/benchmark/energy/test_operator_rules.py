"""What is in no row is listed, with its share of the work."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikebench.energy.profile import profile_operations
from spikebench.neurons import LIF
from tests.benchmark.energy.models import Call, reals, spikes


def uncounted(model, *batches, **options):
    report = profile_operations(model, batches, **options)
    return {
        (one.name, one.operation.removeprefix("aten::")): (one.reason, one.multiplications)
        for one in report.uncounted
    }


def test_batch_norms_and_scales_as_coded():
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), Call(lambda self, x: x * 0.125))
    found = uncounted(model, spikes(2, 2, 4, 4), spikes(2, 2, 4, 4))
    (norm, scale) = sorted(found)
    assert norm[0] == "1"
    assert "batch_norm" in norm[1]
    assert scale == ("2", "mul")
    assert set(found.values()) == {("elementwise", 48.0)}


def test_share_of_the_work():
    report = profile_operations(nn.Sequential(nn.Linear(4, 6), nn.GELU()), [reals(3, 4)])
    assert report.dense_work == 4 * 6 + 6
    assert report.dense_macs == 4 * 6


@pytest.mark.parametrize(
    "function",
    [
        lambda self, x: x + x.mean(),
        lambda self, x: torch.cat([x, x]).relu().clamp(0, 1),
        lambda self, x: x.reshape(-1).sum() + x.max(),
        lambda self, x: F.max_pool2d(x, 2),
        lambda self, x: torch.where(x > 0, x, -x),
        lambda self, x: x.long() + 3,
    ],
)
def test_what_adds_compares_or_moves_is_free(function):
    assert uncounted(Call(function), reals(2, 2, 4, 4)) == {}


def test_what_a_neuron_does_inside_is_its_update():
    assert uncounted(nn.Sequential(LIF()), reals(2, 3)) == {}


def test_weights_alone_fold_away():
    model = Call(lambda self, x: F.linear(x, self.fc.weight * 2), fc=nn.Linear(3, 3))
    assert uncounted(model, reals(2, 3)) == {}


def test_products_behind_other_names():
    found = uncounted(
        nn.Sequential(nn.Bilinear(3, 3, 2)), spikes(2, 3), forward=lambda m, x: m[0](x, x)
    )
    assert found[("0", "_trilinear")] == ("no rule", 3 * 3 * 2)


def test_foreign_operations_that_read_weights():
    vision = pytest.importorskip("torchvision")
    model = vision.ops.DeformConv2d(2, 4, 3, padding=1)
    found = uncounted(model, spikes(1, 2, 4, 4), forward=lambda m, x: m(x, x.repeat(1, 9, 1, 1)))
    assert found[("", "torchvision::deform_conv2d")] == ("no rule", 16 * 4 * 2 * 9)


def test_recurrent_layers_are_counted_or_listed():
    lstm = nn.LSTM(5, 4)
    report = profile_operations(lstm, [reals(7, 3, 5)], forward=lambda m, x: m(x))
    listed = [one for one in report.uncounted if one.reason == "no rule"]
    work = report.dense_macs + sum(one.multiplications for one in listed)
    assert work * report.images == 7 * 3 * 4 * 4 * (5 + 4)


def test_foreign_operations_of_which_nothing_is_known():
    with torch.library._scoped_library("spikebench_test", "FRAGMENT") as library:
        library.define("twist(Tensor a, Tensor b) -> Tensor")
        library.impl("twist", lambda a, b: a @ b, "CPU")
        twist = torch.ops.spikebench_test.twist
        found = uncounted(Call(lambda self, x: twist(x, x)), reals(3, 3))
    assert found == {("", "spikebench_test::twist"): ("no rule", None)}


def test_attention_that_chooses_its_own_kernel():
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def forward(self, x):
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(x, x, x)

    (found,) = uncounted(Call(forward), reals(2, 4, 5, 8)).values()
    assert found == ("no rule", 2 * 4 * 5 * 5 * 8)


def test_a_compiled_submodule_is_counted_all_the_same():
    inner = torch.compile(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), backend="eager")
    report = profile_operations(nn.Sequential(inner), [reals(2, 4)])
    assert report.dense_macs == 12


@pytest.mark.parametrize(
    ("function", "multiplications"),
    [
        (lambda self, x: torch.fft.rfft2(x), None),
        (lambda self, x: torch.cdist(x, x + 1), None),
        (lambda self, x: torch.linalg.inv(x @ x.mT + torch.eye(4)), None),
        (lambda self, x: x.prod(-1), 16.0),
        (lambda self, x: x.var(-1), 16.0),
        (lambda self, x: torch.view_as_complex(x.reshape(2, 4, 2, 2)) * 2j, 8.0),
    ],
)
def test_what_multiplies_in_other_ways_is_never_dropped(function, multiplications):
    (found,) = uncounted(Call(function), reals(2, 4, 4)).values()
    assert found[1] == multiplications


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "swin_t", "efficientnet_b0"])
def test_networks_in_use_have_a_rule_for_all_they_run(name):
    vision = pytest.importorskip("torchvision")
    model = getattr(vision.models, name)()
    report = profile_operations(model, [reals(2, 3, 64, 64)])
    assert [one for one in report.uncounted if one.reason == "no rule"] == []


@pytest.mark.parametrize("neuron", ["lif", "ilif", "psn"])
@pytest.mark.parametrize("attention", ["sdsa1", "sdsa2", "sdsa3", "sdsa4"])
def test_meta_spikeformer_has_a_rule_for_all_it_runs(neuron, attention):
    from spikebench import build_classifier

    model = build_classifier(
        "meta_spikeformer_nano", num_classes=10, time_steps=2, neuron=neuron, attention=attention
    )
    report = profile_operations(model, [reals(3, 3, 32, 32)])
    assert [one for one in report.uncounted if one.reason == "no rule"] == []
    assert all(row.rates for row in report.rows)
    assert report.synaptic_operations_std is not None
