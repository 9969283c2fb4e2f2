"""The `spikebench` command on a fake task whose processes fail as its configuration says."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from conftest import FakeTask  # beside this script
from torch import distributed as dist

from spikebench import distributed
from spikebench.cli import main
from spikebench.registry import TASKS
from spikebench.task import Evaluation, Probe, Run


class TogetherTask(FakeTask):
    """Each phase meets the other processes, unless one fails there."""

    distributed = True

    def _note(self, phase: str, run: Run) -> None:
        rank = distributed.current().rank
        with (Path(run.config["notes"]) / f"{rank}.txt").open("a") as notes:
            notes.write(f"{phase} {run.seed}\n")
        here = f"{phase} {run.seed} {rank}"
        if here in run.config["interrupted"]:
            raise KeyboardInterrupt
        if here in run.config["failing"]:
            raise RuntimeError(f"no memory\nin {phase}")
        if here in run.config["deaf"]:
            time.sleep(60)

    def train(self, run: Run) -> Path:
        self._note("train", run)
        dist.barrier()
        if distributed.current().is_main:
            super().train(run)
        dist.barrier()
        return run.folder / "epoch_1.pth"

    def evaluate(self, run: Run, checkpoint: Path) -> Evaluation:
        self._note("evaluate", run)
        dist.barrier()
        return super().evaluate(run, checkpoint)

    def probe(self, run: Run, checkpoint: Path) -> Probe:
        self._note("probe", run)
        assert not dist.is_initialized()
        time.sleep(0.5)
        return super().probe(run, checkpoint)


class AloneTask(FakeTask):
    """One that knows nothing of other processes."""


if __name__ == "__main__":
    distributed._GRACE_S = 2.0
    TASKS._entries["fake"] = AloneTask if "alone" in sys.argv else TogetherTask
    sys.argv = [argument for argument in sys.argv if argument != "alone"]
    main()
    print(json.dumps("never"))
