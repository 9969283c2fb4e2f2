"""How Lightning's Trainer runs where `spikebench.distributed` has several processes do a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

from spikebench import distributed
from spikebench.registry import unknown_name
from spikebench.task import ConfigError

_STRATEGIES = ("auto", "ddp", "fsdp")
_FSDP_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-true")


def on_devices(options: Mapping[str, Any]) -> dict[str, Any]:
    """The Trainer's arguments, completed with devices, strategy and what joins the processes.

    A process has one device. `strategy` is "ddp", where every process has the whole model, or
    "fsdp", where parameters, gradients and moments are divided between them (FSDP2); "auto" is
    "ddp", and a single process has nothing to divide. Checkpoints are whole either way.

    Args:
        options: `trainer` of a configuration.

    Raises:
        ConfigError: the options ask for several devices of one process, or for a precision or for
            norms that "fsdp" has not.
        UnknownNameError: there is no such strategy.
    """
    completed = dict(options)
    strategy = completed.pop("strategy", "auto")
    if strategy not in _STRATEGIES:
        raise unknown_name("trainer.strategy", str(strategy), _STRATEGIES)
    precision = str(completed.get("precision", "32-true"))
    if strategy == "fsdp" and precision not in _FSDP_PRECISIONS:
        raise ConfigError(
            f"trainer.precision is {precision!r}; with trainer.strategy=fsdp it is one of "
            f"{', '.join(_FSDP_PRECISIONS)}"
        )
    if strategy == "fsdp" and completed.get("sync_batchnorm"):
        raise ConfigError(
            "trainer.sync_batchnorm=True and trainer.strategy=fsdp, which leaves norms as "
            "they are; leave one out"
        )
    for key in ("devices", "num_nodes"):
        asked = completed.pop(key, 1)
        if asked not in (1, "auto"):
            raise ConfigError(
                f"trainer.{key} is {asked!r}, and a process has one device; start several: "
                "torchrun --nproc-per-node 2 -m spikebench run ..."
            )
    processes = distributed.current()
    if processes.count == 1:
        return {**completed, "devices": 1}
    environment = _Joined(processes)
    on_cuda = torch.cuda.is_available() and completed.get("accelerator") != "cpu"
    return {
        **completed,
        # to Lightning each process is a node of one device: it numbers them so as the launcher did
        "num_nodes": processes.count,
        "devices": [processes.local_rank] if on_cuda else 1,
        "strategy": ModelParallelStrategy(
            data_parallel_size=processes.count,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
        )
        if strategy == "fsdp"
        else DDPStrategy(),
        "plugins": [*completed.get("plugins", ()), environment],
    }


class _Joined(ClusterEnvironment):
    """The processes of a `spikebench.distributed.launched` block, whose group is there already."""

    def __init__(self, processes: distributed.Processes) -> None:
        super().__init__()
        self._processes = processes

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return os.environ["MASTER_ADDR"]

    @property
    def main_port(self) -> int:
        return int(os.environ["MASTER_PORT"])

    @staticmethod
    def detect() -> bool:
        return distributed.current().count > 1

    def world_size(self) -> int:
        return self._processes.count

    def set_world_size(self, size: int) -> None:
        """Do nothing: the launcher has set it."""

    def global_rank(self) -> int:
        return self._processes.rank

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: the launcher has set it."""

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return self._processes.rank
