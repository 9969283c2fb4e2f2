"""Peak memory of this process or of its accelerator."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class PeakMemory:
    """Where a peak is read from.

    On CUDA that is what tensors took of the device's memory. On a CPU it is the resident memory
    of the process, whose peak Linux can reset; elsewhere it is the peak since the process began.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cuda = device.type == "cuda"
        self.resettable = not self.cuda and _can_reset()

    @property
    def about(self) -> str:
        """What is measured, for a record."""
        if self.cuda:
            return "torch.cuda.max_memory_allocated over the measured batches"
        if self.resettable:
            return "peak resident memory of the process (VmHWM) over the measured batches"
        return "peak resident memory of the process (ru_maxrss) since it began, warm-up included"

    def reset(self) -> None:
        """Start a new measurement."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.resettable:
            _CLEAR.write_text("5")

    def peak(self) -> int:
        """Peak bytes since `reset`."""
        if self.cuda:
            return torch.cuda.max_memory_allocated(self.device)
        if self.resettable:
            return _status("VmHWM")
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def now(self) -> int | None:
        """Bytes in use, or None if the system does not report them."""
        if self.cuda:
            return torch.cuda.memory_allocated(self.device)
        return _status("VmRSS") if _STATUS.exists() else None

    def give_back(self) -> None:
        """Return cached memory to the system, so that other processes can use it."""
        if self.cuda:
            torch.cuda.empty_cache()
        elif trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc has it
            trim(0)


def _can_reset() -> bool:
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return "VmHWM" in _STATUS.read_text()


def _status(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise KeyError(f"{_STATUS} has no {field}")
