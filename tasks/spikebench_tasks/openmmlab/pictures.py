"""Pictures of testing and validation: predictions beside ground truth.

Switched on in a configuration:

    custom_hooks = [dict(type="PicturesHook", count=8)]
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import mmcv
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.font_manager import findfont
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, TRANSFORMS
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from spikebench.errors import UserError
from spikebench.files import replacing
from spikebench.registry import unknown_name
from spikebench_tasks.datasets.published import evenly_spread

log = logging.getLogger("spikebench")

_ENLARGED, _LARGEST = 768, 1024
"""Pixels of the longer side up to which small images are enlarged and large ones made smaller."""

_OPACITY = 0.5
_CAPTION, _GAP = 28, 8
_DRAWN_BY = {
    "mmdet": "spikebench_tasks.detection.pictures",
    "mmseg": "spikebench_tasks.segmentation.pictures",
}


class EvenlySpreadHook(Hook):
    """Chooses images that are spread evenly over a split, and saves their pictures.

    Attributes:
        wanted: name of the picture and index in the data set, by path of the image.
    """

    def __init__(self, folder: str, count: int, required: bool = True) -> None:
        if not isinstance(count, int) or count < 0:
            raise UserError(
                f"{type(self).__name__}: count={count!r}; expected how many images to draw, "
                "0 or more"
            )
        self.folder = folder
        self.count = count
        self.required = required
        self.wanted: dict[str, tuple[str, int]] = {}

    def before_val(self, runner: Runner) -> None:
        self._choose(runner.val_dataloader)

    def before_test(self, runner: Runner) -> None:
        self._choose(runner.test_dataloader)

    def _choose(self, loader: Any) -> None:
        self.wanted = {}
        if self.count == 0 or not is_main_process():
            return
        seen = list(loader.sampler)  # with several processes, each sees a part of the split
        indices = [seen[position] for position in evenly_spread(len(seen), self.count)]
        paths = [loader.dataset.get_data_info(index)["img_path"] for index in indices]
        stems = Counter(Path(path).stem for path in paths)
        for path, index in zip(paths, indices, strict=True):
            stem = Path(path).stem
            self.wanted[path] = (stem if stems[stem] == 1 else f"{stem}-{index}", index)

    def wanted_of(self, samples: Sequence[Any]) -> list[tuple[int, str, int]]:
        """Place in the batch, name and index in the data set of each chosen image in a batch."""
        if not self.wanted:
            return []
        chosen = []
        for place, sample in enumerate(samples):
            path = sample.metainfo.get("img_path")
            if path is None:
                line = (
                    f"{type(self).__name__} tells images by their path, and test samples have only "
                    f"{sorted(sample.metainfo)}; add 'img_path' to the meta_keys of the Pack step "
                    "that ends the test pipeline"
                )
                if self.required:
                    raise UserError(line)
                log.warning("no pictures: %s", line)
                self.wanted = {}
                return []
            if path in self.wanted:
                chosen.append((place, *self.wanted[path]))
        return chosen

    def save(self, runner: Runner, name: str, picture: np.ndarray) -> None:
        """Save a picture `(H, W, 3)`, RGB, as a PNG file and in every backend but files."""
        with replacing(Path(runner.work_dir) / self.folder / f"{name}.png") as temporary:
            Image.fromarray(picture).save(temporary, format="PNG")
        for backend in runner.visualizer._vis_backends.values():
            if not isinstance(backend, LocalVisBackend):
                backend.add_image(f"{self.folder}/{name}", picture, step=runner.iter)


@HOOKS.register_module()
class PicturesHook(EvenlySpreadHook):
    """Draws predicted boxes, masks or label maps beside ground truth.

    The pictures are drawn by MMDetection's or MMSegmentation's visualizer, at the image's own size;
    small images are enlarged and large ones made smaller first. Truth is what the data set says,
    whether or not the test pipeline loads it. PNG files are `<work_dir>/pictures/<image>.png`; a
    later validation replaces them, while TensorBoard keeps all.

    Args:
        count: how many images, spread evenly over the split; 0 draws none.
        score_threshold: boxes and masks with a lower score are not drawn.
        required: whether samples that do not know their path are an error; else a line says so, and
            nothing is drawn.

    Raises:
        UserError: `count` or `score_threshold` is out of range, or samples do not know their path.
    """

    def __init__(self, count: int = 8, score_threshold: float = 0.3, required: bool = True) -> None:
        super().__init__("pictures", count, required)
        if not 0 <= score_threshold <= 1:
            raise UserError(
                f"PicturesHook: score_threshold={score_threshold!r}; expected a score from 0 to 1"
            )
        self.score_threshold = score_threshold

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._draw(runner, runner.val_dataloader.dataset, outputs)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._draw(runner, runner.test_dataloader.dataset, outputs)

    def _draw(self, runner: Runner, dataset: Any, samples: Sequence[Any]) -> None:
        for place, name, index in self.wanted_of(samples):
            with _same_numbers():
                picture = predicted_beside_truth(
                    dataset, index, samples[place], self.score_threshold
                )
            self.save(runner, name, picture)


def predicted_beside_truth(
    dataset: Any, index: int, predicted: Any, score_threshold: float = 0.3
) -> np.ndarray:
    """Draw the prediction for an image beside its ground truth.

    Args:
        dataset: a data set of MMDetection or MMSegmentation.
        index: of the image in it.
        predicted: the `DetDataSample` or `SegDataSample` of the model, at the image's own size.
        score_threshold: boxes and masks with a lower score are not drawn.

    Returns:
        Truth on the left, prediction on the right, RGB, of shape `(H, W, 3)`. Where the data set
        has no truth of the image, the prediction alone.

    Raises:
        UnknownNameError: the prediction is neither MMDetection's nor MMSegmentation's.
    """
    scope = type(predicted).__module__.partition(".")[0]
    if scope not in _DRAWN_BY:
        raise unknown_name("package of predictions", scope, _DRAWN_BY)
    kit = import_module(_DRAWN_BY[scope])
    predicted = kit.kept(predicted.cpu(), score_threshold)
    image, truth = _load(dataset, index, kit, predicted)
    size = _drawn_size(*image.shape[:2])
    filling = "nearest" if size[0] > image.shape[0] else "area"
    image = mmcv.imresize(image, size[::-1], interpolation=filling)

    pen = kit.Visualizer(alpha=_OPACITY)
    pen.dataset_meta = {**dataset.metainfo, "palette": _palette(dataset.metainfo)}
    title = f"predicted{kit.summary(predicted, 'pred', score_threshold)}"
    panels = []
    if truth is None:
        title += "; no ground truth"
    else:
        drawn = kit.to_draw(truth, "gt", size, dataset.metainfo)
        pen.add_datasample("", image, drawn, draw_pred=False)
        panels.append((f"ground truth{kit.summary(truth, 'gt')}", pen.get_image()))
    drawn = kit.to_draw(predicted, "pred", size, dataset.metainfo)
    pen.add_datasample("", image, drawn, draw_pred=False)
    return _side_by_side([*panels, (title, pen.get_image())])


def nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps `(N, H, W)` of anything, N may be 0, brought to height and width."""
    rows, columns = (
        torch.arange(after) * before // after
        for before, after in zip(maps.shape[-2:], size, strict=True)
    )
    return maps[:, rows][:, :, columns]


