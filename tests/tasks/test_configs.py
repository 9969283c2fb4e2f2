"""Every configuration of detection and segmentation: what it says, builds, trains and scores.

The folder decides what is tested; a configuration that is added is tested as it lies there.
"""

from __future__ import annotations

import inspect
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

from spikebench.files import data_root
from spikebench.registry import UnknownNameError
from spikebench.task import Run
from spikebench_tasks.openmmlab.adapter import SpikingBackbone
from spikebench_tasks.openmmlab.data import SPLITS, leaves, located
from tests.tasks.openmmlab.trees import IMAGES
from tests.tasks.small import (
    CONFIGS,
    KINDS,
    NANO,
    PATHS,
    data_of,
    described_backbone,
    is_spiking,
    resolved,
    short,
    sizes,
    without_size,
)
from tests.tasks.tiny_data import TREES, make_tiny

LIMIT = 2
SIZES = ("nano", "15m", "31m", "55m")  # of Meta-SpikeFormer
NAMED = {
    "VOCdevkit": "voc2012",
    "ade20k": "ade20k",
    "bccd": "bccd",
    "cityscapes": "cityscapes",
    "coco": "coco",
    "digit_scenes": "digit_scenes",
    "nuclei200": "nuclei",
}
READ_BY_NAME = {"custom_imports", "find_unused_parameters", "model_wrapper_cfg", "sync_bn"}
HEADS = {
    "faster_rcnn": ("FasterRCNN", "Shared2FCBBoxHead"),
    "mask_rcnn": ("MaskRCNN", "FCNMaskHead"),
    "retinanet": ("RetinaNet", "RetinaHead"),
    "semantic_fpn": ("EncoderDecoder", "FPNHead"),
    "upernet": ("EncoderDecoder", "UPerHead"),
}

pytestmark = pytest.mark.filterwarnings("ignore")
every = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
each_kind = pytest.mark.parametrize(
    "path", [paths[0] for paths in KINDS.values()], ids=lambda path: path.stem
)


def only_data(config: dict[str, Any], path: Path) -> str:
    """The folder of its data, which a tiny tree and a name must be known for."""
    (folder,) = data_of(config)
    if folder not in NAMED or folder not in {*TREES, "digit_scenes"}:
        pytest.fail(
            f"{path.name} is of the data set {folder!r}; give tests/tasks/tiny_data.py a tree in "
            "its layout, and NAMED in this file what configurations call it"
        )
    return folder


def values_of(node: Any, name: str) -> Iterator[Any]:
    """What stands under a key anywhere in a configuration."""
    children = node.items() if isinstance(node, dict) else ()
    if isinstance(node, list | tuple):
        children = enumerate(node)
    for key, value in children:
        if key == name:
            yield value
        yield from values_of(value, name)


