"""Test images that are augmented, as `tools/test.py --tta` does it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from spikebench import profile_operations
from spikebench.energy.estimators import energies
from spikebench.task import ConfigError
from spikebench_tasks.openmmlab import loop
from spikebench_tasks.openmmlab.checkpoints import bare
from spikebench_tasks.openmmlab.data import count_views
from spikebench_tasks.openmmlab.task import OpenMMLabTask
from tests.tasks.openmmlab.tiny import CONFIGS, tiny_config, tiny_run

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("data_root")]

LAYER = "backbone.model.stages.1.downsample.lif"
MODELS = {
    "detection": {
        "type": "DetTTAModel",
        "tta_cfg": {"nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 30},
    },
    "segmentation": {"type": "SegTTAModel"},
}
UNTURNED = {"type": "RandomFlip", "prob": 0.0}
TURNED = {"type": "RandomFlip", "prob": 1.0, "direction": "horizontal"}


def config_of(task: str, views: list[dict[str, Any]] | None, **changes: Any) -> dict[str, Any]:
    """Of one epoch, with a view of the test images for each way to flip them, or as they are."""
    config = tiny_config(task, train_cfg={"max_epochs": 1}, **changes)
    if task == "detection":  # DetTTAModel merges boxes alone
        config["model"]["roi_head"] |= {"mask_head": None, "mask_roi_extractor": None}
        config["test_evaluator"]["metric"] = ["bbox"]
    if views is None:
        return config
    load, resize, *rest, pack = config["test_dataloader"]["dataset"]["pipeline"]
    if task == "detection":
        pack = {**pack, "meta_keys": [*pack["meta_keys"], "flip", "flip_direction"]}
    steps = [[resize], views, rest, [pack]]
    augment = {"type": "TestTimeAug", "transforms": steps}
    return {**config, "tta": True, "tta_model": MODELS[task], "tta_pipeline": [load, augment]}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory):
    """A run of a task, its evaluation and its probe, each made once; a task is trained once."""
    folder = tmp_path_factory.mktemp("augmented")

    @functools.cache
    def trained(task: str) -> Path:
        return loop.train(tiny_run(folder / task, task, config_of(task, None)))

    @functools.cache
    def scored(task: str, described: str, changes: str) -> Any:
        checkpoint = trained(task)
        config = config_of(task, json.loads(described), **json.loads(changes))
        run = tiny_run(folder / f"{task}-{len(list(folder.iterdir()))}", task, config)
        return run, loop.evaluate(run, checkpoint), loop.probe(run, checkpoint)

    def score(task: str, views: list[dict[str, Any]] | None, **changes: Any):
        return scored(task, json.dumps(views), json.dumps(changes))

    return score


def operations(probe) -> Any:
    """Of one view of an image."""
    return profile_operations(
        probe.model,
        probe.batches,
        forward=probe.forward,
        images=probe.images,
        time_steps=probe.backbone.time_steps,
    )


def test_views_that_are_alike_score_as_one_and_cost_as_one_each(scored):
    _, plain, probe = scored("segmentation", None)
    once = operations(probe)
    _, twice, probe = scored("segmentation", [UNTURNED, UNTURNED])
    assert twice.metrics == pytest.approx(plain.metrics, abs=1e-6)
    assert twice.dataset == plain.dataset
    assert probe.views == 2
    report = operations(probe)
    assert report.images == 2 * once.images == 2 * plain.dataset.test_samples
    assert report.synaptic_operations_std == pytest.approx(once.synaptic_operations_std, rel=0.1)
    for row, other in zip(report.rows, once.rows, strict=True):
        assert row.name == other.name
        assert row.exact_synaptic_operations == pytest.approx(other.exact_synaptic_operations)
        assert row.dense_macs == other.dense_macs
    assert energies(report) == pytest.approx(energies(once))


def test_what_two_views_say_is_averaged(scored):
    """Probabilities of the image and of its mirror image, brought back and averaged by hand."""
    run, *_ = scored("segmentation", [UNTURNED, TURNED])
    checkpoint = run.folder.parent / "segmentation" / "epoch_1.pth"
    with loop._testing(run, checkpoint) as runner:
        tested, loader = runner.model.eval(), runner.test_dataloader
    model, same = bare(tested), []
    assert model is not tested
    for batch in loader:
        views, (samples, _) = batch["inputs"], batch["data_samples"]
        with torch.no_grad():
            found = tested.test_step(batch)
            one, other = (
                model.test_step({"inputs": list(view), "data_samples": list(samples)})
                for view in views
            )
        for said, straight, mirrored in zip(found, one, other, strict=True):
            chances = straight.seg_logits.data.softmax(0)
            chances = chances + mirrored.seg_logits.data.flip(-1).softmax(0)
            same.append((said.pred_sem_seg.data[0] == chances.argmax(0)).float().mean().item())
            assert said.pred_sem_seg.shape == said.gt_sem_seg.shape
    assert len(same) == 6
    assert min(same) > 0.999
    assert len(list((run.folder / "pictures").glob("*.png"))) == 6


@pytest.mark.parametrize("views", [[UNTURNED], [UNTURNED, TURNED]])
def test_detectors_are_tested_on_views(scored, views):
    _, plain, _ = scored("detection", None)
    run, evaluation, probe = scored("detection", views)
    assert evaluation.metrics.keys() == plain.metrics.keys()
    if views == [UNTURNED]:
        assert evaluation.metrics == pytest.approx(plain.metrics, abs=1e-6)
    assert evaluation.dataset == plain.dataset
    assert len(list((run.folder / "pictures").glob("*.png"))) == plain.dataset.test_samples
    report = operations(probe)
    assert report.images == len(views) * plain.dataset.test_samples
    assert {row.name.split(".")[0] for row in report.rows} >= {"backbone", "neck"}


def test_firing_rates_of_views_are_not_drawn_and_a_line_says_so(
    scored, caplog: pytest.LogCaptureFixture
):
    hook = {"type": "FiringRateMapsHook", "layer": LAYER, "count": 2}
    run, *_ = scored("segmentation", [UNTURNED, TURNED], custom_hooks=[hook])
    assert f"no maps of {LAYER}: test images are augmented" in caplog.text
    assert not (run.folder / "firing_rates").exists()


class TestResolve:
    def resolve(self, *overrides: str) -> dict[str, Any]:
        return OpenMMLabTask().resolve(
            CONFIGS["segmentation"], "meta_spikeformer_nano", {}, overrides
        )

    def test_how_is_left_out_where_images_are_not_augmented(self):
        """So that a run keeps its key, whatever the stock files say of it."""
        assert not {"tta", "tta_model", "tta_pipeline"} & self.resolve().keys()
        assert self.resolve("tta=false") == self.resolve()

    def test_an_override_switches_it_on(self, tmp_path: Path):
        path = tmp_path / "augmented.py"
        path.write_text(
            f"_base_ = [{str(CONFIGS['segmentation'])!r}]\n"
            "tta_pipeline = [dict(type='TestTimeAug', transforms=[[dict(type='RandomFlip')]])]\n"
        )
        resolved = OpenMMLabTask().resolve(path, "meta_spikeformer_nano", {}, ["tta=true"])
        assert resolved["tta"] is True
        assert resolved["tta_model"]["type"] == "SegTTAModel"
        assert count_views(resolved["tta_pipeline"]) == 1

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("tta=1", "tta is 1"),
            ("tta=true", "tta_model"),
            ("tta_model.type=Other", "tta_model.*tta=True"),
            ("+tta_pipeline=[]", "tta_pipeline.*tta=True"),
        ],
    )
    def test_what_is_wrong_is_one_line(self, override: str, message: str):
        with pytest.raises(ConfigError, match=message) as caught:
            self.resolve(override)
        assert "\n" not in str(caught.value)

    def test_masks_are_not_merged_which_is_said_before_training(self):
        merging = [f"+tta_model={MODELS['detection']}", "tta=True"]
        views = "+tta_pipeline=[{'type': 'TestTimeAug', 'transforms': [[{}]]}]"
        with pytest.raises(ConfigError, match="DetTTAModel"):
            OpenMMLabTask().resolve(
                CONFIGS["detection"], "meta_spikeformer_nano", {}, [*merging, views]
            )


def test_every_wrapped_data_set_is_augmented():
    config = config_of("segmentation", [UNTURNED, TURNED])
    inner = config["test_dataloader"]["dataset"]
    config["test_dataloader"]["dataset"] = {"type": "ConcatDataset", "datasets": [inner, inner]}
    augmented = loop._augmented(Config(config))
    for one in augmented.test_dataloader.dataset.datasets:
        assert one.pipeline == config["tta_pipeline"]
    assert augmented.model.module == config["model"]
