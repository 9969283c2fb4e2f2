"""Clauses on how a backbone is run: in several processes, in half precision, on CUDA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from spikebench.backbones.contract.builder import (
    Builder,
    Skip,
    Violation,
    expect_same,
    named,
    run,
    seeded,
)


def distributed(builder: Builder) -> None:
    """DistributedDataParallel trains it: each step uses every parameter exactly once."""
    model = builder.fresh().train()
    with _process_group() as group:
        parallel = DistributedDataParallel(model, process_group=group)
        for step in range(2):
            model.zero_grad()
            with seeded(step), torch.enable_grad():
                maps = parallel(builder.images(2, seed=step).float())
                sum(features.mean() for features in maps).backward()
            parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
            unused = [name for name, parameter in parameters.items() if parameter.grad is None]
            if unused:
                raise Violation(
                    f"training step {step} does not use {len(unused)} of {len(parameters)} "
                    "parameters: the next step would fail",
                    named(unused),
                )


@contextmanager
def _process_group() -> Iterator[Any]:
    """A process group of this process alone; None stands for torch's default group."""
    group: Any = None
    if not dist.is_available():
        raise Skip("this torch has no torch.distributed")
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    elif dist.get_world_size() == 1:
        group = dist.new_group(backend="gloo")
    else:
        raise Skip(f"this process is one of {dist.get_world_size()}; run the check in one alone")
    try:
        yield group
    finally:
        dist.destroy_process_group(group)


def autocast(builder: Builder) -> None:
    """Training and evaluation run under autocast (float16 too on CUDA), with finite maps."""
    for device, dtype in _half_precisions():
        for training in (True, False):
            model = builder.settled(dtype=torch.float32).to(device).train(training)
            images = builder.images(2).to(device, torch.float32)
            with seeded(0), torch.set_grad_enabled(training):
                with torch.autocast(device, dtype):
                    maps = model(images)
                if training:
                    sum(features.float().mean() for features in maps).backward()
            for index, features in enumerate(maps):
                place = f"map {index} under {dtype} on {device}, training={training}"
                if not features.dtype.is_floating_point:
                    raise Violation(f"it is {features.dtype}; expected real membranes", place)
                if not features.isfinite().all():
                    raise Violation("it is not finite", place)


def _half_precisions() -> list[tuple[str, torch.dtype]]:
    on_cuda = [("cuda", torch.bfloat16), ("cuda", torch.float16)]
    return [("cpu", torch.bfloat16), *(on_cuda if torch.cuda.is_available() else ())]


def cuda(builder: Builder) -> None:
    """On CUDA, the maps equal those of the CPU and stay on the GPU."""
    if not torch.cuda.is_available():
        raise Skip("no CUDA device")
    images = builder.images(2)
    expected = run(builder.settled(), images)
    actual = run(builder.settled().cuda(), images.cuda())
    for index, features in enumerate(actual):
        if not features.is_cuda:
            raise Violation(f"it is on {features.device}; the image is on CUDA", f"map {index}")
    what = "on CUDA the maps differ from those of the CPU"
    expect_same(expected, [features.cpu() for features in actual], what)
