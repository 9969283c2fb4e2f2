from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO
from mmengine.registry import DATASETS, TRANSFORMS, DefaultScope
from mmengine.structures import InstanceData, PixelData
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spikebench.errors import UserError
from spikebench_tasks.detection import pictures as of_detection
from spikebench_tasks.detection import registered as _detection  # noqa: F401
from spikebench_tasks.openmmlab import loop, pictures
from spikebench_tasks.openmmlab.pictures import PicturesHook, predicted_beside_truth
from spikebench_tasks.segmentation import pictures as of_segmentation
from spikebench_tasks.segmentation import registered as _segmentation  # noqa: F401
from tests.tasks.openmmlab.tiny import tiny_config, tiny_run

SIDE, TIMES, CAPTION, GAP = 128, 6, 28, 8

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("data_root")]


def dataset_of(task: str) -> Any:
    """The test split, brought to 64x64 by a pipeline; a detector's lacks the truth."""
    config = tiny_config(task)["test_dataloader"]["dataset"]
    left_out = {"Resize", "LoadAnnotations"} if task == "detection" else {"Resize"}
    steps = [step for step in config["pipeline"] if step["type"] not in left_out]
    resize = {"type": "Resize", "scale": (64, 64), "keep_ratio": False}
    with DefaultScope.overwrite_default_scope({"detection": "mmdet"}.get(task, "mmseg")):
        return DATASETS.build({**config, "pipeline": [steps[0], resize, *steps[1:]]})


@pytest.fixture(scope="module")
def scenes_with_boxes(data_root: Path) -> Any:
    return dataset_of("detection")


@pytest.fixture(scope="module")
def scenes_with_labels(data_root: Path) -> Any:
    return dataset_of("segmentation")


def pixels_of(dataset: Any, index: int) -> np.ndarray:
    """The image as it is drawn on."""
    image = np.array(Image.open(dataset.get_data_info(index)["img_path"]).convert("RGB"))
    return image.repeat(TIMES, 0).repeat(TIMES, 1)