def _load(
    dataset: Any, index: int, kit: ModuleType, predicted: Any
) -> tuple[np.ndarray, Any | None]:
    """The image `(H, W, 3)`, RGB, at its own size, and a data sample with its truth, if any.

    What the test pipeline loads, it loads here too, with its options, but nothing is resized.
    """
    about = dataset.get_data_info(index)
    pipeline = getattr(dataset, "pipeline", None)
    loading = [
        step for step in getattr(pipeline, "transforms", []) if type(step).__name__[:4] == "Load"
    ]
    images = [step for step in loading if "Annotations" not in type(step).__name__]
    truths = [step for step in loading if "Annotations" in type(step).__name__]
    has_truth = kit.has_truth(about)
    images = images or [TRANSFORMS.build({"type": "mmcv.LoadImageFromFile"})]
    if has_truth and not truths:
        truths = [TRANSFORMS.build(kit.truth_step(about, predicted))]
    for step in (*images, *(truths if has_truth else []), TRANSFORMS.build({"type": kit.PACK})):
        about = step(about)
    image = about["inputs"].permute(1, 2, 0).flip(-1).clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(image), about["data_samples"] if has_truth else None


def _drawn_size(height: int, width: int) -> tuple[int, int]:
    longer = max(height, width)
    if longer > _LARGEST:
        shrunk = (max(1, round(side * _LARGEST / longer)) for side in (height, width))
        return next(shrunk), next(shrunk)
    times = max(1, _ENLARGED // longer)
    return height * times, width * times


def _palette(about: Mapping[str, Any]) -> list[tuple[int, ...]] | None:
    """A colour per class: the data set's palette, or evenly spaced hues."""
    palette, classes = about.get("palette"), about.get("classes")
    if isinstance(palette, list | tuple):
        return [tuple(color) for color in palette]
    if classes is None:
        return None
    hues = colormaps["hsv"](np.arange(len(classes)) / len(classes), bytes=True)
    return [tuple(map(int, color[:3])) for color in hues]


def _side_by_side(panels: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Pictures `(H, W, 3)` of one height in a row, each under its title."""
    font = ImageFont.truetype(findfont("DejaVu Sans"), 15)
    widths = [max(panel.shape[1], int(font.getlength(title)) + 8) for title, panel in panels]
    size = (sum(widths) + _GAP * (len(panels) - 1), _CAPTION + panels[0][1].shape[0])
    whole = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(whole)
    left = 0
    for (title, panel), width in zip(panels, widths, strict=True):
        pen.text((left + 4, 4), title, fill="black", font=font)
        whole.paste(Image.fromarray(panel), (left, _CAPTION))
        left += width + _GAP
    return np.asarray(whole)


@contextlib.contextmanager
def _same_numbers() -> Iterator[None]:
    """Keep NumPy's random state: MMDetection jitters colours with it."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
