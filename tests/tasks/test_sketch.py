"""Models of all configurations, built and run where there are neither data nor weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from spikebench import profile_operations
from spikebench.errors import UserError
from spikebench.registry import TASKS
from spikebench.task import ConfigError, Evaluation, Probe, Run, Task
from tests import forkserver
from tests.tasks import small
from tests.tasks.small import CONFIGS, NANO, PATHS

EVENTS = (
    "nmnist",
    "ncaltech101",
    "cifar10dvs",
    "dvs128gesture",
    "dvs128gesture_clips",
    "hardvs",
)
ON_CPUS = ("nmnist", "dvs128gesture_clips")
PARTS = {
    "cifar10": {"head"},
    "cifar10_distilled": {"head", "distillation_head"},
    "cifar10_nano": {"head"},
    "cifar10_short": {"head"},
    "cifar100": {"head"},
    "digits": {"head"},
    "imagenet": {"head"},
    "imagenet_t4": {"head", "distillation_head"},
    "tiny_imagenet": {"head"},
    **dict.fromkeys(EVENTS, {"head"}),
    "mask_rcnn_digit_scenes": {"neck", "rpn_head", "bbox_head", "mask_head"},
    "mask_rcnn_15m_t1_coco": {"neck", "rpn_head", "bbox_head", "mask_head"},
    "mask_rcnn_resnet18_coco": {"neck", "rpn_head", "bbox_head", "mask_head"},
    "mask_rcnn_pvt_tiny_coco": {"neck", "rpn_head", "bbox_head", "mask_head"},
    "faster_rcnn_nano_bccd": {"neck", "rpn_head", "bbox_head"},
    "retinanet_15m_t1_coco": {"neck", "bbox_head"},
    "semantic_fpn_digit_scenes": {"neck", "decode_head"},
    "semantic_fpn_15m_t4_ade20k": {"neck", "decode_head"},
    "semantic_fpn_resnet18_ade20k": {"neck", "decode_head"},
    "semantic_fpn_pvt_tiny_ade20k": {"neck", "decode_head"},
    "upernet_15m_t1_ade20k": {"decode_head"},
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    **{name: {"in_channels": 2, "neuron": "ilif" if name in ON_CPUS else "lif"} for name in EVENTS},
    "cifar10_nano": {"neuron": "ilif", "embed_dims": (32, 64, 128, 192)},
    **{f"cifar10_{name}": {"embed_dims": (16, 32, 64, 96)} for name in ("short", "distilled")},
}
COCO, ADE20K, VOC2012 = (
    "mask_rcnn_15m_t1_coco",
    "semantic_fpn_15m_t1_ade20k",
    "semantic_fpn_15m_t1_voc2012",
)
CLASSIFICATION = CONFIGS / "classification"
ALL = {path.stem: path for path in (*PATHS, *CLASSIFICATION.glob("*.py"))}

pytestmark = pytest.mark.filterwarnings("ignore")


def resolved(
    name: str, *overrides: str, backbone: str = NANO, **arguments: Any
) -> tuple[Task, dict[str, Any]]:
    path = ALL[name]
    if path.parent == CLASSIFICATION:
        task: Task = TASKS.get("classification")()
        return task, task.resolve(path, backbone, arguments, overrides)
    return small.resolved(path, *overrides, backbone=backbone, **arguments)


def sketched(name: str, *overrides: str, backbone: str = NANO, **arguments: Any) -> Probe:
    task, config = resolved(name, *overrides, backbone=backbone, **arguments)
    return task.sketch(config)


def smaller(name: str) -> list[str]:
    """Overrides for a small image and few proposals."""
    if ALL[name].parent == CLASSIFICATION:
        return ["data.image_size=64"] if name.startswith("imagenet") else []
    _, config = resolved(name)
    few = ["model.test_cfg.rpn.max_per_img=4"] if "rpn_head" in config["model"] else []
    return [*small.shrinking(config), *few]


def parameters(probe: Probe) -> int:
    return sum(weight.numel() for weight in probe.model.parameters())


def macs_by_part(probe: Probe) -> dict[str, float]:
    report = profile_operations(
        probe.model,
        probe.batches,
        forward=probe.forward,
        images=probe.images,
        time_steps=probe.backbone.time_steps,
    )
    assert report.images == 1
    parts: dict[str, float] = {}
    for row in report.rows:
        if row.kind != "mul":  # of boxes, outside any weight
            head, _, rest = row.name.partition(".")
            part = rest.partition(".")[0] if head == "roi_head" else head
            parts[part] = parts.get(part, 0.0) + row.dense_macs
    return parts


def test_no_kind_of_model_is_left_out():
    """A kind is what detects or segments, and whose backbone it stands on."""

    def kind(path: Path) -> tuple[str, str]:
        model = small.resolved(path)[1]["model"]
        return model.get("decode_head", model)["type"], model["backbone"]["type"]

    tested = {kind(path) for path in PATHS if path.stem in PARTS}
    assert {kind(path) for path in PATHS} == tested
    assert {path.stem for path in CLASSIFICATION.glob("*.py")} <= PARTS.keys()


@pytest.mark.parametrize("name", PARTS)
def test_it_is_built_alike_every_time_and_its_operations_can_be_counted(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """With no data set on disk, nothing written, nothing said, and chance left alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPIKEBENCH_DATA", str(tmp_path / "none"))
    probes = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        expected = torch.rand(1)
        torch.manual_seed(seed)
        probes.append(sketched(name, *smaller(name)))
        assert torch.equal(torch.rand(1), expected)
    probe, other = probes
    assert not probe.model.training
    weights = zip(probe.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in weights)
    parts = macs_by_part(probe)
    assert parts.keys() == {"backbone"} | PARTS[name]
    assert all(macs > 0 for macs in parts.values())
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""
    info = probe.backbone
    if ALL[name].parent == CLASSIFICATION or small.is_spiking(ALL[name]):
        assert (info.name, info.arguments) == (NANO, ARGUMENTS.get(name, {}))
    assert info.parameters == sum(p.numel() for p in probe.model.backbone.parameters())


