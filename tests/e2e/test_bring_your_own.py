"""The page for newcomers keeps its word: its commands lead from a package to a leaderboard row."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from spikebench.results import find_records
from tests import forkserver

pytest.importorskip("spikingjelly", reason="the package of the page has SpikingJelly's neurons")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "benchmark" / "spikebench" / "backbones" / "README.md"
COMMANDS = re.findall(r"```sh\n(.+?)\n```", PAGE.read_text(), re.DOTALL)
BACKBONE = "spiking_resnet_nano"


class Newcomer:
    """Types commands in a checkout, in an environment where pip needs no network.

    Args:
        folder: an empty one; the checkout lies in it.
        data: the data root.
    """

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.checkout = folder / "checkout"
        self.checkout.mkdir()
        for name in ("configs", "leaderboards", "tests"):
            (self.checkout / name).symlink_to(ROOT / name)
        programs = self._environment(folder / "environment")
        self.env = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "SPIKEBENCH_DATA": str(data),
            "SPIKEBENCH_NEURONS": "reference",
            "COLUMNS": "200",
            "FORKSERVER": str(forkserver.folder()),
        }

    @staticmethod
    def _environment(folder: Path) -> Path:
        """An environment that sees the packages of this one; its folder of programs."""
        builder = venv.EnvBuilder(symlinks=True)
        builder.create(folder)
        context = builder.ensure_directories(folder)
        (site,) = folder.glob("lib/python*/site-packages")
        outer = sysconfig.get_path("purelib")
        (site / "outer.pth").write_text(f"import site; site.addsitedir({outer!r})\n")
        programs = Path(context.bin_path)
        python = programs / "python"
        offline = "--no-index --no-deps --no-build-isolation --disable-pip-version-check"
        installed = Path(sys.executable).with_name("spikebench")
        forked = f'"{sys.executable}" -S "{forkserver.__file__}" call "{site}"'
        for name, line in (
            ("pip", f'"{python}" -m pip "$@" {offline}'),
            ("spikebench", f'{forked} "{installed}" "$@"'),
            ("forked-python", f'{forked} "{sys.executable}" "$@"'),
        ):
            (programs / name).write_text(f"#!/bin/sh\nexec {line}\n")
            (programs / name).chmod(0o755)
        return programs

    def types(self, command: str) -> str:
        """Run a command, which must succeed; what it printed."""
        done = subprocess.run(
            command, shell=True, cwd=self.checkout, env=self.env, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory, scenes_root: Path) -> Newcomer:
    """Somebody who has followed the page to its end, and what the commands printed."""
    return Newcomer(tmp_path_factory.mktemp("newcomer"), scenes_root)


@pytest.fixture(scope="module")
def printed(newcomer: Newcomer) -> list[str]:
    """What each command of the page printed."""
    return [newcomer.types(command) for command in COMMANDS]


def test_six_commands_lead_to_a_leaderboard_row(newcomer: Newcomer, printed: list[str]):
    assert [command.split()[0] for command in COMMANDS] == ["cp", "pip"] + ["spikebench"] * 4
    checked, counted, ran = printed[2:5]
    assert "FAILED" not in checked
    assert checked.count("passed") >= 12
    assert re.search(r"stages\.3\.0\.conv2\.conv +\S+ +binary", counted)
    assert "runs: 1 finished" in ran

    ((_, record),) = find_records(newcomer.checkout / "work_dirs")
    assert record.backbone.name == BACKBONE
    assert not record.partial
    assert record.metrics["top1"].value > 0.9

    page = (newcomer.folder / "my_leaderboard" / "index.html").read_text()
    row = re.search(rf'<tr[^>]*>\s*<th[^>]*data-value="{BACKBONE}".*?</tr>', page, re.DOTALL)
    assert row is not None
    assert f'data-value="{record.metrics["top1"].value}"' in row[0]
    assert f"#record-{record.key}" in row[0]
    assert 'data-value="meta_spikeformer_nano"' in page


def test_the_backbone_runs_in_detection_and_segmentation(newcomer: Newcomer, printed, helpers):
    assert BACKBONE in newcomer.types("spikebench list backbones")
    options = " ".join(helpers.few("detection", "segmentation"))
    lines = [
        f"- {{task: {task}, config: {newcomer.checkout}/{helpers.CONFIGS[task].relative_to(ROOT)}}}"
        for task in ("detection", "segmentation")
    ]
    suite = newcomer.checkout / "scenes.yaml"
    suite.write_text("\n".join(["name: scenes", f"backbones: [{BACKBONE}]", "tasks:", *lines]))
    newcomer.types(f"spikebench run scenes.yaml {options}")
    records = {r.task: r for _, r in find_records(newcomer.checkout / "work_dirs" / "scenes")}
    assert set(records) == {"detection", "segmentation"}
    for record in records.values():
        assert record.status == "finished"
        assert record.operations.firing_rates


def test_resnet18_is_one(newcomer: Newcomer, printed):
    """Its weights are as many as those of torchvision's."""
    code = (
        "from torchvision.models import resnet18; from spikebench import build_classifier;"
        "count = lambda model: sum(weight.numel() for weight in model.parameters());"
        "print(count(build_classifier('spiking_resnet18', 1000)), count(resnet18()))"
    )
    ours, theirs = newcomer.types(f'forked-python -c "{code}"').split()
    assert ours == theirs
