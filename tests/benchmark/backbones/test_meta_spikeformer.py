from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spikebench import build_backbone, build_classifier
from spikebench.backbones.layers import RepConv
from spikebench.backbones.meta_spikeformer import MetaSpikeformer
from spikebench.inference.deploy import deploy
from spikebench.neurons import LIF

# facts of the paper's models: with 1000 classes, with a distillation head, without classifier
PARAMETERS = {
    "meta_spikeformer_15m": (15_112_208, 15_473_208, 14_751_208),
    "meta_spikeformer_31m": (31_333_864, 31_814_864, 30_852_864),
    "meta_spikeformer_55m": (55_350_248, 55_991_248, 54_709_248),
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def nano() -> MetaSpikeformer:
    torch.manual_seed(0)
    return build_backbone("meta_spikeformer_nano", time_steps=2).eval()


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_paper(name: str):
    with torch.device("meta"):
        found = (
            count(build_classifier(name, 1000)),
            count(build_classifier(name, 1000, distillation=True)),
            count(build_backbone(name)),
        )
    assert found == PARAMETERS[name]


def test_77_lif_layers_of_which_the_8_behind_attention_fire_at_a_half():
    with torch.device("meta"):
        model = build_classifier("meta_spikeformer_15m", 1000)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, LIF)}
    assert len(layers) == 77
    halves = [name for name, layer in layers.items() if layer.threshold == 0.5]
    assert len(halves) == 8
    assert all(name.endswith("attn.attn_lif") for name in halves)
    assert {layer.threshold for layer in layers.values()} == {0.5, 1.0}
    assert {layer.dynamics.tau for layer in layers.values()} == {2.0}


def test_maps_have_the_declared_channels_and_strides(nano: MetaSpikeformer):
    assert [info.stride for info in nano.feature_info] == [2, 4, 8, 16, 16]
    assert [info.channels for info in nano.feature_info] == [8, 16, 48, 96, 160]
    with torch.no_grad():
        maps = nano(torch.randn(3, 3, 32, 48))
    assert [tuple(m.shape) for m in maps] == [
        (2, 3, info.channels, 32 // info.stride, 48 // info.stride) for info in nano.feature_info
    ]


@pytest.mark.parametrize(("height", "width"), [(32, 40), (24, 32), (33, 33)])
def test_sizes_that_16_does_not_divide_are_refused(nano: MetaSpikeformer, height: int, width: int):
    with pytest.raises(ValueError, match=f"{height}x{width} pixels; both must be divisible by 16"):
        nano(torch.zeros(1, 3, height, width))


def test_event_frames_are_read_in_their_order(nano: MetaSpikeformer):
    generator = torch.Generator().manual_seed(0)
    frames = 3 * torch.randn(2, 2, 3, 16, 16, generator=generator)
    image = frames[:, :1].expand(-1, 2, -1, -1, -1)
    with torch.no_grad():
        first = nano(frames)[0]
        assert torch.equal(nano(image)[0], nano(image[:, 0])[0])
        assert torch.equal(first[0], nano(image)[0][0])  # the first step sees the first frame only
        assert not torch.equal(first[1], nano(image)[0][1])


def test_events_of_two_polarities():
    model = build_backbone("meta_spikeformer_nano", time_steps=3, in_channels=2).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 2, 16, 16))[-1].shape == (3, 1, 160, 1, 1)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 3, 16, 16), "3 event frames for a backbone with time_steps=2"),
        ((3, 16, 16), r"input of shape \(3, 16, 16\); expected \(B, C, H, W\)"),
    ],
)
def test_input_of_another_form_is_refused(nano: MetaSpikeformer, shape: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        nano(torch.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embed_dims": (32, 64)}, "expected 4 widths"),
        ({"depths": (1, 1, 0, 1, 1)}, "depths=1, 1, 0, 1, 1; expected whole numbers of at least 1"),
        ({"time_steps": 0}, "time_steps=0"),
        ({"num_heads": 5}, "96 channels cannot be split into 5 heads"),
    ],
)
def test_arguments_without_meaning_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_backbone("meta_spikeformer_nano", **arguments)


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="drop_path_rate"):
        build_backbone("meta_spikeformer_nano", drop_path_rate=0.1)


@pytest.fixture
def rep_conv() -> RepConv:
    """A RepConv in float64 whose batch norms are anything but the identity."""
    torch.manual_seed(0)
    model = RepConv(6).double()
    with torch.no_grad():
        for norm in (model.norm1, model.norm2):
            norm.weight.uniform_(1, 3)
            norm.bias.uniform_(-0.5, 1)
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 1.5)
    return model


def spikes(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(*shape, generator=generator) < 0.3).double()


