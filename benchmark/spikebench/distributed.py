"""Several processes that do one run together, started by torchrun or by Slurm.

Status messages (what is finished, who failed) go through torch.distributed's key-value store, not
through collective operations: waiting has no time limit, signals get through, and a failure can be
reported whatever the other processes are doing. The process group that collective operations need
exists only inside a `group` block.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

from spikebench.errors import UserError
from spikebench.registry import unknown_name

LAUNCHERS = ("none", "pytorch", "slurm")

_PYTORCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_JOB_NODELIST")
_POLL_S = 0.1
_GRACE_S = 10.0  # between the first and the last of several processes that fail alike
_LINE_S = 3.0  # a process waits so long to see whether the main one says the same
_MEETING_TIMEOUT = timedelta(minutes=5)
_COLLECTIVE_TIMEOUT = timedelta(hours=12)  # scoring a large split takes one process long

_Value = TypeVar("_Value")


class ProcessError(UserError):
    """Another process of the job failed; the message says which one and of what."""


class Failure(NamedTuple):
    """Why a part of a job failed, and whether it failed in all processes, which can then go on."""

    reason: str
    together: bool


class Processes:
    """The processes of a job, as seen by one of them.

    Args:
        rank: number of this process; 0 is the main one, which writes and speaks.
        count: how many there are.
        local_rank: number of this process on its machine, and of its CUDA device there.
        store: the key-value store they share; None where there is one process only.
    """

    def __init__(
        self, rank: int = 0, count: int = 1, local_rank: int = 0, store: Any = None
    ) -> None:
        self.rank = rank
        self.count = count
        self.local_rank = local_rank
        self._store = store
        self._scope = "job"
        self._steps = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def begin(self, scope: str) -> None:
        """Begin a part of the job, under a name that no other part has.

        Messages belong to a part, so that processes are in step again after one left the part
        before early.
        """
        self._scope, self._steps = scope, 0

    def on_main(self, work: Callable[[], _Value]) -> _Value | None:
        """Run `work` in the main process while the others wait; they get None.

        Raises:
            ProcessError: it failed there, or another process failed.
        """
        key = self._next_key()
        if not self.is_main:
            self._wait(key)
            return None
        value = work()
        self._set(key, b"")
        return value

    def from_main(self, work: Callable[[], _Value]) -> _Value:
        """Run `work` in the main process and return its result in every process.

        Raises:
            ProcessError: it failed there, or another process failed.
        """
        key = self._next_key()
        if self.is_main:
            value = work()
            self._set(key, pickle.dumps(value))
            return value
        self._wait(key)
        return pickle.loads(self._store.get(key))

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block in the main process before the others, whether it fails or not."""
        key = self._next_key()
        if not self.is_main:
            self._wait(key)
        try:
            yield
        finally:
            if self.is_main:
                self._set(key, b"")

    @contextmanager
    def group(self) -> Iterator[None]:
        """A process group for collective operations: NCCL where there is CUDA, else Gloo.

        Raises:
            UserError: there are more processes on this machine than CUDA devices.
        """
        if self._store is None:
            yield
            return
        import torch
        from torch import distributed

        if torch.cuda.is_available():
            devices = torch.cuda.device_count()
            if self.local_rank >= devices:
                raise UserError(
                    f"process {self.rank} is number {self.local_rank} on its machine, which has "
                    f"{devices} CUDA devices; start at most {devices} there"
                )
            torch.cuda.set_device(self.local_rank)
        self._meet("ready")
        distributed.init_process_group(
            "nccl" if torch.cuda.is_available() else "gloo",
            store=distributed.PrefixStore(f"{self._scope}/group", self._store),
            rank=self.rank,
            world_size=self.count,
            timeout=_COLLECTIVE_TIMEOUT,
        )
        try:
            self._meet("joined")  # who fails at once would leave while others are still joining
            yield
            self._meet("done")
        except Exception as error:
            self._fails_first(_reason(error))  # without the group the others fail too, if waiting
            raise
        finally:
            distributed.destroy_process_group()

    def fail(self, reason: str) -> Failure:
        """Report this rank's failure and collect the others' status.

        If some did not fail, they are still in the middle of the part, and this process has to end
        so that they end too.
        """
        if self._store is None:
            return Failure(reason, together=True)
        first, why = self._fails_first(reason)
        self._set(f"{self._scope}/failed/{self.rank}", reason)
        everyone = [f"{self._scope}/failed/{rank}" for rank in range(self.count)]
        together = self._said(everyone, within=_GRACE_S)
        # one that fails because another did has an error of the network to tell
        own = first == self.rank or reason.startswith(why)
        return Failure(reason if own else f"process {first}: {why}", together)

    def _fails_first(self, reason: str) -> tuple[int, str]:
        """Return the rank that failed first in this part of the job, and its reason."""
        claim = f"{self.rank} {reason}"
        said = self._store.compare_set(f"{self._scope}/first", "", claim).decode()
        rank, _, why = said.partition(" ")
        return int(rank), why

    def _said(self, keys: Sequence[str], within: float) -> bool:
        deadline = time.monotonic() + within
        while not self._store.check(list(keys)):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _next_key(self) -> str:
        self._steps += 1
        return f"{self._scope}/{self._steps}"

    def _set(self, key: str, value: str | bytes) -> None:
        if self._store is not None:
            self._store.set(key, value)

    def _meet(self, name: str) -> None:
        """Wait until all processes are here."""
        self._set(f"{self._scope}/{name}/{self.rank}", "")
        for rank in range(self.count):
            self._wait(f"{self._scope}/{name}/{rank}")

    def _wait(self, key: str) -> None:
        """Wait for a key.

        Raises:
            ProcessError: a process failed that might have to set it.
        """
        while not self._store.check([key]):
            for rank in range(self.count):
                for failure in (f"{self._scope}/failed/{rank}", f"stopped/{rank}"):
                    if self._store.check([failure]):
                        reason = self._store.get(failure).decode()
                        raise ProcessError(f"process {rank} stopped: {reason}")
            time.sleep(_POLL_S)

    def _leave(self, error: BaseException | None) -> None:
        """Report that this process leaves the job; without an error, wait for the main one."""
        end = "left" if error is None else "stopped"
        with contextlib.suppress(RuntimeError):  # the store may have ended with the main process
            self._set(f"{end}/{self.rank}", "" if error is None else _reason(error))
            if error is None and self.is_main:
                self._said([f"gone/{rank}" for rank in range(1, self.count)], within=_LINE_S)
            elif error is None:
                while not (self._store.check(["left/0"]) or self._store.check(["stopped/0"])):
                    time.sleep(_POLL_S)
                self._set(f"gone/{self.rank}", "")

    def _says_main(self, error: UserError) -> bool:
        """Whether the main process ends with the same error, and will print it."""
        with contextlib.suppress(RuntimeError):
            if not self.is_main and self._said(["stopped/0"], within=_LINE_S):
                return self._store.get("stopped/0").decode() == _reason(error)
        return False


