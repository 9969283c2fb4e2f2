"""Steps of data pipelines that the stock packages lack."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class BrightOnDark(BaseTransform):
    """Make micrographs of fluorescence and of stained tissue alike: grey, objects bright.

    An image whose mean is above half of the range is taken for stained tissue under transmitted
    light and inverted. Then grey values are stretched so that `low` per cent of the pixels are
    black and `100 - high` per cent white; an image of one value becomes black. The three channels
    are equal.

    Args:
        low: percentile that becomes 0.
        high: percentile that becomes 255.
    """

    def __init__(self, low: float = 1.0, high: float = 99.8) -> None:
        self.percentiles = [low, high]

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace `results['img']`, `(H, W, 3)` in BGR order of dtype uint8, by the same shape."""
        grey = cv2.cvtColor(results["img"], cv2.COLOR_BGR2GRAY)
        if grey.mean() > 127.5:
            grey = 255 - grey
        black, white = np.percentile(grey, self.percentiles)
        stretched = (grey - black) * (255 / max(white - black, 1))
        results["img"] = cv2.cvtColor(
            stretched.clip(0, 255).round().astype(np.uint8), cv2.COLOR_GRAY2BGR
        )
        return results
