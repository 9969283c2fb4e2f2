"""Steps of data pipelines that the stock packages lack."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

OTSU_GAMMA = 0.7  # lifts dim objects out of the dark before Otsu's threshold is sought


@TRANSFORMS.register_module()
class BrightOnDark(BaseTransform):
    """Make micrographs of fluorescence and of stained tissue more alike: objects bright on dark.

    An image whose mean is above half of the range is taken for stained tissue under transmitted
    light and inverted. Then what is brighter than its surroundings by a glow alone is made dark,
    where asked, and values are stretched, all channels alike, so that `low` per cent of
    the pixels are black and `100 - high` per cent white, and dim ones are lifted by `gamma`. An
    image of one value becomes black.

    Without a `gamma` given, each image has its own: the one that brings what divides its dark
    pixels from its bright ones, by Otsu (1979, "A threshold selection method from gray-level
    histograms"), to mid grey. A model then sees objects of dim images as bright as those of others.

    Args:
        low: percentile that becomes 0.
        high: percentile that becomes 255.
        gamma: the power that values between black, 0, and white, 1, are raised to; None for each
            image's own.
        background: side in pixels of the square that no object fills; what is darkest in each is
            smoothed and subtracted. 0 subtracts nothing.
        red: whether of stained tissue only the red channel is kept, in all three: haematoxylin,
            which stains nuclei, absorbs red, and eosin, which stains the rest, lets it through.
        keep_colours: whether the blue and green channels are the square roots of those of the image
            itself, inverted where it is: they tell how dim it was, and in what colour stained.
    """

    def __init__(
        self,
        low: float = 1.0,
        high: float = 99.8,
        gamma: float | None = 0.5,
        background: int = 0,
        red: bool = False,
        keep_colours: bool = False,
    ) -> None:
        self.percentiles = [low, high]
        self.gamma = gamma
        self.background = background
        self.red = red
        self.keep_colours = keep_colours

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace `results['img']`, `(H, W, 3)` in BGR order of dtype uint8, by the same shape."""
        image = results["img"]
        stained = image.mean() > 127.5
        itself = image = 255 - image if stained else image
        if stained and self.red:
            image = image[..., 2:].repeat(3, axis=2)
        if self.background:
            sides = (self.background, self.background)
            opened = cv2.morphologyEx(image, cv2.MORPH_OPEN, np.ones(sides, np.uint8))
            image = cv2.subtract(image, cv2.blur(opened, sides))
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        black, white = np.percentile(grey, self.percentiles)
        stretched = ((image - black) / max(white - black, 1)).clip(0, 1)
        gamma = self._gamma_to_mid_grey(stretched) if self.gamma is None else self.gamma
        alike = stretched**gamma
        if self.keep_colours:
            alike[..., :2] = (itself[..., :2] / 255) ** 0.5
        results["img"] = (255 * alike).round().astype(np.uint8)
        return results

    @staticmethod
    def _gamma_to_mid_grey(image: np.ndarray) -> float:
        grey = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_BGR2GRAY)
        lifted = cv2.GaussianBlur(grey**OTSU_GAMMA, (0, 0), 1)
        threshold, _ = cv2.threshold(
            (255 * lifted).round().astype(np.uint8), 0, 255, cv2.THRESH_OTSU
        )
        # a threshold near black or white would make all pixels white or black
        return OTSU_GAMMA * float(np.log(0.5) / np.log(np.clip(threshold / 255, 0.05, 0.9)))