def _reason(error: BaseException) -> str:
    line = " ".join(str(error).split())
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line}"


_current = Processes()


def current() -> Processes:
    """The processes of the job that this process is in; one, unless in a `launched` block."""
    return _current


@contextmanager
def launched(launcher: str | None = None) -> Iterator[Processes]:
    """Join the other processes of the job while the block lasts.

    Args:
        launcher: who started the processes: "none" (there is one), "pytorch" (torchrun) or "slurm"
            (srun); None takes "pytorch" where torchrun's environment is there, else "none".

    Raises:
        UserError: the launcher is unknown, or did not start this process.
    """
    global _current
    given = _given(launcher)
    if given is None:
        yield _current
        return
    from torch.distributed import rendezvous

    os.environ.update(given)
    rank, count, local_rank = (int(given[name]) for name in _PYTORCH[:3])
    try:
        store, _, _ = next(rendezvous("env://", rank, count, timeout=_MEETING_TIMEOUT))
    except Exception as error:
        reason = " ".join(str(error).split())
        where = f"{given['MASTER_ADDR']}:{given['MASTER_PORT']}"
        raise UserError(
            f"process {rank} of {count} does not find the others at {where}: {reason}; see whether "
            "MASTER_ADDR and MASTER_PORT are of the first process's machine, and free there"
        ) from error
    before, _current = _current, Processes(rank, count, local_rank, store)
    if rank != 0:
        logging.getLogger("spikebench").setLevel(logging.CRITICAL)
    joined = _current
    try:
        yield joined
    except BaseException as error:
        joined._leave(error)
        if isinstance(error, UserError) and joined._says_main(error):
            raise SystemExit(1) from None
        raise
    else:
        joined._leave(None)
    finally:
        _current = before


def _given(launcher: str | None) -> Mapping[str, str] | None:
    """The environment that torchrun sets or would set; None for a single process."""
    if launcher is None:
        launcher = "pytorch" if all(name in os.environ for name in _PYTORCH) else "none"
    if launcher not in LAUNCHERS:
        raise unknown_name("launcher", launcher, LAUNCHERS)
    if launcher == "none":
        return None
    if launcher == "slurm":
        return _given_by_slurm()
    return _variables(_PYTORCH, "--launcher pytorch", "torchrun --nproc-per-node 2 -m spikebench")


def _given_by_slurm() -> Mapping[str, str]:
    found = _variables(_SLURM, "--launcher slurm", "srun --ntasks 2 --kill-on-bad-exit spikebench")
    nodes = os.environ.get("SLURM_STEP_NODELIST") or found["SLURM_JOB_NODELIST"]
    address = os.environ.get("MASTER_ADDR") or _first_node(nodes)
    # two jobs on one machine must not meet, nor two steps of a job
    job, step = (int(os.environ.get(f"SLURM_{name}_ID", "0")) for name in ("JOB", "STEP"))
    port = 20000 + (job + 97 * step) % 20000
    # with --gpus-per-task 1 each process sees one device, the first to it
    bound = os.environ.get("CUDA_VISIBLE_DEVICES", ",").count(",") == 0
    return {
        "RANK": found["SLURM_PROCID"],
        "WORLD_SIZE": found["SLURM_NTASKS"],
        "LOCAL_RANK": "0" if bound else found["SLURM_LOCALID"],
        "MASTER_ADDR": address,
        "MASTER_PORT": os.environ.get("MASTER_PORT") or str(port),
    }


def _first_node(nodes: str) -> str:
    """The first of Slurm's nodes, `node[03-07,11]` and the like."""
    if "[" not in nodes:
        return nodes.split(",")[0]
    if shutil.which("scontrol") is None:
        raise UserError(
            f"the nodes of this job are {nodes} and there is no scontrol to name the first; "
            "set MASTER_ADDR to it"
        )
    names = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
    )
    return names.stdout.split()[0]


def _variables(names: tuple[str, ...], option: str, example: str) -> dict[str, str]:
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise UserError(
            f"{option}: {', '.join(missing)} not in the environment; start it as: {example} run ..."
        )
    return {name: os.environ[name] for name in names}
