from __future__ import annotations

import copy
import io
import logging
import re
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from spikebench import build_backbone, build_classifier, profile_operations
from spikebench.backbones import Classifier, to_time_first
from spikebench.backbones.layers import ConvNorm, Downsample, per_frame
from spikebench.backbones.meta_spikeformer import SepConv
from spikebench.backbones.rep_conv import RepConv
from spikebench.forms import DEPLOY_FORMS
from spikebench.inference.deploy import DeployError, deploy
from spikebench.neurons import use_backend

FUSED = (False, ["RepConv"], ["SepConv"], True)
STEPS = [{"fold_norms": fold, "fuse": fuse} for fold, fuse in product((False, True), FUSED)]


@pytest.fixture(autouse=True)
def _reference():
    with use_backend("reference"):
        yield


def settled(model: nn.Module, *shape: int) -> nn.Module:
    """In evaluation, with norms that are far from the identity and neurons that fire."""
    generator = torch.Generator().manual_seed(1)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None  # the plain average, here of one batch
            if norm.affine:
                norm.weight.uniform_(1, 3, generator=generator)
                norm.bias.uniform_(-0.5, 1, generator=generator)
        model.train()
        model(torch.randn(2, *shape, generator=generator, dtype=next(model.parameters()).dtype))
    return model.eval()


def nano(**options) -> nn.Module:
    torch.manual_seed(0)
    model = build_classifier("meta_spikeformer_nano", 7, **{"time_steps": 2, **options})
    shape = (2, 2, 32, 32) if "in_channels" in options else (3, 32, 32)  # event frames or images
    return settled(model.double(), *shape)


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    with use_backend("reference"):
        return nano()


def images(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return 2 * torch.randn(*shape, generator=generator, dtype=torch.float64)


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The logits and every map of a classifier; they differ from image to image."""
    with torch.no_grad():
        found = [model(x).T, *model.backbone(x)]
    assert all((each[:, 0] != each[:, 1]).any() for each in found)
    return found


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference relative to the scale of what was expected."""
    return float((found - expected).abs().max() / expected.abs().max())


def norms_in(model: nn.Module) -> list[str]:
    kind = nn.modules.batchnorm._BatchNorm
    return [name for name, module in model.named_modules() if isinstance(module, kind)]


@pytest.mark.parametrize("steps", STEPS, ids=str)
def test_every_step_keeps_logits_and_maps(classifier: nn.Module, steps: dict):
    x = images(2, 3, 32, 48)
    deployed = deploy(classifier, **steps)
    for found, expected in zip(outputs(deployed, x), outputs(classifier, x), strict=True):
        assert difference(found, expected) < 1e-10
    kinds = {type(module) for module in deployed.modules()}
    rep_conv, sep_conv = (steps["fuse"] in (True, [name]) for name in ("RepConv", "SepConv"))
    assert (nn.BatchNorm2d in kinds) is not steps["fold_norms"]
    assert (RepConv in kinds) is not (steps["fold_norms"] or rep_conv)
    kernels = {m.pw2.conv.kernel_size for m in deployed.modules() if isinstance(m, SepConv)}
    assert kernels == {(7, 7) if sep_conv else (1, 1)}


@pytest.mark.parametrize("form", DEPLOY_FORMS)
@pytest.mark.parametrize(
    "options",
    [
        {"attention": "sdsa1", "attention_conv": "conv3x3"},
        {"attention": "sdsa2", "attention_conv": "conv1x1", "sep_conv": False},
        {"attention": "sdsa4", "channel_conv": False, "drop_path": 0.5},
        {"shortcut": "sew", "neuron": "plif"},
        {"shortcut": "vanilla", "grad_checkpointing": True},
        {"neuron": "psn", "distillation": True},
        {"neuron": "ilif", "in_channels": 2},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_design_has_both_forms(form: str, options: dict):
    model = nano(**options)
    x = images(2, 2, 2, 32, 32) if "in_channels" in options else images(2, 3, 32, 32)
    deployed = deploy(model, **DEPLOY_FORMS[form])
    assert norms_in(deployed) == []
    for found, expected in zip(outputs(deployed, x), outputs(model, x), strict=True):
        assert difference(found, expected) < 1e-10


class TestInFloat32:
    """Layer by layer, on the same spikes: end to end, a spike that rounding flips changes all."""

    @pytest.mark.parametrize("steps", STEPS[1:], ids=str)
    def test_layers_agree(self, classifier: nn.Module, steps: dict):
        float32 = copy.deepcopy(classifier).float()
        deployed = deploy(float32, **steps)
        inputs: dict[str, Tensor] = {}
        hooks = [
            module.register_forward_hook(
                lambda module, args, spikes, name=name: inputs.update({name: (*args, spikes)})
            )
            for name, module in float32.named_modules()
        ]
        with torch.no_grad():
            float32(images(2, 3, 32, 48).float())
            for hook in hooks:
                hook.remove()
            compared = 0
            for name, module in float32.named_modules():
                if isinstance(module, SepConv):
                    spikes = inputs[f"{name}.lif2"][-1]
                    run = self.run_tail
                elif isinstance(module, ConvNorm) and not name.endswith("pw2"):
                    reads_spikes = not isinstance(module, Downsample)
                    spikes = inputs[name][0] if reads_spikes else inputs[f"{name}.lif"][-1]
                    run = self.run_conv_norm
                else:
                    continue
                assert spikes.any()
                found, expected = run(deployed.get_submodule(name), spikes), run(module, spikes)
                assert difference(found, expected) < 1e-5, name
                compared += 1
        assert compared == 5 + 3 * 4 + 3 * 6  # downsamples, convolution and transformer blocks

    @staticmethod
    def run_tail(sep_conv: nn.Module, spikes: Tensor) -> Tensor:
        return sep_conv.pw2(per_frame(sep_conv.dw, spikes))

    @staticmethod
    def run_conv_norm(layer: nn.Module, spikes: Tensor) -> Tensor:
        return per_frame(lambda frames: layer.norm(layer.conv(frames)), spikes)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 6)])
