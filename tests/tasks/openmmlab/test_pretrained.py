"""Weights of a classifier in a detector's or segmentor's backbone, by `backbone.init_cfg`."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope
from safetensors.torch import save_file
from torch import Tensor, nn

from spikebench import build_backbone, build_classifier
from spikebench.backbones import FeatureInfo
from spikebench.registry import BACKBONES
from spikebench.weights.loading import WeightsError, load_weights
from spikebench_tasks.detection import registered as detection
from spikebench_tasks.openmmlab.adapter import SpikingBackbone
from spikebench_tasks.openmmlab.checkpoints import SafeRunner
from spikebench_tasks.segmentation import registered as segmentation
from tests.conformance.conftest import Golden

assert detection
assert segmentation

pytestmark = pytest.mark.filterwarnings("ignore")

NAME = "meta_spikeformer_nano"


@pytest.fixture
def classifier() -> nn.Module:
    torch.manual_seed(1)
    model = build_classifier(NAME, num_classes=7, time_steps=1)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean)
    return model


def weights_of(classifier: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in classifier.backbone.state_dict().items()}


def lightning(classifier: nn.Module, folder: Path) -> Path:
    """As the classification task of this suite leaves it."""
    import lightning as L

    from spikebench_tasks.classification.module import ClassificationModule

    module = ClassificationModule(NAME, num_classes=7)
    module.model.load_state_dict(classifier.state_dict())
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(module)
    trainer.save_checkpoint(folder / "epoch=9.ckpt")
    return folder / "epoch=9.ckpt"


def safetensors(classifier: nn.Module, folder: Path) -> Path:
    save_file(dict(classifier.state_dict()), folder / "nano.safetensors")
    return folder / "nano.safetensors"


def of_the_backbone(classifier: nn.Module, folder: Path) -> Path:
    torch.save(classifier.backbone.state_dict(), folder / "backbone.pth")
    return folder / "backbone.pth"


def load(path: Path, **options) -> SpikingBackbone:
    init = {"type": "Pretrained", "checkpoint": str(path)}
    adapter = SpikingBackbone(NAME, init_cfg=init, **options)
    adapter.init_weights()
    return adapter


def assert_has(adapter: SpikingBackbone, weights: dict[str, Tensor]) -> None:
    loaded = adapter.model.state_dict()
    assert loaded.keys() == weights.keys()
    for key, value in weights.items():
        assert loaded[key].equal(value), key


@pytest.mark.parametrize(
    ("write", "left_out"),
    [
        (lightning, "model.head.bias, model.head.weight"),
        (safetensors, "head.bias, head.weight"),
        (of_the_backbone, "none"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"time_steps": 3, "out_indices": [1, 4]}])
def test_weights_of_a_classifier_load_and_what_is_left_out_is_named(
    classifier: nn.Module,
    write: Callable[[nn.Module, Path], Path],
    left_out: str,
    options: dict,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    path, weights = write(classifier, tmp_path), weights_of(classifier)
    with caplog.at_level("INFO", "spikebench"):
        adapter = load(path, **options)
    assert_has(adapter, weights)
    assert [record.message for record in caplog.records if record.name == "spikebench"] == [
        f"{path}: {len(weights)} tensors loaded into the backbone; "
        f"not of it, and left out: {left_out}"
    ]


def test_weights_in_the_published_layout_load(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    name = "meta_spikeformer_15m"
    path = tmp_path / "published.pth"
    torch.save({"model": {k: v.float() for k, v in Golden(name).weights().items()}}, path)
    adapter = SpikingBackbone(name, init_cfg={"type": "Pretrained", "checkpoint": str(path)})
    with caplog.at_level("INFO", "spikebench"):
        adapter.init_weights()
    stem = torch.load(path)["model"]["downsample1_1.encode_conv.weight"]
    assert any(value.equal(stem) for value in adapter.model.state_dict().values())
    assert caplog.messages[0].endswith("left out: head.bias, head.weight")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_model_on_a_published_backbone_loads_whole(tmp_path: Path, prefix: str):
    name = "meta_spikeformer_15m"

    class Model(BaseModel):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = SpikingBackbone(name, published_strides=True)
            self.neck = nn.Linear(2, 2)

        def forward(self, inputs, data_samples=None, mode="tensor"): ...

    weights = {k: v.float() for k, v in Golden(name).weights().items() if k[:4] != "head"}
    state = {f"backbone.{key}": value for key, value in weights.items()}
    state["neck.weight"] = torch.full((2, 2), 7.0)
    path = tmp_path / "published.pth"
    torch.save({"state_dict": {prefix + key: value for key, value in state.items()}}, path)
    expected = build_backbone(name, time_steps=1)
    load_weights(expected, weights)
    runner = SafeRunner(Model(), work_dir=str(tmp_path), experiment_name=uuid.uuid4().hex)
    runner.load_checkpoint(str(path))
    assert_has(runner.model.backbone, expected.state_dict())
    assert (runner.model.neck.weight == 7).all()
    (file,) = tmp_path.rglob("*.log")
    assert f"load_from {path}: missing: neck.bias" in file.read_text()


def test_what_is_left_out_is_named_also_where_it_ends_as_a_key_of_the_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    class Plain(nn.Module):
        def __init__(self, time_steps: int) -> None:
            super().__init__()
            self.time_steps, self.feature_info = time_steps, [FeatureInfo(8, 4)]
            self.conv = nn.Conv2d(3, 8, 4, 4)

    monkeypatch.setitem(BACKBONES._entries, "plain", Plain)
    layer = nn.Conv2d(3, 8, 4, 4).state_dict()
    content = {
        **{f"backbone.conv.{key}": value for key, value in layer.items()},
        "head.conv.weight": torch.zeros(2, 8),
    }
    torch.save(content, tmp_path / "plain.pth")
    init = {"type": "Pretrained", "checkpoint": str(tmp_path / "plain.pth")}
    adapter = SpikingBackbone("plain", init_cfg=init)
    with caplog.at_level("INFO", "spikebench"):
        adapter.init_weights()
    assert adapter.model.conv.weight.equal(layer["weight"])
    assert caplog.messages[0].endswith("left out: head.conv.weight")


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_they_survive_the_initialisation_of_the_whole_model(
    configs: dict[str, Path], task: str, classifier: nn.Module, tmp_path: Path
):
    config = Config.fromfile(configs[task])
    path = safetensors(classifier, tmp_path)
    config.model.backbone.init_cfg = {"type": "Pretrained", "checkpoint": str(path)}
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(config.model)
        model.init_weights()
    assert_has(model.backbone, weights_of(classifier))
    assert (model.neck.lateral_convs[-1].bn.bias == 2).all()  # the rest is initialised


def test_nothing_is_read_before(tmp_path: Path):
    """A checkpoint of the whole model has its own; the file need not be there any more."""
    init = {"type": "Pretrained", "checkpoint": str(tmp_path / "gone.pth")}
    adapter = SpikingBackbone(NAME, init_cfg=init)
    with pytest.raises(WeightsError, match=r"gone\.pth"):
        adapter.init_weights()


def test_what_does_not_fit_is_refused_by_name(classifier: nn.Module, tmp_path: Path):
    smaller = build_backbone(NAME, embed_dims=(16, 48, 96, 128))
    torch.save(smaller.state_dict(), tmp_path / "smaller.pth")
    with pytest.raises(WeightsError, match=r"smaller\.pth.*stages\."):
        load(tmp_path / "smaller.pth")

    state = dict(classifier.state_dict())
    key = next(reversed(classifier.backbone.state_dict()))
    del state[f"backbone.{key}"]
    torch.save(state, tmp_path / "missing.pth")
    with pytest.raises(WeightsError, match=rf"missing\.pth.*{key}"):
        load(tmp_path / "missing.pth")

    path = safetensors(classifier, tmp_path)
    path.write_bytes(path.read_bytes()[:-99])
    with pytest.raises(WeightsError, match=r"nano\.safetensors"):
        load(path)
