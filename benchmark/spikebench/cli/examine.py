"""What this machine has, what is missing, and what to install."""

from __future__ import annotations

import importlib
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from spikebench.environment import PACKAGES, device_name, package_versions

_LIBRARY_PACKAGES = {
    "libGL.so.1": "libgl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libgomp.so.1": "libgomp1",
    "libstdc++.so.6": "libstdc++6",
}
_OPTIONAL = ("mmcv", "spikingjelly", "triton")
_REQUIRED = tuple(name for name in PACKAGES if name not in _OPTIONAL)


class Finding(NamedTuple):
    """One thing looked at: whether it is well, what was found, and what to do if not."""

    subject: str
    ok: bool
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at versions, imports, system libraries, devices and optional programs."""
    versions = package_versions()
    findings = [Finding("python", True, versions["python"])]
    for name in _REQUIRED:
        if name == "mmcv-lite" and name not in versions and "mmcv" in versions:
            findings.append(Finding("mmcv", True, versions["mmcv"]))
        elif name in versions:
            findings.append(Finding(name, True, versions[name]))
        else:
            findings.append(Finding(name, False, "not installed", f"pip install {name}"))
    findings.append(_opencv())
    findings.append(_import("torchvision", "install the torchvision made for this torch"))
    findings.append(_import("spikebench_tasks.detection.registered", "see the message"))
    findings.append(_import("spikebench_tasks.segmentation.registered", "see the message"))
    torch = _import("torch", "install torch again")
    findings.append(
        Finding("device", True, device_name()) if torch.ok else torch._replace(subject="device")
    )
    if torch.ok:
        findings.extend(_energy_meters())
    for program, package, use in (
        ("git", "git", "records then name the commit"),
        ("g++", "g++", "neurons and sparse convolutions are compiled with it, else slower"),
        ("chromium", "chromium chromium-driver", "the browser test needs it"),
        ("pdflatex", "texlive-latex-recommended", "the LaTeX test needs it"),
    ):
        where = shutil.which(program)
        found = where or f"absent (optional): {use}; apt-get install {package}"
        findings.append(Finding(program, True, found))
    return findings


def _energy_meters() -> list[Finding]:
    from spikebench.energy.meters import available_meters

    return [
        Finding(f"energy {name}", True, "measured" if reason is None else f"not measured: {reason}")
        for name, reason in available_meters().items()
    ]


def _opencv() -> Finding:
    for name in ("opencv-python-headless", "opencv-python"):
        try:
            found = f"{name} {version(name)}"
            break
        except PackageNotFoundError:
            found = "not installed"
    finding = _import("cv2", "pip install opencv-python-headless")
    return finding._replace(subject="opencv", found=found if finding.ok else finding.found)


def _import(name: str, remedy: str) -> Finding:
    """Try an import; a missing system library is named with the package that holds it."""
    try:
        importlib.import_module(name)
    except Exception as error:
        line = " ".join(str(error).split())
        for library, package in _LIBRARY_PACKAGES.items():
            if library in line:
                remedy = f"apt-get install {package}"
        return Finding(name, False, f"{type(error).__name__}: {line}", remedy)
    return Finding(name, True, "imports")
