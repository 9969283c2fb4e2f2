"""What pip installs works far from a checkout, and an editable install copies nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from hatchling.build import build_editable, build_wheel

from spikebench.results import find_records

ROOT = Path(__file__).parents[2]
ASKED = [
    ("list",),
    ("list", "suites"),
    ("list", "configs", "detection/*"),
    ("run", "quickstart", "--dry-run"),
    ("reproduce", "architecture", "--rows", "meta_spikeformer_15m-backbone"),
    ("doctor",),
]
IN_ONE_PROCESS = """
import sys
from spikebench.cli import app
for line in sys.argv[1:]:
    print("$", line, flush=True)
    code = app(line.split(), standalone_mode=False)
    print("exit", code or 0, flush=True)
"""


class Installed:
    """A fresh environment, far from any checkout, into which pip has installed the wheel.

    It sees the other packages of this environment, which stands in for downloading them.
    """

    def __init__(self, folder: Path, wheel: Path, data: Path) -> None:
        self.folder = folder / "elsewhere"
        self.folder.mkdir()
        builder = venv.EnvBuilder(symlinks=True)
        builder.create(folder / "environment")
        self.programs = Path(builder.ensure_directories(folder / "environment").bin_path)
        pip = [sys.executable, "-m", "pip", "--python", str(self.programs / "python"), "install"]
        options = ["--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
        subprocess.run([*pip, *options, str(wheel)], check=True)
        (self.site,) = (folder / "environment").glob("lib/python*/site-packages")
        # as a plain path: its .pth files, and with them the editable spikebench, stay unread
        (self.site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.env = {**kept, "SPIKEBENCH_DATA": str(data), "COLUMNS": "200"}

    def run(
        self, program: str, *arguments: str, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return folder / build_wheel(str(folder))


@pytest.fixture(scope="module")
def installed(
    tmp_path_factory: pytest.TempPathFactory, wheel: Path, scenes_root: Path
) -> Installed:
    return Installed(tmp_path_factory.mktemp("wheel"), wheel, scenes_root)


@pytest.fixture(scope="module")
def answers(installed: Installed) -> dict[str, str]:
    """What each command of `ASKED` printed; one start of Python for all."""
    lines = [" ".join(words) for words in ASKED]
    printed = installed.run("python", "-c", IN_ONE_PROCESS, *lines).stdout
    parts = re.split(r"^\$ (.+)$", printed, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def names_in(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as opened:
        return set(opened.namelist())


def test_it_holds_nothing_that_others_may_have(wheel: Path):
    top = {name.partition("/")[0] for name in names_in(wheel)}
    info = {name for name in top if name.endswith(".dist-info")}
    assert len(info) == 1
    assert top - info == {
        "spikebench",
        "spikebench_tasks",
        "_spikebench_mmcv.py",
        "spikebench-mmcv.pth",
    }


def test_it_holds_every_configuration_table_and_record(wheel: Path):
    names = names_in(wheel)
    for folder in ("configs", "leaderboards/papers", "leaderboards/results"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".json"):
                assert f"spikebench/{path.relative_to(ROOT)}" in names
    assert not [name for name in names if "__pycache__" in name]


def test_it_says_whose_it_is_and_under_which_licence(wheel: Path):
    (path,) = (name for name in names_in(wheel) if name.endswith(".dist-info/METADATA"))
    with zipfile.ZipFile(wheel) as opened:
        about = Parser().parsestr(opened.read(path).decode())
        licence = opened.read(path.replace("METADATA", "licenses/LICENSE")).decode()
    assert about["License-Expression"] == "Apache-2.0"
    assert about["Author"] == "spikebench developers"
    assert "Apache License" in licence
    assert licence == (ROOT / "LICENSE").read_text()


def test_an_editable_install_copies_no_more_than_the_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(ROOT)
    names = names_in(tmp_path / build_editable(str(tmp_path)))
    assert {name for name in names if ".dist-info/" not in name} == {
        "_spikebench.pth",
        "spikebench-mmcv.pth",
    }


def test_every_command_ends_well(answers: dict[str, str]):
    assert list(answers) == [" ".join(words) for words in ASKED]
    for line, printed in answers.items():
        assert printed.rstrip().endswith("exit 0"), (line, printed)


def test_it_finds_what_it_brought(answers: dict[str, str], installed: Installed):
    assert "meta_spikeformer_15m" in answers["list"]
    assert "quickstart" in answers["list suites"]
    assert f"files: {installed.site}/spikebench/configs/suites" in answers["list suites"]
    assert "detection/mask_rcnn_digit_scenes" in answers["list configs detection/*"]


def test_a_suite_is_planned_from_its_name(answers: dict[str, str]):
    printed = answers["run quickstart --dry-run"]
    assert printed.count("to do") == 3
    assert "semantic_fpn_digit_scenes" in printed


def test_a_papers_table_is_reproduced(answers: dict[str, str], installed: Installed):
    (record,) = (installed.folder / "work_dirs" / "reproduce").glob("*.json")
    assert "meta_spikeformer_15m" in record.read_text()


def test_the_machine_is_examined(answers: dict[str, str]):
    assert "MISSING" not in answers["doctor"]
    assert "spikebench_tasks.detection.registered" in answers["doctor"]


@pytest.mark.slow
def test_the_quickstart_runs(installed: Installed, helpers):
    tasks = ("classification", "detection", "segmentation")
    done = installed.run("spikebench", "run", "quickstart", *helpers.few(*tasks), timeout=900)
    assert "3 finished" in done.stdout
    records = [record for _, record in find_records(installed.folder / "work_dirs/quickstart")]
    assert {record.task for record in records} == set(tasks)
    built = installed.run("spikebench", "leaderboard", "build", "--out", "page.html")
    assert "page.html" in built.stdout
