"""What detector and segmentor owe to a spiking backbone: built, trained and asked for once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from spikebench.task import ConfigError
from spikebench_tasks.config import load_config
from spikebench_tasks.detection import registered as detection
from spikebench_tasks.segmentation import registered as segmentation

FOLDER = Path(__file__).parents[3] / "configs"
TASKS = ("detection", "segmentation")

pytestmark = pytest.mark.filterwarnings("ignore")


class Built(NamedTuple):
    config: Config
    model: Any


@pytest.fixture
def build(configs: dict[str, Path], data_root: Path) -> Callable[..., Built]:
    assert detection
    assert segmentation

    def make(task: str, *overrides: str) -> Built:
        torch.manual_seed(0)
        config = Config(load_config(configs[task], overrides))
        with DefaultScope.overwrite_default_scope(config.default_scope):
            model = MODELS.build(config.model)
            model.init_weights()
        return Built(config, model)

    return make


def semantic_fpn(classifier: int, widths: list[int], neck: int, head: int) -> int:
    """Parameters with 150 classes, layer by layer.

    Args:
        classifier: parameters of the ImageNet classifier, less those of its head the backbone's.
        widths: channels of the maps.
        neck: channels of the pyramid: 1x1 and 3x3 convolutions with biases.
        head: channels of the head: 1, 1, 2 and 3 convolutions 3x3 with batch norm, a classifier.
    """
    backbone = classifier - (widths[-1] + 1) * 1000
    pyramid = sum((width + 1) * neck for width in widths) + 4 * (9 * neck + 1) * neck
    convs = 4 * 9 * neck * head + 3 * 9 * head * head + 7 * 2 * head
    return backbone + pyramid + convs + (head + 1) * 150


PUBLISHED = [
    ("detection/mask_rcnn_15m_t1_coco.py", {}, 34_863_320, 0),
    ("detection/mask_rcnn_55m_t1_coco.py", {}, 75_007_728, 0),
    (
        "segmentation/semantic_fpn_15m_t1_ade20k.py",
        {},
        semantic_fpn(15_112_208, [32, 64, 128, 360], neck=128, head=128),
        16.470,
    ),
    (
        "segmentation/semantic_fpn_15m_t4_ade20k.py",
        {},
        semantic_fpn(15_112_208, [32, 64, 128, 360], neck=128, head=128),
        16.470,
    ),
    (
        "segmentation/semantic_fpn_55m_t1_ade20k.py",
        {},
        semantic_fpn(55_350_248, [64, 128, 256, 640], neck=256, head=128),
        58.992,
    ),
    (
        "segmentation/semantic_fpn_55m_t1_ade20k.py",
        {"model.decode_head.channels": 256},
        semantic_fpn(55_350_248, [64, 128, 256, 640], neck=256, head=256),
        61.52,
    ),
]


@pytest.mark.parametrize(("path", "changes", "parameters", "millions"), PUBLISHED)
@pytest.mark.parametrize("keep_time", [False, True])
def test_parameters_are_as_published(
    path: str, changes: dict[str, Any], parameters: int, millions: float, keep_time: bool
):
    config = Config.fromfile(FOLDER / path)
    config.merge_from_dict({**changes, "model.backbone.keep_time": keep_time})
    with DefaultScope.overwrite_default_scope(config.default_scope), torch.device("meta"):
        model = MODELS.build(config.model)
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    assert not millions or parameters / 1e6 == pytest.approx(millions, abs=5e-4)


@pytest.mark.parametrize(
    ("task", "part", "stock"),
    [
        ("detection", "neck", "FPN"),
        ("detection", "rpn_head", "RPNHead"),
        ("detection", "roi_head.bbox_roi_extractor", "SingleRoIExtractor"),
        ("segmentation", "decode_head", "FPNHead"),
    ],
)
def test_what_cannot_read_time_is_named_when_the_model_is_built(
    build, task: str, part: str, stock: str
):
    kept = ["model.backbone.time_steps=2", "+model.backbone.keep_time=true"]
    with pytest.raises(ConfigError, match=f"{part.split('.')[-1]}.type='{stock}'"):
        build(task, *kept, f"model.{part}.type={stock}")


def batch(config: Config, split: str, count: int = 2) -> dict[str, Any]:
    with DefaultScope.overwrite_default_scope(config.default_scope):
        loader = config[f"{split}_dataloader"]
        loader.dataset.indices = count
        loader.batch_size = count
        loader.sampler.shuffle = False
        return next(iter(Runner.build_dataloader(loader)))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("time_steps", [1, 2])
def test_a_training_step_reaches_every_weight(build, task: str, time_steps: int):
    config, model = build(task, f"model.backbone.time_steps={time_steps}")
    assert model.backbone.time_steps == time_steps
    model.train()
    data = model.data_preprocessor(batch(config, "train"), training=True)
    losses, _ = model.parse_losses(model(**data, mode="loss"))
    assert torch.isfinite(losses)
    losses.backward()
    silent = [
        name
        for name, weight in model.named_parameters()
        if weight.grad is None and weight.requires_grad
    ]
    assert silent == []
    moved = [weight.grad.abs().sum() > 0 for weight in model.backbone.parameters()]
    assert moved[0]  # of the stem
    assert sum(moved) > 0.5 * len(moved)


@pytest.mark.parametrize("task", TASKS)
def test_strides_are_those_of_the_maps(build, task: str):
    config, model = build(task)
    model.eval()
    with torch.no_grad():
        maps = model.backbone(torch.zeros(1, 3, 128, 128))
        levels = model.neck(maps)
    strides = [one.stride for one in model.backbone.feature_info]
    assert strides[-2:] == [16, 16]
    assert [128 // one.shape[-1] for one in maps] == strides
    of_levels = [128 // one.shape[-1] for one in levels]
    if task == "detection":
        assert of_levels[: len(strides)] == strides
        assert [stride for stride, _ in model.rpn_head.prior_generator.strides] == of_levels
        for extractor in (model.roi_head.bbox_roi_extractor, model.roi_head.mask_roi_extractor):
            assert extractor.featmap_strides == strides
            assert [1 / layer.spatial_scale for layer in extractor.roi_layers] == strides
    else:
        assert model.decode_head.feature_strides == of_levels
        assert list(model.decode_head.in_index) == list(range(len(levels)))
    assert model.neck.in_channels == [one.shape[1] for one in maps]


def test_a_detector_predicts_boxes_and_masks_in_the_image(build):
    config, model = build("detection", "model.test_cfg.rcnn.score_thr=0.0")
    model.eval()
    with torch.no_grad():
        samples = model.test_step(batch(config, "test"))
    assert len(samples) == 2
    for sample in samples:
        found = sample.pred_instances
        assert 0 < len(found) <= config.model.test_cfg.rcnn.max_per_img
        assert found.masks.shape == (len(found), 128, 128)
        assert found.bboxes.min() >= 0
        assert found.bboxes.max() <= 128
        assert set(found.labels.tolist()) <= set(range(10))


def test_a_segmentor_predicts_a_class_for_every_pixel(build):
    config, model = build("segmentation")
    model.eval()
    with torch.no_grad():
        samples = model.test_step(batch(config, "test"))
    assert len(samples) == 2
    for sample in samples:
        assert sample.pred_sem_seg.data.shape == (1, 128, 128)
        assert set(sample.pred_sem_seg.data.unique().tolist()) <= set(range(11))
        assert sample.seg_logits.data.shape == (11, 128, 128)


@pytest.mark.parametrize("task", TASKS)
def test_images_of_a_batch_do_not_see_each_other(build, task: str):
    config, model = build(task)
    model.eval()
    together = model.data_preprocessor(batch(config, "test", 2), training=False)
    alone = model.data_preprocessor(batch(config, "test", 1), training=False)
    with torch.no_grad():
        for both, one in zip(
            model.extract_feat(together["inputs"]), model.extract_feat(alone["inputs"]), strict=True
        ):
            torch.testing.assert_close(both[:1], one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_weights_of_the_backbone_survive_initialisation(build, task: str):
    """MMEngine initialises whole models; a backbone brings its own weights."""
    _, model = build(task)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(before[k], v) for k, v in model.backbone.state_dict().items())


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("split", "count"), [("train", 2000), ("test", 100)])
def test_data_sets_read_the_scenes(
    configs, data_root: Path, scenes: Path, task: str, split: str, count: int
):
    config = Config(load_config(configs[task], []))
    with DefaultScope.overwrite_default_scope(config.default_scope):
        dataset = DATASETS.build(config[f"{split}_dataloader"].dataset)
    assert len(dataset) == count
    assert dataset.metainfo["name"] == "digit_scenes"
    digits = tuple(str(digit) for digit in range(10))
    assert tuple(dataset.metainfo["classes"][-10:]) == digits
    sample = dataset[count - 1]
    assert sample["inputs"].shape == (3, 128, 128)
    assert sample["data_samples"].img_path == str(
        scenes / "images" / split / f"{count - 1:04d}.png"
    )


@pytest.mark.parametrize("task", TASKS)
def test_labels_are_the_digits(build, scenes: Path, task: str):
    """What the pipeline hands to the model, against the label map on disk."""
    import numpy as np
    from PIL import Image

    config, _ = build(task)
    data = batch(config, "train")
    label_map = np.asarray(Image.open(scenes / "labels" / "train" / "0000.png"))
    sample = data["data_samples"][0]
    if task == "segmentation":
        np.testing.assert_array_equal(sample.gt_sem_seg.data[0].numpy(), label_map)
    else:
        truth = sample.gt_instances
        drawn = np.zeros_like(label_map)
        for label, mask in zip(truth.labels, truth.masks.masks, strict=True):
            drawn[mask.astype(bool)] = label + 1
        np.testing.assert_array_equal(drawn, label_map)


def test_a_backbone_with_other_strides_needs_no_other_configuration(
    build, monkeypatch: pytest.MonkeyPatch
):
    from spikebench.backbones import FeatureInfo
    from spikebench.registry import BACKBONES

    class Plain(nn.Module):
        def __init__(self, time_steps: int) -> None:
            super().__init__()
            self.time_steps = time_steps
            self.feature_info = [FeatureInfo(8, 4), FeatureInfo(12, 8), FeatureInfo(20, 32)]
            self.layers = nn.ModuleList(
                nn.Conv2d(3, one.channels, one.stride, one.stride) for one in self.feature_info
            )

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(layer(x).expand(self.time_steps, -1, -1, -1, -1) for layer in self.layers)

    def plain(time_steps: int = 1) -> nn.Module:
        return Plain(time_steps)

    monkeypatch.setitem(BACKBONES._entries, "plain", plain)
    config, model = build("segmentation", "model.backbone.name=plain")
    assert model.decode_head.feature_strides == [4, 8, 32]
    assert model.test_step(batch(config, "test", 1))[0].pred_sem_seg.data.shape == (1, 128, 128)