@pytest.mark.parametrize(
    ("name", "backbone", "overrides", "count"),
    [
        ("imagenet", "15m", (), 15_112_208),
        ("mask_rcnn_15m_t1_coco", "15m", (), 34_863_320),
        ("mask_rcnn_55m_t1_coco", "55m", (), 75_007_728),
        ("semantic_fpn_15m_t1_ade20k", "15m", (), 16_470_142),
        ("semantic_fpn_15m_t4_ade20k", "15m", (), 16_470_142),
        ("semantic_fpn_55m_t1_ade20k", "55m", (), 58_992_278),
        ("semantic_fpn_55m_t1_ade20k", "55m", ("model.decode_head.channels=256",), 61_520_022),
    ],
)
def test_parameters_are_those_of_the_published_models(name, backbone, overrides, count):
    probe = sketched(name, *overrides, backbone=f"meta_spikeformer_{backbone}")
    assert parameters(probe) == count


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("imagenet", (3, 224, 224)),
        ("digits", (3, 32, 32)),
        (COCO, (3, 800, 1333)),
        ("mask_rcnn_digit_scenes", (3, 128, 128)),
        (ADE20K, (3, 512, 512)),
        (VOC2012, (3, 512, 512)),
    ],
)
def test_the_image_is_of_the_size_of_testing(name: str, shape: tuple[int, ...]):
    (batch,) = sketched(name).batches
    assert (batch[0] if isinstance(batch, torch.Tensor) else batch["inputs"][0]).shape == shape


def test_an_image_is_padded_to_what_the_strides_divide():
    probe = sketched(COCO, *smaller(COCO))
    (batch,) = probe.batches
    seen = []
    probe.model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    with torch.no_grad():
        probe.forward(probe.model, batch)
    assert batch["inputs"][0].shape == (3, 100, 166)
    assert seen == [(1, 3, 128, 192)]


def test_the_macs_of_a_segmentor_are_those_of_its_layers():
    """The neck and the classifier by hand: four maps at strides 2, 4, 8 and 16."""
    parts = macs_by_part(sketched(ADE20K, "model.data_preprocessor.size=(64, 64)"))
    sides, channels = (32, 16, 8, 4), (8, 16, 48, 160)
    laterals = sum(side**2 * each * 128 for side, each in zip(sides, channels, strict=True))
    smoothing = sum(side**2 * 128 * 128 * 9 for side in sides)
    assert parts["neck"] == laterals + smoothing
    convolutions = [32, 16, 8, 16, 4, 8, 16]  # the side each of the scale heads' works at
    scales = sum(side**2 * 128 * 128 * 9 for side in convolutions)
    assert parts["decode_head"] == scales + 32**2 * 128 * 150


def test_the_heads_of_a_detector_read_as_much_as_at_a_test():
    """Whatever a random detector finds: all proposals, and masks of 100 of them."""
    overrides = (
        *smaller(COCO),
        "model.test_cfg.rpn.max_per_img=110",
        "model.roi_head.mask_head.conv_out_channels=16",
    )
    parts = macs_by_part(sketched(COCO, *overrides))
    assert parts["bbox_head"] == 110 * (49 * 256 * 1024 + 1024 * 1024 + 1024 * (81 + 320))
    convolutions = 14**2 * 9 * (256 * 16 + 3 * 16 * 16)
    assert parts["mask_head"] == 100 * (convolutions + 28**2 * (16 * 16 + 16 * 80))


@pytest.mark.parametrize("name", [COCO, VOC2012])
def test_a_test_step_takes_the_batch_as_well(name: str):
    probe = sketched(name, *smaller(name))
    (batch,) = probe.batches
    with torch.no_grad():
        (sample,) = probe.model.test_step(batch)
    height, width = batch["inputs"][0].shape[-2:]
    if name == COCO:
        assert sample.pred_instances.masks.shape[-2:] == (height, width)
    else:
        assert sample.pred_sem_seg.data.shape == (1, height, width)


@pytest.mark.parametrize("name", ["imagenet", COCO, ADE20K])
def test_time_steps_and_arguments_reach_the_backbone(name: str):
    key = "model.time_steps=3" if name == "imagenet" else "model.backbone.time_steps=3"
    probe = sketched(name, *smaller(name), key, attention="sdsa1")
    assert probe.backbone.time_steps == 3
    assert probe.backbone.arguments == {"attention": "sdsa1"}
    maps = []
    neurons = [m for m in probe.model.modules() if type(m).__name__ == "LIF"]
    neurons[0].register_forward_hook(lambda module, inputs, output: maps.append(output.shape[0]))
    with torch.no_grad():
        probe.forward(probe.model, next(iter(probe.batches)))
    assert maps == [3]


def test_without_a_test_size_it_says_what_names_one():
    task, config = resolved(COCO)
    pipeline = config["test_dataloader"]["dataset"]["pipeline"]
    config["test_dataloader"]["dataset"]["pipeline"] = [pipeline[0], pipeline[2]]
    with pytest.raises(ConfigError, match="names no test size; expected model.data_preprocessor"):
        task.sketch(config)


def test_a_task_of_somebody_else_may_have_none():
    class Other(Task):
        metrics: Mapping[str, Any] = {}

        def resolve(self, *_: Any) -> dict[str, Any]:
            return {}

        def train(self, run: Run) -> Path:
            return run.folder

        def evaluate(self, run: Run, checkpoint: Path) -> Evaluation:
            raise NotImplementedError

        def probe(self, run: Run, checkpoint: Path) -> Probe:
            raise NotImplementedError

    with pytest.raises(UserError, match="task Other has no sketch"):
        Other().sketch({})


def test_both_frameworks_in_one_process_do_not_mix():
    """Scopes are of the process; a fresh one, where nothing else has set one before."""
    code = (
        "from pathlib import Path; from spikebench.registry import TASKS\n"
        "import sys, mmengine.registry as r\n"
        "for path in map(Path, sys.argv[1:]):\n"
        "    task = TASKS.get(path.parent.name)()\n"
        "    probe = task.sketch(task.resolve(path, 'meta_spikeformer_nano', {}, []))\n"
        "    print(type(probe.model.neck).__module__)\n"
        "print(r.DefaultScope.get_current_instance())"
    )
    names = ("mask_rcnn_digit_scenes", "semantic_fpn_digit_scenes", "mask_rcnn_digit_scenes")
    done = forkserver.run(
        [sys.executable, "-c", code, *(str(ALL[name]) for name in names)],
        capture_output=True,
        text=True,
    )
    ours = [f"spikebench_tasks.{task}.heads" for task in ("detection", "segmentation", "detection")]
    assert done.stdout.split() == [*ours, "None"], done.stderr
