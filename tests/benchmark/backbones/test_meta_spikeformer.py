from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spikebench import build_backbone, build_classifier
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
    with pytest.raises(ValueError, match=f"{height}x{width}"):
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
        ((1, 3, 3, 16, 16), "time_steps=2"),
        ((3, 16, 16), r"\(3, 16, 16\)"),
    ],
)
def test_input_of_another_form_is_refused(nano: MetaSpikeformer, shape: tuple, message: str):
    with pytest.raises(ValueError, match=message):
        nano(torch.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embed_dims": (32, 64)}, r"\(32, 64\)"),
        ({"depths": (1, 1, 0, 1, 1)}, "depths=1, 1, 0, 1, 1"),
        ({"time_steps": 0}, "time_steps=0"),
        ({"num_heads": 5}, "5 heads"),
    ],
)
def test_arguments_without_meaning_are_refused(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_backbone("meta_spikeformer_nano", **arguments)


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="drop_path_rate"):
        build_backbone("meta_spikeformer_nano", drop_path_rate=0.1)


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
