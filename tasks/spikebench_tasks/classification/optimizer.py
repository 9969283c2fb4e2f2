"""Optimisers by name, with learning rates by layer."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from spikebench.registry import unknown_name
from spikebench.task import ConfigError
from spikebench_tasks.classification.options import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """Build an optimiser of timm.

    Raises:
        UnknownNameError: timm has no such optimiser.
        ConfigError: the optimiser does not take one of the arguments.
    """
    from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers

    name = config.opt.lower().removeprefix("lookahead_")
    known = [str(one) for one in list_optimizers()]
    if name not in known:
        raise unknown_name("optimiser: model.optimizer.opt", config.opt, known)
    momentum: dict[str, Any] = {} if config.momentum is None else {"momentum": config.momentum}
    if momentum and not get_optimizer_info(name).has_momentum:
        raise ConfigError(
            f"model.optimizer.momentum is {config.momentum} and {config.opt} has no momentum; "
            "leave it out"
        )
    try:
        optimizer = create_optimizer_v2(
            model,
            opt=config.opt,
            lr=config.lr,
            weight_decay=config.weight_decay,
            layer_decay=config.layer_decay,
            **momentum,
            **config.options,
        )
    except TypeError as error:
        raise ConfigError(
            f"model.optimizer.options is {config.options}, which {config.opt} does not take: "
            f"{error}"
        ) from error
    for group in optimizer.param_groups:  # of layer_decay; only timm's schedules heed it
        group["lr"] *= group.get("lr_scale", 1.0)
    return optimizer