def test_the_border_is_exact(size: tuple[int, int]):
    torch.manual_seed(0)
    rep = settled(RepConv(6).double(), 6, 9, 9)
    spikes = (torch.rand(3, 6, *size) < 0.4).double()
    forms = [deploy(rep), deploy(rep, fuse=True)]
    assert [type(form) for form in forms] == [nn.Sequential, nn.Conv2d]
    assert forms[1].padding == (1, 1)
    with torch.no_grad():
        for form in forms:
            assert difference(form(spikes), rep(spikes)) < 1e-12


# facts of the paper's models: millions of parameters with the RepConvs fused, with 1000 classes
@pytest.mark.parametrize(
    ("name", "rep_conv", "exactly", "paper"),
    [
        ("meta_spikeformer_15m", 33.3, 33_226_464, 36_829_216),
        ("meta_spikeformer_31m", 68.8, 68_786_824, 76_918_888),
        ("meta_spikeformer_55m", 122.1, 122_031_976, 136_511_976),
    ],
)
def test_parameters_grow_to_those_of_the_facts(
    name: str, rep_conv: float, exactly: int, paper: int
):
    with torch.device("meta"):
        model = build_classifier(name, 1000)

    def millions(**steps) -> float:
        return sum(p.numel() for p in deploy(model, **steps).parameters()) / 1e6

    assert millions(fold_norms=False, fuse=["RepConv"]) == pytest.approx(rep_conv, abs=0.06)
    assert millions(fuse=["RepConv"]) == exactly / 1e6
    assert millions(**DEPLOY_FORMS["paper"]) == paper / 1e6
    assert millions() < sum(p.numel() for p in model.parameters()) / 1e6


def test_dense_operations_are_those_of_the_facts():
    torch.manual_seed(0)
    model = build_classifier("meta_spikeformer_15m", 1000)
    image = [torch.randn(1, 3, 224, 224)]
    dense, rep_conv, paper = (
        profile_operations(deploy(model, **steps), image)
        for steps in (DEPLOY_FORMS["dense"], {"fuse": ["RepConv"]}, DEPLOY_FORMS["paper"])
    )
    assert dense.dense_macs == 6_472_781_760
    assert round(rep_conv.dense_macs / 1e9, 2) == 10.04
    assert round(paper.dense_macs / 1e9, 2) == 14.89


