"""C++ kernels, compiled into the user's cache on first use."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import warnings
from pathlib import Path

import torch

from spikebench.files import cache_root, replacing

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")


def load_kernels(source: Path, otherwise: str) -> ctypes.CDLL | None:
    """Load the functions of a C++ file; None, with a warning, if it cannot be compiled.

    Args:
        source: a C++ file whose functions are `extern "C"`.
        otherwise: what happens without it, for the warning.
    """
    try:
        return ctypes.CDLL(str(_compile(source)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
        warnings.warn(f"{otherwise}: no kernel: {reason}", stacklevel=3)
        return None


def _compile(source: Path) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        raise FileNotFoundError("neither g++ nor clang++ was found; install one or set CXX")
    # PyTorch's own OpenMP, so that both share one pool of threads
    openmp = sorted(Path(torch.__file__).parent.glob("lib/libgomp*.so*"))[:1]
    command = [compiler, *FLAGS, str(source), "-Wl,--as-needed", *map(str, openmp)]
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    key = hashlib.sha256()
    for part in (*command, version.stdout, torch.__version__, _processor(), source.read_text()):
        key.update(part.encode() + b"\0")
    root = cache_root()
    target = root / f"{source.stem}-{key.hexdigest()[:16]}.so"
    if not target.exists():
        with replacing(target) as built:
            subprocess.run([*command, "-o", str(built)], capture_output=True, text=True, check=True)
    return target


def _processor() -> str:
    """What `-march=native` depends on."""
    info = Path("/proc/cpuinfo")
    kinds = ("model name", "flags", "Features", "CPU part")
    lines = info.read_text().splitlines() if info.exists() else []
    return (
        "\n".join(sorted({line for line in lines if line.startswith(kinds)})) or platform.platform()
    )