def dense(model: RepConv, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of all but the last batch norm, whose first normalises by `mean`, `var`."""
    scale = model.norm1.weight / torch.sqrt(var + model.norm1.eps)
    shift = model.norm1.bias - mean * scale
    first, last = model.pw1.weight[:, :, 0, 0], model.pw2.weight[:, :, 0, 0]
    weight = torch.einsum("om,myx,m,mi->oiyx", last, model.dw.weight[:, 0], scale, first)
    return weight, last @ (model.dw.weight.sum((1, 2, 3)) * shift)


def test_rep_conv_is_one_dense_convolution_in_evaluation(rep_conv: RepConv):
    rep_conv.eval()
    norm = rep_conv.norm2
    x = spikes(5, 6, 5, 7)
    with torch.no_grad():
        weight, bias = dense(rep_conv, rep_conv.norm1.running_mean, rep_conv.norm1.running_var)
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = weight * scale[:, None, None, None]
        bias = (bias - norm.running_mean) * scale + norm.bias
        expected = F.conv2d(x, weight, bias, padding=1)
        found = rep_conv(x)
    assert (found - expected).abs().max() < 1e-12


def test_rep_conv_pads_with_batch_statistics_in_training(rep_conv: RepConv):
    rep_conv.train()
    norm = rep_conv.norm2
    frames = spikes(5, 6, 5, 7)
    with torch.no_grad():
        lifted = F.conv2d(frames, rep_conv.pw1.weight)
        mean, var = lifted.mean((0, 2, 3)), lifted.var((0, 2, 3), correction=0)
        weight, bias = dense(rep_conv, mean, var)
        expected = F.conv2d(frames, weight, bias, padding=1)
        expected = F.batch_norm(expected, None, None, norm.weight, norm.bias, training=True)
        found = rep_conv(frames)
    assert (found - expected).abs().max() < 1e-12


class AnyNorm(nn.modules.batchnorm._BatchNorm):
    """A batch norm of another kind, such as a synchronised one: it is called as it is."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass


@pytest.mark.parametrize("momentum", [0.1, None])
def test_rep_conv_trains_as_its_parts_one_after_another(rep_conv: RepConv, momentum: float | None):
    rep_conv.norm1.momentum = momentum
    literal = copy.deepcopy(rep_conv)
    literal.norm1.__class__ = AnyNorm
    found = []
    for model in (rep_conv, literal):
        results = []
        for seed in (1, 2):
            frames = torch.randn(
                5, 6, 5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
            ).requires_grad_()
            output = model(frames)
            results.append(output)
            wanted = [frames, *model.parameters()]
            results.extend(torch.autograd.grad(output.sin().sum(), wanted))
        found.append([*results, *model.buffers()])
    assert rep_conv.norm1.num_batches_tracked == 2
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)


def test_rep_conv_trains_in_half_precision(rep_conv: RepConv):
    frames = spikes(5, 6, 5, 7).float().requires_grad_()
    grads = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = rep_conv.float()(frames)
        assert output.dtype == (torch.bfloat16 if enabled else torch.float32)
        grads.append(torch.autograd.grad(output.float().sin().sum(), frames)[0])
    assert (grads[0] - grads[1]).norm() < 0.1 * grads[0].norm()


def test_a_deployed_stem_meets_a_still_image_once():
    torch.manual_seed(0)
    model = build_backbone("meta_spikeformer_nano", time_steps=3).double().eval()
    deployed = deploy(model, fold_norms=False)
    seen: list[int] = []
    for each in (model, deployed):
        conv = each.stages[0].downsample.conv
        conv.register_forward_hook(lambda module, args, output: seen.append(len(output)))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    frames = images[:, None].repeat(1, 3, 1, 1, 1)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(deployed(images), expected)
        torch.testing.assert_close(deployed(frames), expected)
        assert seen == [6, 2, 6]
        model.train()(images)
    assert seen == [6, 2, 6, 2]


def test_training_on_a_still_image_is_training_on_frames_that_repeat_it():
    found = []
    for repeated in (False, True):
        torch.manual_seed(0)
        model = build_backbone("meta_spikeformer_nano", time_steps=3).double()
        images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
        maps = model(images[:, None].repeat(1, 3, 1, 1, 1) if repeated else images)
        sum(features.square().mean() for features in maps).backward()
        found.append([*maps, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm_bias", [0.0, 2.0])
def test_the_classifier_learns_from_the_start_at_one_time_step(norm_bias: float):
    torch.manual_seed(0)
    model = build_classifier(
        "meta_spikeformer_nano", num_classes=7, time_steps=1, norm_bias=norm_bias
    )
    logits = model(torch.randn(4, 3, 64, 64))
    assert logits.shape == (4, 7)
    F.cross_entropy(logits, torch.arange(4)).backward()
    assert model.head.weight.grad is not None
    assert model.head.weight.grad.abs().sum() > 0


def test_distillation_gives_two_heads_in_training_and_their_mean_in_evaluation():
    torch.manual_seed(0)
    model = build_classifier("meta_spikeformer_nano", 5, time_steps=2, distillation=True)
    images = torch.randn(2, 3, 16, 16)
    logits, distilled = model(images)
    assert logits.shape == distilled.shape == (2, 5)
    assert not torch.equal(logits, distilled)
    with torch.no_grad():
        both = model.eval()(images)
        model.distillation_head.weight.copy_(model.head.weight)
        model.distillation_head.bias.copy_(model.head.bias + 2)
        first = model(images)
        model.distillation_head = None
        torch.testing.assert_close(first, model(images) + 1)
    assert both.shape == (2, 5)


@pytest.mark.parametrize("distillation", [False, True])
@pytest.mark.parametrize("frames", [False, True])
def test_the_first_time_steps_of_a_pass_are_those_of_a_shorter_one(distillation, frames):
    torch.manual_seed(0)
    models = {
        t: build_classifier("meta_spikeformer_nano", 5, t, distillation).eval() for t in (1, 2, 4)
    }
    for model in models.values():
        model.load_state_dict(models[4].state_dict())
    x = torch.randn(2, *((4,) if frames else ()), 3, 32, 32) * 3
    with torch.no_grad():
        over_time = models[4].over_time(x)
        assert over_time.shape == (4, 2, 5)
        for steps, model in models.items():
            expected = model(x[:, :steps] if frames else x)
            torch.testing.assert_close(over_time[steps - 1], expected)
    assert not torch.equal(over_time[0], over_time[3])
