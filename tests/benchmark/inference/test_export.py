from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from spikebench import build_backbone, build_classifier, cli
from spikebench.forms import DEPLOY_FORMS
from spikebench.inference import export
from spikebench.inference.deploy import deploy
from spikebench.inference.export import ExportError, export_onnx
from spikebench.neurons import use_backend
from spikebench.registry import BACKBONES, UnknownNameError

TINY = {"embed_dims": (8, 16, 16, 16), "depths": (1, 1, 1, 1, 1), "num_heads": 2}
TINIEST = {**TINY, "sep_conv": False, "attention_conv": "conv1x1"}


def classifier(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    options = {"time_steps": 2, **TINY, **options}
    return exact(build_classifier("meta_spikeformer_nano", 5, **options)).eval()


def exact(model: nn.Module) -> nn.Module:
    """The model with weights that are powers of two, so that float32 sums are exact in any order.

    Norms scale and shift by such numbers too: folded or not, and in whatever runtime, the maps are
    the same bit for bit.
    """
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            scale = 2.0 ** -round(module.weight[0].numel() ** 0.5).bit_length()
            signs = torch.randint(-1, 2, module.weight.shape, generator=generator)
            module.weight.data = 2 * scale * signs
            if module.bias is not None:
                module.bias.data = torch.round(4 * module.bias) / 4
        elif isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
            for tensor, values in (
                (module.weight, torch.tensor([0.5, 1.0, 2.0])),
                (module.bias, torch.arange(9) / 4),
                (module.running_mean, torch.arange(-4, 5) / 8),
                (module.running_var, torch.tensor([0.25, 1.0, 4.0])),
            ):
                drawn = torch.randint(len(values), tensor.shape, generator=generator)
                tensor.data = values[drawn]
    return model


def images(*shape: int) -> Tensor:
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(1)) / 4


def run(path: Path, x: Tensor) -> list[Tensor]:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(found) for found in session.run(None, {"images": x.numpy()})]


def reference(model: nn.Module, x: Tensor) -> Any:
    with torch.no_grad(), use_backend("reference"):
        return model(x)


def assert_same_maps(path: Path, model: nn.Module, x: Tensor) -> None:
    """Bit for bit, T = 2 and alive."""
    found, expected = run(path, x), reference(model, x)
    assert len(found) == 5
    for one, two in zip(found, expected, strict=True):
        assert (two[0] != two[1]).any()
        assert torch.equal(one, two)


class TestTorchExport:
    @pytest.mark.parametrize(
        ("form", "part"),
        [(None, "classifier"), (None, "backbone"), ("dense", "classifier"), ("paper", "backbone")],
    )
    def test_backbone_and_classifier(self, form: str | None, part: str):
        model = classifier() if part == "classifier" else classifier().backbone
        if form is not None:
            model = deploy(model, **DEPLOY_FORMS[form])
        batch = torch.export.Dim("batch")
        program = torch.export.export(model, (images(2, 3, 32, 32),), dynamic_shapes=({0: batch},))
        x = images(5, 3, 32, 32)
        found, expected = program.module()(x), reference(model, x)
        if part == "classifier":
            found, expected = (found,), (expected,)
        assert all(each.any() for each in expected)
        assert all(map(torch.equal, found, expected))
        assert len(found) == len(expected)

    @pytest.mark.parametrize("neuron", ["if", "plif", "ilif", "psn"])
    def test_every_neuron(self, neuron: str):
        model = classifier(neuron=neuron, **TINIEST).backbone
        x = images(2, 3, 16, 16)
        maps = torch.export.export(model, (x,)).module()(x)
        assert all(map(torch.equal, maps, reference(model, x)))


def keep(traced: list[Any], proto: Any) -> Any:
    traced.append(copy.deepcopy(proto))
    return proto


def other_weight(proto: Any) -> None:
    weight = next(t for t in proto.graph.initializer if t.name.endswith("conv.weight"))
    weight.raw_data = bytes(4) + weight.raw_data[4:]


def other_padding(proto: Any) -> None:
    """Shift what a depthwise convolution reads by a pixel."""
    pads = [a for n in proto.graph.node for a in n.attribute if list(a.ints) == [3, 3, 3, 3]]
    pads[-1].ints[:] = [2, 3, 4, 3]


def other_neuron(proto: Any) -> None:
    """Multiply by tau, instead of dividing by it, in the last neuron of the backbone."""
    [node for node in proto.graph.node if node.op_type == "Div"][-1].op_type = "Mul"


