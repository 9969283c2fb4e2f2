from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from spikebench.task import ConfigError
from spikebench_tasks.openmmlab.precision import CpuAmpOptimWrapper, fit_precision


def wrapper(**options) -> CpuAmpOptimWrapper:
    config = Config(
        {
            "optim_wrapper": {
                "type": "AmpOptimWrapper",
                "optimizer": {"type": "SGD", "lr": 1.0},
                **options,
            }
        }
    )
    fit_precision(config)
    return build_optim_wrapper(torch.nn.Linear(2, 1), config.optim_wrapper)


@pytest.fixture(autouse=True)
def _no_cuda(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_cpu_computes_in_bfloat16(dtype: str | None):
    model = torch.nn.Linear(2, 1)
    with wrapper(dtype=dtype, loss_scale=512.0).optim_context(model):
        assert model(torch.ones(1, 2)).dtype is torch.bfloat16
    assert model(torch.ones(1, 2)).dtype is torch.float32


@pytest.mark.parametrize("dtype", ["float16", "bf16"])
def test_another_type_is_named(dtype: str):
    with pytest.raises(ConfigError, match=f"'{dtype}'.*'bfloat16'"):
        wrapper(dtype=dtype)


def test_full_precision_stays():
    config = Config({"optim_wrapper": {"type": "OptimWrapper"}})
    fit_precision(config)
    assert config.optim_wrapper.type == "OptimWrapper"


def test_cuda_has_mmengines_own(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = Config({"optim_wrapper": {"type": "AmpOptimWrapper"}})
    fit_precision(config)
    assert config.optim_wrapper.type == "AmpOptimWrapper"
