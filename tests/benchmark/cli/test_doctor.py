from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from spikebench import environment
from spikebench.cli import doctor
from spikebench.cli.doctor import Finding, examine
from spikebench.energy import meters
from spikebench.registry import TASKS, PluginError


@pytest.fixture
def break_import(monkeypatch: pytest.MonkeyPatch):
    """Let the import of a module fail, and every other one succeed without being done."""

    def fail(broken: str, error: Exception) -> None:
        def import_module(name: str):
            if name == broken:
                raise error

        monkeypatch.setattr(importlib, "import_module", import_module)

    return fail


def found() -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine()}


def test_here_all_is_well():
    findings = examine()
    assert [one for one in findings if not one.ok] == []
    subjects = {one.subject for one in findings}
    assert {"python", "torch", "lightning", "mmdet", "mmcv-lite", "device", "git"} <= subjects
    assert "spikebench_tasks.detection.registered" in subjects
    assert all(one.found for one in findings)


@pytest.mark.parametrize(
    ("library", "package"),
    [("libGL.so.1", "libgl1"), ("libgthread-2.0.so.0", "libglib2.0-0")],
)
def test_a_missing_system_library_is_named_with_its_package(
    break_import, library: str, package: str
):
    message = f"{library}: cannot open shared object file: No such file or directory"
    module = "spikebench_tasks.detection.registered"
    break_import(module, ImportError(message))
    finding = found()[module]
    assert not finding.ok
    assert finding.found == f"ImportError: {message}"
    assert finding.remedy == f"apt-get install {package}"


def test_a_torch_that_does_not_load_is_a_finding_and_no_crash(
    break_import, monkeypatch: pytest.MonkeyPatch
):
    break_import("torch", OSError("libgomp.so.1: cannot open shared object file"))
    monkeypatch.setattr(environment, "device_name", lambda: pytest.fail("asked torch"))
    monkeypatch.setattr(meters, "available_meters", lambda: pytest.fail("asked torch"))
    finding = found()["device"]
    assert not finding.ok
    assert finding.remedy == "apt-get install libgomp1"


def test_a_missing_package_is_named_with_what_to_do(break_import, monkeypatch: pytest.MonkeyPatch):
    def version(name: str) -> str:
        if name == "timm":
            raise PackageNotFoundError(name)
        return "1.0"

    break_import("", ImportError())
    monkeypatch.setattr(doctor, "version", version)
    findings = found()
    assert findings["timm"] == Finding("timm", False, "not installed", "pip install timm")
    assert findings["torch"].found == "1.0"


def test_a_compiled_mmcv_stands_for_mmcv_lite(break_import, monkeypatch: pytest.MonkeyPatch):
    def version(name: str) -> str:
        if name == "mmcv-lite":
            raise PackageNotFoundError(name)
        return "2.1.0"

    break_import("", ImportError())
    monkeypatch.setattr(doctor, "version", version)
    findings = found()
    assert findings["mmcv"] == Finding("mmcv", True, "2.1.0")
    assert "mmcv-lite" not in findings


def test_a_task_says_what_it_needs(break_import, fake_task, monkeypatch: pytest.MonkeyPatch):
    break_import("a_module_of_it", ImportError("no such module"))
    fake_task.packages = ("no-such-package|neither-this", "pytest")
    fake_task.modules = ("a_module_of_it",)
    findings = found()
    assert findings["no-such-package"].remedy == "pip install no-such-package"
    assert findings["pytest"].found == pytest.__version__
    assert findings["a_module_of_it"].found == "ImportError: no such module"


def test_a_broken_task_is_a_finding_and_the_others_are_examined(
    break_import, monkeypatch: pytest.MonkeyPatch
):
    def broken():
        raise PluginError("package 'other' cannot be imported")

    break_import("", ImportError())
    monkeypatch.setitem(TASKS._entries, "broken", broken)
    findings = found()
    assert not findings["task broken"].ok
    assert "'other'" in findings["task broken"].found
    assert findings["mmdet"].ok


def test_optional_programs_are_no_failure(break_import, monkeypatch: pytest.MonkeyPatch):
    break_import("", ImportError())
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    findings = found()
    assert findings["chromium"].ok
    assert "apt-get install chromium" in findings["chromium"].found


def test_energy_meters_are_named_and_a_missing_one_is_no_failure(
    break_import, monkeypatch: pytest.MonkeyPatch
):
    break_import("", ImportError())
    found_here = {"nvml:0": None, "rapl": "Zeus is not installed"}
    monkeypatch.setattr(meters, "available_meters", lambda: found_here)
    findings = found()
    assert findings["energy nvml:0"] == Finding("energy nvml:0", True, "measured")
    assert findings["energy rapl"] == Finding(
        "energy rapl", True, "not measured: Zeus is not installed"
    )


def test_on_a_bare_server_the_command_says_what_to_install_and_fails(tmp_path: Path):
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "from spikebench.cli import main; main()", "doctor"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "apt-get install libgl1" in done.stdout
    assert "MISSING" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