@pytest.fixture(scope="module")
def _onnx():
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)


@pytest.mark.usefixtures("_onnx")
class TestOnnx:
    def test_the_maps_of_event_frames_are_the_undeployed_models(self, tmp_path: Path):
        model = classifier(in_channels=2).backbone
        path = export_onnx(model, tmp_path / "maps.onnx", (2, 2, 32, 48), "paper")
        assert_same_maps(path, model, images(5, 2, 2, 32, 48))

    def test_the_maps_of_images_are_too_and_any_other_file_is_not_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        model = classifier().backbone
        before = {key: value.clone() for key, value in model.state_dict().items()}
        traced: list[Any] = []
        trace = export._trace
        monkeypatch.setattr(export, "_trace", lambda *args: keep(traced, trace(*args)))
        path = export_onnx(model, tmp_path / "right.onnx", (3, 32, 48), "dense")
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
        for batch in (1, 5):
            assert_same_maps(path, model, images(batch, 3, 32, 48))
        for damage, message in (
            (other_weight, "conv.weight"),
            (other_padding, "differ"),
            (other_neuron, "differ"),
        ):
            wrong = copy.deepcopy(traced[0])
            damage(wrong)
            monkeypatch.setattr(export, "_trace", lambda *_, wrong=wrong: wrong)
            with pytest.raises(ExportError, match=message):
                export_onnx(model, tmp_path / "wrong.onnx", (3, 32, 48))
        assert list(tmp_path.iterdir()) == [path]

    def test_what_cannot_be_exported_is_one_line(self, tmp_path: Path):
        class Branches(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x + 1 if x.sum() > 0 else x

        with pytest.raises(ExportError, match=r"Branches[^\n]*$"):
            export_onnx(Branches(), tmp_path / "wrong.onnx", (3, 4, 4))

    def test_an_input_that_does_not_fit(self, tmp_path: Path):
        with pytest.raises(ExportError, match="3x20x20"):
            export_onnx(classifier(), tmp_path / "wrong.onnx", (3, 20, 20))
        with pytest.raises(UnknownNameError, match="papre"):
            export_onnx(classifier(), tmp_path / "wrong.onnx", form="papre")

    def test_the_command_on_a_distilled_classifier(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        import onnx

        def tiniest(**options: Any) -> nn.Module:
            return exact(build_backbone("meta_spikeformer_nano", **TINIEST, **options))

        monkeypatch.setitem(BACKBONES._entries, "tiniest", tiniest)
        torch.manual_seed(0)
        model = build_classifier("tiniest", 5, 2, distillation=True).eval()
        model.backbone.stages[-1].blocks[-1].mlp.fc2.norm.bias.data -= 2.5  # else all would fire
        torch.save({"model": model.state_dict()}, tmp_path / "w.pth")
        path, x = tmp_path / "model.onnx", images(4, 3, 16, 16)
        command = ["export", "tiniest", str(path), "--weights", str(tmp_path / "w.pth")]
        command += ["--form", "paper", "--image-size", "16", "--time-steps", "2"]
        done = CliRunner().invoke(cli.app, command)
        assert done.exit_code == 0, done.exception
        assert done.output == f"{path}: paper form, T = 2, onnxruntime agrees with it\n"

        (logits,) = run(path, x)
        torch.testing.assert_close(logits, reference(model, x))
        assert logits.std(0).max() > 1e-3
        proto = onnx.load(path)
        assert [each.name for each in proto.graph.input] == ["images"]
        assert [each.name for each in proto.graph.output] == ["logits"]
        metadata = {each.key: each.value for each in proto.metadata_props}
        assert (metadata["time_steps"], metadata["form"]) == ("2", "paper")

        again = CliRunner().invoke(cli.app, command)
        assert str(again.exception) == f"{path} exists; use --force to replace it"


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError) as caught:
        export_onnx(nn.Identity(), tmp_path / "a.onnx")
    assert str(caught.value) == (
        "onnxruntime is not installed, which exporting needs: "
        "pip install onnx onnxruntime onnxscript"
    )


def test_the_command_refuses_other_suffixes(tmp_path: Path):
    done = CliRunner().invoke(cli.app, ["export", "meta_spikeformer_nano", "a.pt"])
    assert str(done.exception) == "destination a.pt; expected a name that ends in .onnx"