@pytest.fixture(scope="module")
def make_data(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Callable[[str], Path]:
    """Puts a tiny data set below a data root, once; the root."""
    root = tmp_path_factory.mktemp("tiny")

    def make(name: str) -> Path:
        if not (root / name).exists():
            if name == "digit_scenes":
                (root / name).symlink_to(request.getfixturevalue("scenes"))
            else:
                make_tiny(root, name)
        return root

    return make


@pytest.fixture
def root(make_data, path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with the data of a configuration; the working folder holds none."""
    found = make_data(only_data(resolved(path)[1], path))
    monkeypatch.setenv("SPIKEBENCH_DATA", str(found))
    return found


@every
class TestWhatItSays:
    def test_it_is_plain_data(self, path: Path):
        _, config = resolved(path)
        again = json.loads(json.dumps(config, allow_nan=False))
        assert again == json.loads(json.dumps(again))
        assert again.keys() == config.keys()
        assert not [text for text in strings(config) if text.startswith(("/", "~"))]

    def test_it_has_no_key_that_nothing_reads(self, path: Path):
        """Stock files leave their helper variables; an override of one would have no effect."""
        _, config = resolved(path)
        runner = {*inspect.signature(Runner.__init__).parameters} - {"self", "cfg"}
        assert config.keys() <= runner | READ_BY_NAME
        with pytest.raises(UnknownNameError, match=f"unknown key of {path.name} 'train_pipeline'"):
            resolved(path, "train_pipeline=1")

    def test_its_name_is_that_of_its_parts(self, path: Path):
        _, config = resolved(path)
        parts = path.stem.split("_")
        assert path.stem.endswith(f"_{NAMED[only_data(config, path)]}")
        (model, head) = next(HEADS[name] for name in HEADS if path.stem.startswith(f"{name}_"))
        prefix = "Spiking" if is_spiking(path) else ""
        assert config["model"]["type"] == prefix + model
        assert prefix + head in set(values_of(config["model"], "type"))
        backbone = config["model"]["backbone"]
        if is_spiking(path):
            size = next((part for part in parts if part in SIZES), "nano")
            steps = next((int(p[1:]) for p in parts if p[0] == "t" and p[1:].isdigit()), 1)
            assert (backbone["name"], backbone["time_steps"]) == (f"meta_spikeformer_{size}", steps)
        else:
            assert not {*parts} & {*SIZES, "t1", "t4"}
            weights = Path(backbone["init_cfg"]["checkpoint"]).stem
            assert weights in path.stem
            if "depth" in backbone:
                assert weights == f"resnet{backbone['depth']}"

    def test_models_have_the_classes_of_the_data(self, path: Path, root: Path):
        _, config = resolved(path)
        described = Config(located(config, data_root()))
        import_modules_from_strings(**described.custom_imports)
        classes = set()
        with DefaultScope.overwrite_default_scope(described.default_scope):
            for split in SPLITS:
                dataset = described[f"{split}_dataloader"].dataset
                classes.add(DATASETS.build({**dataset, "lazy_init": True}).metainfo["classes"])
        (names,) = classes
        assert set(values_of(config["model"], "num_classes")) == {len(names)}

    def test_the_preprocessor_pads_to_what_training_crops(self, path: Path):
        """Where it has a size at all: it is what a protocol is known by."""
        _, config = resolved(path)
        size = config["model"]["data_preprocessor"].get("size")
        found = dict(sizes(config["train_dataloader"]["dataset"], "dataset"))
        crops = {pair for key, pair in found.items() if key.endswith("crop_size")}
        if size is not None and crops:
            assert crops == {tuple(size)}

    def test_testing_and_validation_are_of_other_images_than_training(self, path: Path):
        _, config = resolved(path)
        images = {}
        for split in SPLITS:
            described = config[f"{split}_dataloader"]["dataset"]
            files = ("ann_file", "data_prefix", "split")
            images[split] = [{k: one.get(k) for k in files} for _, one in leaves(described)]
        assert images["val"] == images["test"]
        assert images["train"] != images["test"]
        assert config["val_evaluator"] == config["test_evaluator"]


def strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list | tuple):
        for one in node.values() if isinstance(node, dict) else node:
            yield from strings(one)


def family(path: Path) -> tuple[str, str]:
    """What detects or segments, and the data, as the name of a configuration says."""
    return tuple(
        next((known for known in names if known in path.stem), "")
        for names in (HEADS, NAMED.values())
    )


FAMILIES = {
    "_".join(parts): list(paths) for parts, paths in groupby(sorted(PATHS, key=family), family)
}


@pytest.mark.parametrize("name", [name for name, paths in FAMILIES.items() if len(paths) > 1])
def test_backbones_are_compared_under_one_protocol(name: str):
    """Data, schedule and optimiser are the same; of spiking models, heads are as well."""
    configs = {path: resolved(path)[1] for path in FAMILIES[name]}
    protocols = [{k: v for k, v in one.items() if k != "model"} for one in configs.values()]
    assert all(each == protocols[0] for each in protocols[1:])
    models = [config["model"] for path, config in configs.items() if is_spiking(path)]
    for model in models:
        for key in ("name", "time_steps"):
            del model["backbone"][key]
        del model["neck"]["out_channels"]  # wider for the largest backbone, as published
    assert all(each == models[0] for each in models[1:])


@pytest.mark.parametrize("name", [name for name, paths in KINDS.items() if len(paths) > 1])
def test_configurations_of_a_kind_differ_in_size_only(name: str):
    """So that one of them is built and trained for all."""
    first, *others = [without_size(resolved(path)[1]) for path in KINDS[name]]
    assert all(other == first for other in others)


@each_kind
def test_it_builds_at_its_own_size(path: Path):
    """The model, and an image as large as those of testing."""
    task, config = resolved(path)
    probe = task.sketch(config)
    backbone = probe.model.backbone
    assert isinstance(backbone, SpikingBackbone) == is_spiking(path)
    described = described_backbone(path)
    assert probe.backbone.time_steps == described.get("time_steps", 1)
    (batch,) = probe.batches
    assert batch["inputs"][0].shape[1:] in expected_sizes(config)
    built = {
        module.num_classes
        for name, module in probe.model.named_modules()
        if hasattr(module, "num_classes") and name != "rpn_head"
    }
    assert built == set(values_of(config["model"], "num_classes"))


def expected_sizes(config: dict[str, Any]) -> list[tuple[int, int]]:
    """(height, width): of the preprocessor, else those of the test pipeline."""
    size = config["model"]["data_preprocessor"].get("size")
    if size is not None:
        return [tuple(size)]
    found = sizes(config["test_dataloader"]["dataset"], "dataset")
    return [(height, width) for _, (width, height) in found]


@each_kind
def test_a_training_step_and_a_test_step(
    path: Path, root: Path, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
):
    """As a run does them, on real files, with the real loss and the configuration's metric."""
    monkeypatch.chdir(root)  # which has no folder `data`
    _, own = resolved(path)
    task, config = resolved(path, *short(own), backbone=NANO)
    run = make_run(path.parent.name, config, limit=LIMIT)
    checkpoint = task.train(run)
    content = torch.load(checkpoint, weights_only=True)
    assert content["meta"]["iter"] == 1
    check_step(content, [name for name, _ in task.sketch(config).model.named_parameters()])
    metrics, dataset, *_ = task.evaluate(run, checkpoint)
    kinds = {"bbox": "box_map", "segm": "mask_map"}
    asked = config["test_evaluator"].get("metric", ("bbox", "segm"))
    asked = [asked] if isinstance(asked, str) else asked
    expected = {"miou", "macc", "aacc"}
    if path.parent.name == "detection":
        expected = {f"{kinds[kind]}{end}" for kind in asked for end in ("", "50", "75")}
    assert expected <= metrics.keys() <= task.metrics.keys()
    assert all(0 <= value <= 1 for value in metrics.values())
    assert (dataset.train_samples, dataset.test_samples) == (LIMIT, LIMIT)
    assert str(root) not in json.dumps(run.config)


def check_step(content: dict[str, Any], names: Sequence[str]) -> None:
    """One step of the optimiser, with finite gradients that are not 0 throughout in any part.

    Args:
        content: of the checkpoint.
        names: of all weights, in the order of the model.
    """
    groups = content["optimizer"]["param_groups"]
    order = [index for group in groups for index in group["params"]]
    assert len(order) == len(names)
    named = dict(zip(order, names, strict=True))
    norms: dict[str, float] = {}
    for index, state in content["optimizer"]["state"].items():
        assert float(state["step"]) == 1
        part = named[index].partition(".")[0]
        norms[part] = norms.get(part, 0.0) + float(state["exp_avg"].norm())
    assert norms.keys() == {name.partition(".")[0] for name in names}
    assert all(0 < norm < math.inf for norm in norms.values())
    assert all(torch.isfinite(weight).all() for weight in content["state_dict"].values())


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "sample", "train", "test"),
    [
        ("faster_rcnn_nano_bccd", "bccd", 205, 72),
        ("mask_rcnn_nano_nuclei", "nuclei200", 160, 40),
        ("semantic_fpn_nano_nuclei", "nuclei200", 160, 40),
        ("mask_rcnn_15m_t1_coco", "coco53_cc", 25, 27),  # one has no objects
        ("semantic_fpn_15m_t1_ade20k", "ade20k_sample3", None, 3),
    ],
)
def test_real_images_load(
    name: str, sample: str, train: int | None, test: int, tmp_path: Path, monkeypatch
):
    """Through the stock data sets, each with what is to be found in it."""
    shared = Path(os.environ.get("SPIKEBENCH_SHARED", CONFIGS.parents[1] / "shared")) / "data"
    if not shared.is_dir():
        pytest.skip(f"no {shared}; SPIKEBENCH_SHARED says where it is")
    (path,) = [path for path in PATHS if path.stem == name]
    _, config = resolved(path)
    (tmp_path / only_data(config, path)).symlink_to(shared / sample)
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path))
    described = Config(located(config, data_root()))
    import_modules_from_strings(**described.custom_imports)
    for split, count in (("train", train), ("test", test)):
        if count is None:
            continue
        with DefaultScope.overwrite_default_scope(described.default_scope):
            dataset = DATASETS.build(described[f"{split}_dataloader"].dataset)
        assert type(dataset).__module__.startswith(described.default_scope)
        assert len(dataset) == count
        for index in (0, count - 1):
            one = dataset[index]
            assert len(one["inputs"]) == 3
            if path.parent.name == "segmentation":
                labels = one["data_samples"].gt_sem_seg.data
                assert len(set(labels.unique().tolist()) - {255}) > 1
            else:
                truth = one["data_samples"].gt_instances
                assert len(truth) > 0
                assert (truth.bboxes.areas > 0).all()
                if "mask" in name:
                    assert truth.masks.areas.all()


def test_every_tiny_data_set_has_its_images(tmp_path: Path):
    """One that nothing reads would test nothing."""
    used = {folder for path in PATHS for folder in data_of(resolved(path)[1])}
    assert used == {*TREES, "digit_scenes"} == NAMED.keys()
    for name in TREES:
        make_tiny(tmp_path, name)
        pictures = [p for p in (tmp_path / name).rglob("*") if p.suffix in (".jpg", ".png")]
        assert len(pictures) >= 2 * IMAGES
