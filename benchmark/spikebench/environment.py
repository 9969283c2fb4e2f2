"""What a run ran on: versions, commit and device."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REQUIRED = ("spikebench", "torch", "torchvision", "timm", "numpy")
OPTIONAL = ("triton", "spikingjelly")


def package_versions(*more: str) -> dict[str, str]:
    """Return the versions of Python and of the installed packages that decide a result.

    Args:
        *more: further names than the core's own, such as `Task.packages`; `"a|b"` names two.
    """
    versions = {"python": platform.python_version()}
    for name in "|".join((*REQUIRED, *OPTIONAL, *more)).split("|"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


@lru_cache
def commit() -> str | None:
    """The commit of this project's checkout, "-dirty" where files differ from it, else None."""
    root = Path(__file__).parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


@lru_cache
def device_name() -> str:
    """The accelerator that torch will use, or the processor and its number of cores."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cores = torch.get_num_threads()
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {cores} threads"