def test_in_the_paper_form_spikes_meet_every_weight(classifier: nn.Module):
    batch = [images(2, 3, 32, 32)]

    def reals(model: nn.Module) -> set[str]:
        return {
            row.name for row in profile_operations(model, batch).rows if row.value_kind == "real"
        }

    stem = "backbone.stages.0.downsample.conv"
    assert reals(deploy(classifier, **DEPLOY_FORMS["paper"])) == {stem}
    assert len(reals(deploy(classifier))) > 20


class TestTheCopy:
    def test_the_model_is_left_as_it_is(self, classifier: nn.Module):
        model = copy.deepcopy(classifier).train()
        before = copy.deepcopy(model.state_dict())
        modules = list(model.modules())
        deployed = deploy(model, **DEPLOY_FORMS["paper"])
        assert list(model.modules()) == modules
        assert all(module.training for module in modules)
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert before.keys() == model.state_dict().keys()
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        own = {p.data_ptr() for p in model.parameters()}
        assert own.isdisjoint(p.data_ptr() for p in deployed.parameters())

    def test_it_does_not_train(self, classifier: nn.Module):
        deployed = deploy(classifier)
        assert not any(module.training for module in deployed.modules())
        assert not any(parameter.requires_grad for parameter in deployed.parameters())
        assert deployed.eval() is deployed
        for model in (deployed, copy.deepcopy(deployed), deploy(deployed)):
            with pytest.raises(DeployError, match="Classifier"):
                model.train()
        outer = Classifier(deploy(classifier.backbone), 3)
        with pytest.raises(DeployError, match="MetaSpikeformer"):
            outer.train()

    def test_a_copy_refuses_for_itself(self, classifier: nn.Module):
        deployed = deploy(classifier.backbone)
        again = copy.deepcopy(deployed)
        assert again.eval() is again

    def test_it_can_be_deployed_again(self, classifier: nn.Module):
        x = images(2, 3, 32, 32)
        twice = deploy(deploy(classifier), **DEPLOY_FORMS["paper"])
        for found, expected in zip(outputs(twice, x), outputs(classifier, x), strict=True):
            assert difference(found, expected) < 1e-10

    def test_its_weights_load_into_another_one(self, classifier: nn.Module):
        x = images(2, 3, 32, 32)
        stream = io.BytesIO()
        torch.save(deploy(classifier).state_dict(), stream)
        stream.seek(0)
        other = deploy(build_classifier("meta_spikeformer_nano", 7, time_steps=2).double())
        other.load_state_dict(torch.load(stream, weights_only=True))
        assert torch.equal(other(x), deploy(classifier)(x))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_it_has_the_models_type(self, classifier: nn.Module, dtype: torch.dtype):
        model = copy.deepcopy(classifier).to(dtype)
        deployed = deploy(model, **DEPLOY_FORMS["paper"])
        assert {value.dtype for value in deployed.state_dict().values()} == {dtype}

    def test_a_layer_of_another_kind_is_refused(self):
        class OddConv2d(nn.Conv2d):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x) ** 2

        model = build_backbone("meta_spikeformer_nano")
        model.stages[0].downsample.conv = OddConv2d(3, 8, 7, 2, 3)
        with pytest.raises(DeployError) as caught:
            deploy(model)
        assert str(caught.value) == (
            "a layer to fold is of type OddConv2d, or has hooks; expected a plain convolution and "
            "batch norm: deploy the model before changing its layers"
        )


class Doubled(nn.Module):
    """Somebody else's layer, which says itself how it is deployed: two linear layers in a row."""

    can_fuse = True

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Linear(3, 3, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))

    def deployed(self, fold_norms: bool, fuse: bool) -> nn.Module:
        if not fuse:
            return self
        layer = nn.Linear(3, 3, bias=False)
        layer.weight = nn.Parameter(self.second.weight @ self.first.weight)
        return layer


