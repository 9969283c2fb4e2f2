"""Mixed precision on a CPU, where MMEngine has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from spikebench.task import ConfigError

_AMP = {"AmpOptimWrapper", "mmengine.AmpOptimWrapper"}


def fit_precision(config: Config) -> None:
    """Make `AmpOptimWrapper` train in bfloat16 without a CUDA device."""
    if config.optim_wrapper.get("type") in _AMP and not torch.cuda.is_available():
        config.optim_wrapper.type = "CpuAmpOptimWrapper"


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Runs the forward pass in bfloat16 where that is safe; takes what `AmpOptimWrapper` takes.

    Args:
        dtype: None or "bfloat16".
        loss_scale: for float16, whose small gradients vanish; bfloat16 has float32's range, and
            is not scaled.
        **options: those of `OptimWrapper`.

    Raises:
        ConfigError: `dtype` is another one.
    """

    def __init__(self, dtype: str | None = None, loss_scale: Any = "dynamic", **options: Any):
        if dtype not in (None, "bfloat16"):
            raise ConfigError(
                f"optim_wrapper.dtype is {dtype!r}, for which there is no CUDA device here; "
                "expected 'bfloat16', which a CPU computes in"
            )
        super().__init__(**options)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield
