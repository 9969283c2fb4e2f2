from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from spikebench import build_backbone, build_classifier, cli, load_weights
from spikebench.weights import convert
from spikebench.weights.convert import Conversion, convert_weights
from spikebench.weights.loading import WeightsError

NANO = "meta_spikeformer_nano"


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_classifier(NANO, 5)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


WRAPPINGS = {
    "bare": lambda state: state,
    "training": lambda state: {"model": state, "epoch": 3, "args": argparse.Namespace(lr=1.0)},
    "parallel": lambda state: {"state_dict": prefixed(state, "module.")},
    "compiled": lambda state: prefixed(state, "module._orig_mod."),
}


@pytest.mark.parametrize("part", ["classifier", "distilled", "backbone"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_our_weights_in_any_wrapping(tmp_path: Path, model: nn.Module, wrapping: str, part: str):
    if part == "distilled":
        model = build_classifier(NANO, 5, distillation=True)
    elif part == "backbone":
        model = model.backbone
    state = model.state_dict()
    source = saved(tmp_path / "source.pth", WRAPPINGS[wrapping](state))
    path = tmp_path / "weights.safetensors"
    done = convert_weights(source, path)
    parameters = sum(p.numel() for p in model.parameters())
    assert done == Conversion(len(state), parameters, left_out=0, fits=NANO)
    tensors, metadata = read(path)
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[key], state[key]) for key in state)
    assert metadata == {
        "format": "pt",
        "layout": "spikebench",
        "source": "source.pth",
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    assert sorted(os.listdir(tmp_path)) == ["source.pth", "weights.safetensors"]


def published_names(prefix: str = "") -> dict[str, Tensor]:
    """A few tensors as the published code names and shapes them."""
    return prefixed(
        {
            "downsample1_1.encode_conv.weight": torch.rand(8, 3, 7, 7),
            "downsample1_1.encode_bn.running_mean": torch.rand(8),
            "ConvBlock2_2.0.Conv.dwconv.weight": torch.rand(96, 1, 7, 7),
            "block3.0.mlp.fc1_conv.weight": torch.rand(384, 96, 1),
            "head.weight": torch.rand(5, 160),
            "head_kd.weight": torch.rand(5, 160),
        },
        prefix,
    )


def test_published_names_and_shapes_are_translated(tmp_path: Path):
    state = published_names()
    source = saved(tmp_path / "15M.pth", {"model": state, "args": argparse.Namespace(kd=True)})
    done = convert_weights(source, tmp_path / "15M.safetensors")
    assert (done.tensors, done.left_out, done.fits) == (6, 0, None)
    assert done.parameters == sum(v.numel() for v in state.values()) - 8
    tensors, _ = read(tmp_path / "15M.safetensors")
    assert {key: tuple(value.shape) for key, value in tensors.items()} == {
        "backbone.stages.0.downsample.conv.weight": (8, 3, 7, 7),
        "backbone.stages.0.downsample.norm.running_mean": (8,),
        "backbone.stages.2.blocks.1.sep_conv.dw.weight": (96, 1, 7, 7),
        "backbone.stages.3.blocks.0.mlp.fc1.conv.weight": (384, 96, 1, 1),
        "head.weight": (5, 160),
        "distillation_head.weight": (5, 160),
    }
    mlp = tensors["backbone.stages.3.blocks.0.mlp.fc1.conv.weight"]
    assert torch.equal(mlp[..., 0], state["block3.0.mlp.fc1_conv.weight"])


def test_what_is_no_part_of_the_model_is_left_out_and_counted(tmp_path: Path, model: nn.Module):
    lightning = {"state_dict": {**prefixed(model.state_dict(), "model."), "loss.w": torch.ones(3)}}
    done = convert_weights(saved(tmp_path / "a.ckpt", lightning), tmp_path / "a.safetensors")
    assert (done.left_out, done.fits) == (1, NANO)
    load_weights(build_classifier(NANO, 5), tmp_path / "a.safetensors")
    detector = {**published_names("backbone."), "neck.weight": torch.ones(3)}
    done = convert_weights(saved(tmp_path / "b.pth", detector), tmp_path / "b.safetensors")
    assert done.left_out == 1


def test_nothing_of_a_detector_is_left_out(tmp_path: Path, model: nn.Module):
    detector = {
        **prefixed(model.backbone.state_dict(), "backbone.net."),
        "neck.convs.0.weight": torch.ones(3),
        "bbox_head.weight": torch.ones(3),
    }
    done = convert_weights(saved(tmp_path / "d.pth", detector), tmp_path / "d.safetensors")
    assert (done.left_out, done.fits) == (0, None)
    assert read(tmp_path / "d.safetensors")[0].keys() == detector.keys()
    backbone = build_backbone(NANO)
    load_weights(backbone, tmp_path / "d.safetensors")


def test_tensors_may_share_memory_and_have_any_layout(tmp_path: Path):
    whole = torch.arange(24.0).reshape(2, 3, 4)
    state = {"a": whole, "b": whole[0], "c": whole.transpose(0, 2)}
    convert_weights(saved(tmp_path / "s.pth", state), tmp_path / "s.safetensors")
    tensors, _ = read(tmp_path / "s.safetensors")
    assert all(torch.equal(tensors[key], state[key]) for key in state)


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "source.pth"),
        ({"model": {"a": torch.ones(1)}, "args": "trap"}, "source.pth"),
        ({"epoch": 3}, "source.pth"),
        ([torch.ones(1)], "a list"),
    ],
)
def test_a_source_without_weights_is_refused(tmp_path: Path, content: object, message: str):
    source, sprung = tmp_path / "source.pth", tmp_path / "sprung"
    if isinstance(content, dict) and content.get("args") == "trap":
        content = {**content, "args": Trap(sprung)}
    if content is not None:
        saved(source, content)
    with pytest.raises(WeightsError, match=message):
        convert_weights(source, tmp_path / "new" / "out.safetensors")
    assert not sprung.exists()
    assert not (tmp_path / "new").exists()


