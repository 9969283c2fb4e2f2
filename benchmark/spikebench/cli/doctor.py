"""The verb that examines the machine: doctor."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import typer

from spikebench.cli.app import app, new_table, terminal

_LIBRARY_PACKAGES = {
    "libGL.so.1": "libgl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libgomp.so.1": "libgomp1",
    "libstdc++.so.6": "libstdc++6",
}
_PROGRAMS = (
    ("git", "git", "records then name the commit"),
    ("g++", "g++", "neurons and sparse convolutions are compiled with it, else slower"),
    ("chromium", "chromium chromium-driver", "the browser test needs it"),
    ("pdflatex", "texlive-latex-recommended", "the LaTeX test needs it"),
)


class Finding(NamedTuple):
    """One thing that was examined: whether it works, what was found, and the remedy if not."""

    subject: str
    ok: bool
    found: str
    remedy: str = ""


@app.command(epilog="Example: spikebench doctor")
def doctor() -> None:
    """Say what this machine has, what is missing, and which package to install for it.

    Exits with 1 if something is missing that a run needs.
    """
    from rich.markup import escape

    findings = examine()
    table = new_table("what", "", "found", "to do")
    for one in findings:
        state = "ok" if one.ok else "MISSING"
        table.add_row(one.subject, state, escape(one.found), escape(one.remedy))
    terminal().print(table)
    if not all(one.ok for one in findings):
        raise typer.Exit(1)


def examine() -> list[Finding]:
    """Examine packages, tasks, system libraries, devices and optional programs."""
    from spikebench.environment import OPTIONAL, REQUIRED, device_name, package_versions

    versions = package_versions()
    findings = [Finding("python", True, versions["python"])]
    findings += map(_package, REQUIRED)
    findings += [Finding(name, True, versions[name]) for name in OPTIONAL if name in versions]
    findings.append(_import("torchvision", "install the torchvision made for this torch"))
    findings += _tasks()
    torch = _import("torch", "install torch again")
    findings.append(
        Finding("device", True, device_name()) if torch.ok else torch._replace(subject="device")
    )
    if torch.ok:
        findings += _energy_meters()
    for program, package, use in _PROGRAMS:
        where = shutil.which(program)
        found = where or f"absent (optional): {use}; apt-get install {package}"
        findings.append(Finding(program, True, found))
    return findings


def _tasks() -> Iterator[Finding]:
    """Examine each registered task: its packages, and whether they can be imported."""
    from spikebench.errors import UserError
    from spikebench.registry import TASKS

    packages: dict[str, None] = {}
    modules: dict[str, None] = {}
    for name in TASKS.names():
        try:
            task = TASKS.get(name)()
        except UserError as error:
            yield Finding(f"task {name}", False, str(error), "see the message")
            continue
        packages |= dict.fromkeys(task.packages)
        modules |= dict.fromkeys(task.modules)
    yield from map(_package, packages)
    for module in modules:
        yield _import(module, "see the message")


def _package(names: str) -> Finding:
    """Look for an installed package, or for one of several: `"a|b"`."""
    for name in names.split("|"):
        try:
            return Finding(name, True, version(name))
        except PackageNotFoundError:
            continue
    first = names.partition("|")[0]
    return Finding(first, False, "not installed", f"pip install {first}")


def _energy_meters() -> list[Finding]:
    from spikebench.energy.meters import available_meters

    return [
        Finding(f"energy {name}", True, "measured" if reason is None else f"not measured: {reason}")
        for name, reason in available_meters().items()
    ]


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
