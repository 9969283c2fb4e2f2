"""Where the time of a training step of Mask R-CNN 15M goes, and whether its loader keeps up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch.profiler import ProfilerActivity, profile

from spikebench.files import data_root
from spikebench_tasks.detection import registered
from spikebench_tasks.openmmlab.data import located
from tests.tasks.small import CONFIGS, resolved

STEPS = 3
EPOCHS = 4
# what weight layers and their gradients are computed by
PRODUCTS = ("convolution", "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::matmul")
OF_512 = (
    "train_dataloader.dataset.pipeline.2.scale=(512, 512)",
    "train_dataloader.dataset.pipeline.2.keep_ratio=False",
)

pytestmark = [pytest.mark.slow, pytest.mark.data, pytest.mark.filterwarnings("ignore")]


def products(average: Any) -> bool:
    return any(name in average.key for name in PRODUCTS)


@pytest.mark.usefixtures("as_runs_compute")
def test_most_of_a_step_is_in_convolutions_and_the_loader_keeps_up(samples: Path):
    """512x512, batch 2, T = 1: 60 % of the step; images of the loader a second, 1.5 of the step."""
    assert registered
    _, plain = resolved(CONFIGS / "detection" / "mask_rcnn_15m_t1_coco.py", *OF_512)
    config = Config(located(plain, data_root()))
    with DefaultScope.overwrite_default_scope(config.default_scope):
        loader = Runner.build_dataloader(config.train_dataloader, seed=0)
        batches, start, loaded = [], 0.0, 0
        for batch in (each for _ in range(EPOCHS) for each in loader):
            if not batches:
                start = time.perf_counter()  # workers have started
            else:
                loaded += len(batch["inputs"])
            batches.append(batch)
        loading = loaded / (time.perf_counter() - start)
        torch.manual_seed(0)
        model = MODELS.build(config.model).train()
        wrapper = build_optim_wrapper(model, config.optim_wrapper)
    for batch in batches[:2]:
        model.train_step(batch, wrapper)
    start = time.perf_counter()
    for batch in batches[:STEPS]:
        model.train_step(batch, wrapper)
    seconds = (time.perf_counter() - start) / STEPS
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for batch in batches[:STEPS]:
            model.train_step(batch, wrapper)
    averages = profiled.key_averages()
    whole = sum(one.self_cpu_time_total for one in averages)
    share = sum(one.self_cpu_time_total for one in averages if products(one)) / whole
    for one in sorted(averages, key=lambda one: -one.self_cpu_time_total)[:12]:
        print(f"{one.self_cpu_time_total / whole:6.1%}  {one.key}")
    print(
        f"step {seconds:.2f} s, {share:.1%} in convolutions and products; images per second: "
        f"loader {loading:.1f}, step {2 / seconds:.2f}"
    )
    assert share >= 0.6
    assert loading >= 1.5 * 2 / seconds