def test_an_interrupted_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source, path = saved(tmp_path / "a.pth", {"a": torch.ones(1)}), tmp_path / "a.safetensors"
    path.write_text("old")

    def interrupted(tensors: object, where: Path, metadata: object) -> None:
        Path(where).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_weights(source, path, force=True)
    assert path.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["a.pth", "a.safetensors"]


class TestTheCommand:
    def run(self, *arguments: object) -> Result:
        return CliRunner().invoke(cli.app, ["convert", *map(str, arguments)])

    def test_it_says_what_it_wrote(self, tmp_path: Path, model: nn.Module):
        content = {"state_dict": {**prefixed(model.state_dict(), "model."), "w": torch.ones(3)}}
        path = tmp_path / "out.safetensors"
        done = self.run(saved(tmp_path / "a.ckpt", content), path)
        assert sum(p.numel() for p in model.parameters()) == 1_129_285
        assert done.exit_code == 0, done.exception
        assert done.output.splitlines() == [
            f"{path}: 370 tensors, 1,129,285 parameters",
            "left out: 1 tensors that are no part of the model",
            f"fits: {NANO}",
        ]

    def test_it_replaces_a_file_only_if_told(self, tmp_path: Path):
        source, path = saved(tmp_path / "a.pth", {"a": torch.ones(1)}), tmp_path / "a.safetensors"
        path.write_text("old")
        refused = self.run(source, path)
        assert isinstance(refused.exception, WeightsError)
        assert str(path) in str(refused.exception)
        assert path.read_text() == "old"
        done = self.run(source, path, "--force")
        assert done.output.splitlines() == [
            f"{path}: 1 tensors, 1 parameters",
            "fits: no registered backbone by its default arguments",
        ]
        assert read(path)[0]["a"] == 1

    def test_it_writes_nothing_but_safetensors(self, tmp_path: Path):
        source = saved(tmp_path / "a.pth", {"a": torch.ones(1)})
        refused = self.run(source, tmp_path / "b.pth", "--force")
        assert "b.pth" in str(refused.exception)
        assert isinstance(refused.exception, WeightsError)
        assert os.listdir(tmp_path) == ["a.pth"]