def halves(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    side = SIDE * TIMES
    assert picture.shape == (CAPTION + side, 2 * side + GAP, 3)
    return picture[CAPTION:, :side], picture[CAPTION:, side + GAP :]


def truth_of(dataset: Any, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, labels and masks at the image's own size, read from the file of annotations."""
    api, about = COCO(dataset.ann_file), dataset.get_data_info(index)
    objects = api.load_anns(api.get_ann_ids(img_ids=[about["img_id"]]))
    boxes = np.array([one["bbox"] for one in objects], dtype=np.float32)
    boxes[:, 2:] += boxes[:, :2]
    labels = np.array([dataset.cat2label[one["category_id"]] for one in objects])
    return boxes, labels, np.stack([api.annToMask(one) for one in objects]).astype(bool)


def moved_down(masks: np.ndarray, down: int) -> np.ndarray:
    """Masks (..., H, W), less what leaves the image."""
    moved = np.roll(masks, down, -2)
    moved[..., :down, :] = False
    return moved


def detections(dataset: Any, index: int, down: int = 0, score: float = 0.9) -> Any:
    """What is there, moved down, as a model predicts it."""
    boxes, labels, masks = truth_of(dataset, index)
    sample = dataset[index]["data_samples"]
    sample.pred_instances = InstanceData(
        bboxes=torch.from_numpy(boxes) + torch.tensor([0.0, down, 0.0, down]),
        labels=torch.from_numpy(labels),
        scores=torch.full((len(labels),), score),
        masks=torch.from_numpy(moved_down(masks, down)),
    )
    return sample


def touched(half: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The pixels that something was drawn on, of shape (H, W)."""
    return (np.abs(half.astype(int) - image.astype(int)) > 8).any(-1)


def near(boxes: np.ndarray, down: int) -> np.ndarray:
    """The pixels (H, W) in boxes, or so near that lines and texts may reach there."""
    reached = np.zeros((SIDE * TIMES, SIDE * TIMES), dtype=bool)
    for left, top, right, bottom in (boxes + [0, down, 0, down]) * TIMES:
        rows = slice(max(0, int(top) - 9), int(bottom) + 9)
        reached[rows, max(0, int(left) - 9) : int(right) + 60] = True
    return reached


class TestBoxes:
    def test_truth_is_left_and_the_prediction_right_where_they_are(self, scenes_with_boxes):
        data, down = scenes_with_boxes, 24  # part of the lowest digit leaves the image
        picture = predicted_beside_truth(data, 3, detections(data, 3, down))
        boxes, _, masks = truth_of(data, 3)
        image = pixels_of(data, 3)
        for half, moved in zip(halves(picture), (0, down), strict=True):
            drawn = touched(half, image)
            mask = moved_down(masks.any(0), moved).repeat(TIMES, 0).repeat(TIMES, 1)
            assert drawn[mask].mean() > 0.9
            assert not drawn[~near(boxes, moved)].any()

    def test_boxes_have_the_colour_of_their_class(self, scenes_with_boxes):
        data = scenes_with_boxes
        sample = detections(data, 3)
        sample.pred_instances = sample.pred_instances[:1]
        sample.pred_instances.bboxes = torch.tensor([[40.0, 40.0, 80.0, 80.0]])
        sample.pred_instances.masks = torch.zeros_like(sample.pred_instances.masks)
        colours = set()
        for label in range(10):
            sample.pred_instances.labels = torch.tensor([label])
            half = halves(predicted_beside_truth(data, 3, sample))[1]
            colours.add(tuple(half[70 * TIMES, 40 * TIMES]))
        assert len(colours) == 10

    def test_what_scores_less_is_left_out(self, scenes_with_boxes):
        data = scenes_with_boxes
        sample = detections(data, 0, score=0.5)
        least = halves(predicted_beside_truth(data, 0, sample, score_threshold=0.5))[1]
        none = halves(predicted_beside_truth(data, 0, sample, score_threshold=0.51))[1]
        assert touched(least, pixels_of(data, 0)).any()
        assert not touched(none, pixels_of(data, 0)).any()

    def test_an_image_without_predictions_is_drawn(self, scenes_with_boxes):
        data = scenes_with_boxes
        sample = detections(data, 0)
        sample.pred_instances = sample.pred_instances[:0]
        truth, none = halves(predicted_beside_truth(data, 0, sample))
        assert touched(truth, pixels_of(data, 0)).any()
        assert not touched(none, pixels_of(data, 0)).any()

    def test_truth_without_objects_is_drawn(self, scenes_with_boxes, monkeypatch):
        data = scenes_with_boxes
        about = {**data.get_data_info(0), "instances": []}
        sample = detections(data, 0)
        monkeypatch.setattr(data, "get_data_info", lambda index: dict(about))
        none, predicted = halves(predicted_beside_truth(data, 0, sample))
        assert not touched(none, pixels_of(data, 0)).any()
        assert touched(predicted, pixels_of(data, 0)).any()

    def test_a_detector_without_masks(self, scenes_with_boxes):
        data = scenes_with_boxes
        sample = detections(data, 3)
        del sample.pred_instances.masks
        truth, predicted = halves(predicted_beside_truth(data, 3, sample))
        inside = truth_of(data, 3)[2][0].repeat(TIMES, 0).repeat(TIMES, 1)
        for half in (truth, predicted):
            drawn = touched(half, pixels_of(data, 3))
            assert drawn.any()
            assert drawn[inside].mean() < 0.5

    def test_truth_is_loaded_as_the_pipeline_loads_it(self, scenes_with_boxes, monkeypatch):
        data = scenes_with_boxes
        inside = truth_of(data, 3)[2].any(0).repeat(TIMES, 0).repeat(TIMES, 1)
        steps = data.pipeline.transforms
        boxes_only = TRANSFORMS.build({"type": "mmdet.LoadAnnotations", "with_bbox": True})
        monkeypatch.setattr(data.pipeline, "transforms", [*steps[:-1], boxes_only, steps[-1]])
        truth, predicted = halves(predicted_beside_truth(data, 3, detections(data, 3)))
        assert touched(truth, pixels_of(data, 3))[inside].mean() < 0.5
        assert touched(predicted, pixels_of(data, 3))[inside].mean() > 0.9

    def test_names_and_scores_are_written(self):
        instances = InstanceData(
            bboxes=torch.zeros(2, 4), labels=torch.tensor([1, 0]), scores=torch.tensor([0.5, 1.0])
        )
        sample = of_detection.DetDataSample(metainfo={"ori_shape": (8, 8)})
        sample.pred_instances = sample.gt_instances = instances
        for classes, texts in (
            (("cat", "dog"), ["dog 0.50", "cat 1.00"]),
            (None, ["class 1 0.50", "class 0 1.00"]),
            (("nucleus",), ["0.50", "1.00"]),
        ):
            if classes == ("nucleus",):
                instances.labels = torch.zeros(2, dtype=torch.long)
            drawn = of_detection.to_draw(sample, "pred", (8, 8), {"classes": classes})
            assert drawn.gt_instances.label_names == texts
        sample.gt_instances = instances[:1]
        del sample.gt_instances.scores
        drawn = of_detection.to_draw(sample, "gt", (8, 8), {"classes": ("cat", "dog")})
        assert drawn.gt_instances.label_names == ["cat"]

    def test_the_same_twice_and_no_random_numbers_taken(self, scenes_with_boxes):
        data = scenes_with_boxes
        hook = PicturesHook()
        saved = []
        hook.save = lambda runner, name, picture: saved.append(picture)
        sample = detections(data, 0)
        hook.wanted = {sample.img_path: ("x", 0)}
        np.random.seed(3)
        expected = np.random.rand(4)
        np.random.seed(3)
        loaders = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=data))
        hook.after_test_iter(loaders, 0, None, [sample])
        assert np.array_equal(np.random.rand(4), expected)
        hook.after_test_iter(loaders, 0, None, [sample])
        assert np.array_equal(*saved)


class TestLabelMaps:
    def test_truth_is_left_and_the_prediction_right(self, scenes_with_labels):
        data = scenes_with_labels
        about = data.get_data_info(5)
        labels = np.array(Image.open(about["seg_map_path"]))
        sample = data[5]["data_samples"]
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(np.roll(labels, 20, 0)[None]))
        palette = np.array(data.metainfo["palette"])
        image = pixels_of(data, 5)
        picture = predicted_beside_truth(data, 5, sample)
        for half, shown in zip(halves(picture), (labels, np.roll(labels, 20, 0)), strict=True):
            colours = palette[shown].repeat(TIMES, 0).repeat(TIMES, 1)
            expected = image * 0.5 + colours * 0.5
            right = (np.abs(half - expected) <= 1).all(-1)
            assert right.mean() > 0.9  # the rest is names
            assert right[0].all()

    def test_labels_count_as_the_pipeline_counts_them(self, tmp_path):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir()
        colour = (200, 100, 40)
        Image.new("RGB", (40, 30), colour).save(tmp_path / "images" / "a.jpg")
        labels = np.zeros((30, 40), np.uint8)
        labels[:, 20:] = 2  # the second class, where 0 is nothing
        Image.fromarray(labels).save(tmp_path / "labels" / "a.png")
        with DefaultScope.overwrite_default_scope("mmseg"):
            data = DATASETS.build(
                {
                    "type": "ADE20KDataset",
                    "data_prefix": {
                        "img_path": str(tmp_path / "images"),
                        "seg_map_path": str(tmp_path / "labels"),
                    },
                    "pipeline": [
                        {"type": "LoadImageFromFile"},
                        {"type": "Resize", "scale": (20, 20)},
                        {"type": "LoadAnnotations", "reduce_zero_label": True},
                        {"type": "PackSegInputs"},
                    ],
                    "test_mode": True,
                }
            )
        sample = data[0]["data_samples"]
        sample.pred_sem_seg = PixelData(data=torch.zeros(1, 30, 40, dtype=torch.long))
        picture = predicted_beside_truth(data, 0, sample)
        times = 768 // 40
        row = picture[CAPTION + 2].astype(int)
        for at, over in (
            (2 * times, (0, 0, 0)),
            (38 * times, data.metainfo["palette"][1]),
            (40 * times + GAP + 5, data.metainfo["palette"][0]),
        ):
            expected = (np.array(colour) + over) / 2
            assert row[at] == pytest.approx(expected, abs=2)

    def test_without_truth_the_prediction_stands_alone(self, scenes_with_labels, monkeypatch):
        data = scenes_with_labels
        sample = data[0]["data_samples"]
        sample.pred_sem_seg = PixelData(data=torch.zeros(1, SIDE, SIDE, dtype=torch.long))
        about = data.get_data_info(0)
        about.pop("seg_map_path")
        monkeypatch.setattr(data, "get_data_info", lambda index: dict(about))
        picture = predicted_beside_truth(data, 0, sample)
        assert picture.shape == (CAPTION + SIDE * TIMES, SIDE * TIMES, 3)

    def test_a_name_begins_inside_its_region_and_ends_in_the_image(self):
        pen = of_segmentation.Visualizer()
        mask = np.zeros((100, 200), np.uint8)
        mask[20:60, 30:90] = 1
        x, y = pen._get_center_loc(mask)
        assert 45 < x < 75
        assert 35 < y < 45
        mask[:] = 0
        mask[97:, 197:] = 1
        x, y = pen._get_center_loc(mask)
        assert x <= 200 - 12
        assert y <= 100 - 6


def test_large_images_are_made_smaller_and_small_ones_enlarged():
    assert pictures._drawn_size(1024, 2048) == (512, 1024)
    assert pictures._drawn_size(480, 640) == (480, 640)
    assert pictures._drawn_size(100, 256) == (300, 768)
    assert pictures._drawn_size(1, 4000) == (1, 1024)


def test_nearest_takes_masks_of_any_number():
    maps = torch.tensor([[[0, 1], [2, 3]]])
    enlarged = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]])
    assert torch.equal(pictures.nearest(maps, (4, 4)), enlarged)
    assert torch.equal(pictures.nearest(enlarged, (2, 2)), maps)
    assert pictures.nearest(torch.zeros(0, 5, 7), (2, 3)).shape == (0, 2, 3)


def test_classes_without_a_palette_get_colours_that_differ():
    palette = pictures._palette({"classes": ("a",) * 40, "palette": None})
    assert len(set(palette)) == 40
    assert pictures._palette({"classes": ("a",), "palette": [[1, 2, 3]]}) == [(1, 2, 3)]


class Paths:
    """A data set that is only paths."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def get_data_info(self, index: int) -> dict[str, str]:
        return {"img_path": self.paths[index]}


def chosen(paths: list[str], count: int, seen: list[int] | None = None) -> dict:
    hook = PicturesHook(count=count)
    sampler = range(len(paths)) if seen is None else seen
    loader = SimpleNamespace(sampler=sampler, dataset=Paths(paths))
    hook.before_test(SimpleNamespace(test_dataloader=loader))
    return hook.wanted


def test_images_are_spread_evenly_over_what_this_process_sees():
    paths = [f"/data/{index}.jpg" for index in range(100)]
    assert list(chosen(paths, 4)) == ["/data/0.jpg", "/data/25.jpg", "/data/50.jpg", "/data/75.jpg"]
    second = list(range(1, 100, 2))
    assert chosen(paths, 2, second) == {"/data/1.jpg": ("1", 1), "/data/51.jpg": ("51", 51)}
    assert chosen(paths, 0) == {}
    assert len(chosen(paths[:3], 8)) == 3


def test_images_of_one_name_get_pictures_of_their_own():
    names = [name for name, _ in chosen(["/a/1.jpg", "/b/1.jpg", "/b/2.jpg"], 3).values()]
    assert names == ["1-0", "1-1", "2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": -1}, "PicturesHook: count=-1; expected how many images to draw, 0 or more"),
        ({"count": "8"}, "PicturesHook: count='8'; expected how many"),
        ({"score_threshold": 30}, "score_threshold=30; expected a score from 0 to 1"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        PicturesHook(**options)
    assert "\n" not in str(caught.value)


def test_samples_must_know_their_path():
    hook = PicturesHook()
    hook.wanted = {"a": ("a", 0)}
    sample = of_detection.DetDataSample(metainfo={"img_id": 3})
    with pytest.raises(UserError, match="img_path"):
        hook.wanted_of([sample])


def test_where_pictures_are_not_required_a_line_says_that_there_are_none(caplog):
    hook = PicturesHook(required=False)
    hook.wanted = {"a": ("a", 0)}
    sample = of_detection.DetDataSample(metainfo={"img_id": 3})
    assert hook.wanted_of([sample]) == hook.wanted_of([sample]) == []
    (line,) = caplog.messages
    assert "PicturesHook" in line


@pytest.mark.parametrize("task", ["detection", "segmentation"])
def test_a_run_leaves_pictures_as_files_and_in_tensorboard(task, tmp_path):
    config = tiny_config(task, custom_hooks=[{"type": "PicturesHook", "count": 3}])
    config["train_cfg"]["max_epochs"] = 1
    run = tiny_run(tmp_path / task, task, config)
    loop.evaluate(run, loop.train(run))
    files = sorted((run.folder / "pictures").glob("*"))
    assert [file.name for file in files] == ["0000.png", "0002.png", "0004.png"]
    board = EventAccumulator(str(run.tensorboard), size_guidance={"images": 0}).Reload()
    assert set(board.Tags()["images"]) >= {f"pictures/{file.stem}" for file in files}
    (event,) = board.Images("pictures/0002")
    with Image.open(files[1]) as picture:
        assert (event.width, event.height) == picture.size