class TestALayerThatSaysHow:
    def test_is_replaced_wherever_it_stands(self):
        shared = Doubled().double()
        model = nn.Sequential(shared, nn.ModuleDict({"a": nn.Sequential(shared)})["a"])
        x = torch.randn(2, 3, dtype=torch.float64)
        for steps in ({"fuse": True}, {"fuse": ["Doubled"]}):
            deployed = deploy(model, **steps)
            assert deployed[0] is deployed[1][0]
            assert isinstance(deployed[0], nn.Linear)
            torch.testing.assert_close(deployed(x), model(x))
        assert isinstance(deploy(shared, fuse=True), nn.Linear)
        assert isinstance(deploy(model)[0], Doubled)

    def test_a_kind_that_the_model_lacks_is_an_error(self):
        with pytest.raises(DeployError, match="RepConf.*Doubled"):
            deploy(nn.Sequential(Doubled()), fuse=["RepConf"])

    def test_a_kind_that_cannot_fuse_is_an_error(self):
        with pytest.raises(DeployError, match=r"ConvNorm.*RepConv, SepConv$"):
            deploy(build_backbone("meta_spikeformer_nano"), fuse="ConvNorm")


class Net(nn.Module):
    """Somebody else's: a convolution, a norm, and the forward that a test gives."""

    def __init__(self, run: Callable[[Net, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        self.conv, self.norm = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def plain(net: Net, x: Tensor) -> Tensor:
    return net.norm(net.conv(x))


def in_frames(net: Net, x: Tensor) -> Tensor:
    return per_frame(lambda frames: plain(net, frames), to_time_first(x, 2, 2)).mean(0)


def without(net: nn.Module) -> nn.Module:
    """The net less its own layers, which its forward does not call."""
    del net.conv, net.norm
    return net


def nested(*layers: nn.Module) -> nn.Module:
    """A net in a list, beside layers, in a sequence."""
    outer = without(Net(lambda net, x: sum(layer(x) for layer in net.nets)))
    outer.nets = nn.ModuleList([Net(plain), *layers])
    return nn.Sequential(outer)


def listed() -> nn.Module:
    net = Net(lambda net, x: net.layers[1](net.layers[0](x)))
    net.layers = nn.ModuleList([net.conv, net.norm])
    return without(net)


def called_twice() -> nn.Module:
    return without(Net(lambda net, x: net.inner(x) + net.inner(x + 1), inner=listed()))


def volumes() -> nn.Module:
    """Convolutions over one and three axes, without bias and in groups."""
    lines = nn.Sequential(nn.Conv1d(3, 6, 3, groups=3, bias=False), nn.BatchNorm1d(6))
    cubes = nn.Sequential(nn.Conv3d(3, 4, (1, 3, 3), bias=False), nn.BatchNorm3d(4, affine=False))
    net = Net(lambda net, x: net.lines(x.flatten(2)).mean() + net.cubes(x[:, :, None]))
    net.lines, net.cubes = lines, cubes
    return without(net)


FOLDED = {
    "plain": lambda: Net(plain),
    "sequence": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
    "frames": lambda: Net(in_frames),
    "listed": listed,
    "nested": lambda: nested(nn.Sequential(nn.Conv2d(3, 4, 1, stride=2), nn.BatchNorm2d(4))),
    "called twice": called_twice,
    "volumes": volumes,
}


class Branches(nn.Module):
    """A forward that fx cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Net(plain)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) if x.sum() > -1e9 else self.inner.conv(x)


def norm_first(net: Net, x: Tensor) -> Tensor:
    return net.conv(net.norm(x[:, :1].expand(-1, 4, -1, -1))[:, :3])


def shared_norm() -> nn.Module:
    net = Net(lambda net, x: net.norm(net.conv(x)) + net.second(x))
    net.second = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), net.norm)
    return net


def without_statistics() -> nn.Module:
    net = Net(plain)
    net.norm = nn.BatchNorm2d(4, track_running_stats=False)
    return net


def with_weight_norm() -> nn.Module:
    net = Net(plain)
    nn.utils.parametrizations.weight_norm(net.conv)
    return net


def with_hook() -> nn.Module:
    net = Net(plain)
    net.conv.register_forward_hook(lambda module, args, output: output * 2)
    return net


def looks_inside() -> nn.Module:
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    return without(Net(lambda net, x: net.inner(x) + net.inner[0](x), inner=inner))


def linear() -> nn.Module:
    net = Net(lambda net, x: net.norm(net.conv(x)))
    net.conv, net.norm = nn.Linear(8, 4), nn.BatchNorm2d(3)
    return net


KEPT = {
    "two readers": (lambda: Net(lambda n, x: n.norm(y := n.conv(x)) + y), "conv .* elsewhere"),
    "two convs": (lambda: Net(lambda n, x: plain(n, x) + n.conv(x)), "conv is used in 2 places"),
    "norm alone": (lambda: Net(lambda n, x: n.norm(2 * n.conv(x))), "not the output"),
    "norm first": (lambda: Net(norm_first), "not the output"),
    "weight read": (
        lambda: Net(lambda n, x: plain(n, x) * n.conv.weight.mean()),
        "conv is used in 2 places",
    ),
    "branches": (Branches, "Branches"),
    "shared": (shared_norm, "norm is shared"),
    "statistics": (without_statistics, "statistics"),
    "weight norm": (with_weight_norm, "conv before it"),
    "hook": (with_hook, "conv before it"),
    "inside": (looks_inside, "inner.0 is used in 2 places"),
    "linear": (linear, "conv before it"),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.BatchNorm2d(4)),
        "0 before it",
    ),
}


class TestForeignModels:
    def build(self, make: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module]:
        """A model and its deploy form, which give the same."""
        torch.manual_seed(0)
        model = settled(make().double(), 3, 8, 8)
        x = images(2, 3, 8, 8)
        deployed = deploy(model)
        with torch.no_grad():
            assert difference(deployed(x), model(x)) < 1e-12
        return model, deployed

    @pytest.mark.parametrize("make", FOLDED.values(), ids=FOLDED)
    def test_a_pair_that_is_proved_is_folded(self, make, caplog: pytest.LogCaptureFixture):
        model, deployed = self.build(make)
        assert norms_in(model)
        assert norms_in(deployed) == []
        assert caplog.records == []

    @pytest.mark.parametrize(("make", "reason"), KEPT.values(), ids=KEPT)
    def test_any_other_norm_stays_and_is_named(
        self, make, reason: str, caplog: pytest.LogCaptureFixture
    ):
        with caplog.at_level(logging.WARNING, "spikebench"):
            model, deployed = self.build(make)
        assert norms_in(deployed) == norms_in(model)
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == len(norms_in(model))
        for message, name in zip(messages, norms_in(model), strict=True):
            assert re.match(rf"deploy: batch norm {name} stays: .*{reason}", message), message
            assert "\n" not in message

    def test_a_norm_behind_a_norm_stays(self):
        model, deployed = self.build(
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
        )
        assert norms_in(deployed) == ["2"]

    def test_tracing_leaves_nothing_behind(self):
        def keeps_its_input(net: Net, x: Tensor) -> Tensor:
            net.seen = x
            return plain(net, x)

        model = settled(Net(keeps_its_input), 3, 8, 8)
        seen = model.seen
        deployed = deploy(model)
        assert norms_in(deployed) == []
        assert model.seen is seen
        assert torch.equal(deployed.seen, seen)

    def test_without_folding_they_are_left_alone(self, caplog: pytest.LogCaptureFixture):
        model = settled(Branches().double(), 3, 8, 8)
        assert norms_in(deploy(model, fold_norms=False)) == norms_in(model)
        assert caplog.records == []


def test_norms_that_stay_for_one_reason_share_a_line(caplog):
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.first, self.second = nn.Conv2d(2, 2, 1), *norms(2)

        def forward(self, x):
            return self.second(self.first(self.conv(x))) if x.sum() > 0 else x

    def norms(count):
        return [nn.BatchNorm2d(2) for _ in range(count)]

    deploy(Branching())
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("deploy: batch norm first and 1 others stay: the forward of")
