"""C++ kernels, compiled when they are first needed, into the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from spikebench.files import cache_root, replacing

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")


def load_kernels(source: Path, otherwise: str, flags: Sequence[str] = FLAGS) -> ctypes.CDLL | None:
    """The compiled functions of a source file; None, with a warning, where there is no way.

    Args:
        source: a C++ file whose functions are `extern "C"`.
        otherwise: what happens without, as the warning says it.
        flags: of the compiler.
    """
    try:
        return ctypes.CDLL(str(_compile(source, flags)))
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[0]
        warnings.warn(f"{otherwise}, for no kernel: {reason}", stacklevel=3)
        return None


def _compile(source: Path, flags: Sequence[str]) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not compiler:
        raise FileNotFoundError("neither g++ nor clang++ was found; install one or set CXX")
    # PyTorch's own OpenMP, so that both share one pool of threads
    openmp = sorted(Path(torch.__file__).parent.glob("lib/libgomp*.so*"))[:1]
    command = [compiler, *flags, str(source), "-Wl,--as-needed", *map(str, openmp)]
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
