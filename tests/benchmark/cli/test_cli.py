from __future__ import annotations

import io
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from spikebench import cli
from spikebench.cli import runs
from spikebench.results import find_records
from tests import forkserver

ROOT = Path(__file__).parents[3]
QUICKSTART = str(ROOT / "configs" / "suites" / "quickstart.yaml")
COMMANDS = {
    (): "spiking",
    ("run",): "Run a suite",
    ("list",): "List the registered backbones",
    ("check",): "keeps the contract",
    ("check-data",): "Check the data",
    ("evaluate",): "Score weights on the test split",
    ("profile",): "Count the operations",
    ("audit",): "whether additions suffice",
    ("speed",): "Measure inference and training",
    ("reproduce",): "Put a published table beside",
    ("convert",): "published names are translated",
    ("export",): "Write the deploy form",
    ("report",): "Write a table per task",
    ("leaderboard",): "Build the leaderboard page",
    ("leaderboard", "build"): "self-contained HTML page",
    ("doctor",): "which package to install",
}


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def spikebench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Run the command in this process, and put back what it set."""
    logger = logging.getLogger("spikebench")
    before = logger.level, logger.propagate, list(logger.handlers)
    monkeypatch.setenv("SPIKEBENCH_DATA", os.environ.get("SPIKEBENCH_DATA", "data"))
    monkeypatch.setenv("GOMP_SPINCOUNT", os.environ.get("GOMP_SPINCOUNT", "10000"))

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["spikebench", *arguments])
        capsys.readouterr()
        try:
            cli.main()
            code: object = 0
        except SystemExit as end:
            code = end.code
        finally:
            logger.level, logger.propagate, logger.handlers = before[0], before[1], [*before[2]]
        out, err = capsys.readouterr()
        if isinstance(code, str):  # what Python makes of it
            code, err = 1, f"{err}{code}\n"
        assert isinstance(code, int | None)
        return Done(code or 0, out, err)

    return run


class TestHelp:
    @pytest.mark.parametrize(("command", "about"), COMMANDS.items(), ids=" ".join)
    def test_every_command_says_what_it_does_and_gives_an_example(
        self, spikebench, command: tuple[str, ...], about: str
    ):
        done = spikebench(*command, "--help")
        text = " ".join(done.out.split())
        assert done.code == 0
        assert about in text
        assert f"Example: spikebench {' '.join(command)}".strip() in text

    def test_no_command_was_forgotten(self):
        named = {name for command in COMMANDS for name in command}
        groups = [cli.app, runs.leaderboard]
        registered = {one.name for app in groups for one in app.registered_commands if one.name}
        registered |= {
            one.callback.__name__
            for app in groups
            for one in app.registered_commands
            if not one.name and one.callback
        }
        assert registered | {"leaderboard"} == named

    def test_an_example_is_a_command_that_exists(self, spikebench):
        """Options of the examples are known: a renamed one would exit with 2."""
        for command in COMMANDS:
            text = " ".join(spikebench(*command, "--help").out.split())
            example = re.search(r"Example: spikebench ([^│]*)", text)
            assert example is not None
            words = example[1].split()
            names = [word for word in words if word.startswith("--")]
            path = words[: 2 if words[0] == "leaderboard" else 1]
            assert all(name in spikebench(*path, "--help").out for name in names)

    def test_it_answers_at_once_and_imports_nothing_heavy(self):
        heavy = ("torch", "numpy", "lightning", "mmengine", "sklearn", "matplotlib", "pydantic")
        code = (
            "import sys; sys.argv = ['spikebench', '--help']\n"
            "from spikebench.cli import main\n"
            "try:\n    main()\n"
            f"finally:\n    print([n for n in {heavy} if n in sys.modules], file=sys.stderr)"
        )
        times = []
        for _ in range(2):  # the first may have to compile
            start = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            end = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime)
            assert done.returncode == 0
            assert done.stderr.strip() == "[]"
        assert min(times) < 1.0


WRONG = {  # what was typed, and what the one line says of it: the value, and what was meant
    ("check", "meta_spikeformer_nan"): ("'meta_spikeformer_nan'", "'meta_spikeformer_nano'"),
    ("profile", "nope"): ("'nope'", "meta_spikeformer_15m"),
    ("profile", "meta_spikeformer_nano", "--image-size", "30"): ("30x30", "16"),
    ("profile", "meta_spikeformer_nano", "--weights", "none.pth"): ("none.pth",),
    ("list", "backbone"): ("'backbone'", "'backbones'"),
    ("list", "suites", "quick"): ("'quick'", "'quickstart'"),
    ("run", "none.yaml"): ("none.yaml",),
    ("run", "quikstart"): ("'quikstart'", "'quickstart'"),
    ("evaluate", "imagnet", "--weights", "x.pth"): ("'imagnet'", "'imagenet'"),
    ("check-data", "faster_rcnn_bccd"): ("'faster_rcnn_bccd'", "'faster_rcnn_nano_bccd'"),
    ("run", QUICKSTART, "--set", "sedes=[1]"): ("'sedes'", "'seeds'"),
    ("run", QUICKSTART, "--set", "backbones=['nano']"): ("'nano'", "meta_spikeformer_nano"),
    ("run", QUICKSTART, "--set", "tasks.0.task=classify"): ("'classify'", "'classification'"),
    ("run", QUICKSTART, "--set", "detection.model.widht=1"): (
        "mask_rcnn_digit_scenes.py",
        "'model.widht'",
    ),
    ("run", QUICKSTART, "--set", "seeds"): ("'seeds'", "key.path=value"),
    ("run", QUICKSTART, "--work-dir", "/dev/null/x"): ("/dev/null/x/quickstart",),
    ("report", "none"): ("none",),
    ("report", "."): ("in .", "`spikebench run`"),
    ("leaderboard", "build", "none"): ("none",),
}


class TestAWrongRequest:
    @pytest.mark.parametrize(
        ("arguments", "said"), WRONG.items(), ids=[" ".join(each[-2:]) for each in WRONG]
    )
    def test_is_one_line(
        self,
        spikebench,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        arguments: tuple[str, ...],
        said: tuple[str, ...],
    ):
        monkeypatch.chdir(tmp_path)
        done = spikebench(*arguments)
        assert done.code == 1
        assert done.err.startswith("error: ")
        assert all(part in done.err for part in said)
        assert done.err.count("\n") == 1
        assert done.out == ""
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "arguments",
        [
            ("check", "nope"),
            ("run", QUICKSTART, "--dry-run", "--set", "segmentation.modle.neck=1"),
        ],
    )
    def test_a_process_says_no_more_than_that_line(self, arguments: tuple[str, ...]):
        command = [sys.executable, "-m", "spikebench", *arguments]
        done = forkserver.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stdout == ""
        assert re.fullmatch(r"error: unknown [^\n]+\n", done.stderr)

    @pytest.mark.parametrize(
        "arguments", [("run",), ("profile",), ("runn",), ("run", QUICKSTART, "--limit", "0")]
    )
    def test_a_wrong_usage_exits_with_2(self, spikebench, arguments: tuple[str, ...]):
        done = spikebench(*arguments)
        assert done.code == 2
        assert "Usage: " in done.err
        assert "Traceback" not in done.err

    def test_an_error_of_several_lines_becomes_one(
        self, spikebench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        path = tmp_path / "suite.yaml"
        path.write_text("name: demo\ntasks: [\n")
        done = spikebench("run", str(path))
        assert done.err.startswith(f"error: {path} is not YAML: ")
        assert done.err.count("\n") == 1


class TestList:
    def test_backbones_come_with_what_they_are(self, spikebench):
        done = spikebench("list")
        assert done.code == 0
        for name in ("15m", "31m", "55m", "nano"):
            assert f"meta_spikeformer_{name}" in done.out
        assert spikebench("list", "backbones").out == done.out

    def test_tasks_come_with_their_metrics(self, spikebench):
        out = spikebench("list", "tasks").out
        lines = {line.split()[0]: line for line in out.splitlines() if line.split()}
        assert "top1, top5" in lines["classification"]
        assert "box_map" in lines["detection"]
        assert "miou, macc, aacc" in lines["segmentation"]

    def test_names_are_filtered_by_a_pattern(self, spikebench):
        out = spikebench("list", "backbones", "meta_spikeformer_?5m").out
        assert "meta_spikeformer_15m" in out
        assert "meta_spikeformer_31m" not in out

    @pytest.mark.parametrize(
        ("what", "name", "about"),
        [
            ("suites", "quickstart", "one small spiking backbone"),
            ("configs", "classification/digits", "Handwritten digits"),
        ],
    )
    def test_what_is_shipped_comes_with_what_it_is(self, spikebench, what: str, name: str, about):
        done = spikebench("list", what)
        assert done.code == 0
        (line,) = (line for line in done.out.splitlines() if line.split()[:1] == [name])
        assert about in line


class TestProfile:
    def test_it_counts_every_operation(self, spikebench):
        done = spikebench(
            "profile", "meta_spikeformer_nano", "--image-size", "32", "--num-classes", "10"
        )
        assert done.code == 0
        assert "head" in done.out
        assert "matmul" in done.out
        assert "energy rate-45nm: " in done.out
        dense = re.search(r"dense MACs per image and time step: ([\d,]+)", done.out)
        assert dense is not None
        rows = re.findall(r"(\d+\.\d{3})  +\d\.\d{4}", done.out)
        assert sum(map(float, rows)) * 1e6 == pytest.approx(
            float(dense[1].replace(",", "")), abs=500 * len(rows)
        )

    def test_weights_are_those_of_a_file(self, spikebench, tmp_path: Path):
        import torch

        from spikebench import build_classifier

        model = build_classifier("meta_spikeformer_nano", 10)
        torch.save(model.state_dict(), tmp_path / "weights.pth")
        arguments = ("profile", "meta_spikeformer_nano", "--image-size", "32")
        weights = ("--weights", str(tmp_path / "weights.pth"))
        of_file = spikebench(*arguments, *weights)  # of 10 classes, and not of 1000
        assert of_file.code == 0
        assert f"parameters: {sum(p.numel() for p in model.parameters()):,}" in of_file.out
        misfit = spikebench("profile", "meta_spikeformer_15m", *arguments[2:], *weights)
        assert misfit.code == 1
        assert misfit.err.startswith(f"error: {tmp_path}/weights.pth do not fit Classifier")
        assert misfit.err.count("\n") == 1


class TestCheck:
    def test_a_backbone_that_keeps_the_contract_passes(self, spikebench):
        done = spikebench("check", "meta_spikeformer_nano")
        assert done.code == 0
        assert done.out.count("passed") > 3
        assert "FAILED" not in done.out

    def test_options_of_the_backbone_are_checked_too(self, spikebench):
        options = ("--set", "attention=sdsa1", "--set", "in_channels=2")
        assert spikebench("check", "meta_spikeformer_nano", *options).code == 0
        done = spikebench("profile", "meta_spikeformer_nano", "--set", "atention=sdsa1")
        assert done.code == 1
        assert "unexpected keyword argument 'atention'" in done.err

    def test_one_that_breaks_it_fails(self, spikebench, monkeypatch: pytest.MonkeyPatch):
        from torch import nn

        from spikebench.registry import BACKBONES

        def broken(time_steps: int = 1) -> nn.Module:
            return nn.Conv2d(3, 8, 3)

        monkeypatch.setitem(BACKBONES._entries, "broken", broken)
        done = spikebench("check", "broken")
        assert done.code == 1
        assert "FAILED" in done.out


class TestDoctor:
    def test_it_exits_with_what_it_found(self, spikebench, monkeypatch: pytest.MonkeyPatch):
        from spikebench.cli import doctor

        findings = [doctor.Finding("torch", True, "2.14")]
        monkeypatch.setattr(doctor, "examine", lambda: findings)
        done = spikebench("doctor")
        assert done.code == 0
        assert re.search(r"torch +ok +2\.14", done.out)
        findings.append(doctor.Finding("opencv", False, "ImportError", "apt-get install libgl1"))
        done = spikebench("doctor")
        assert done.code == 1
        assert re.search(r"opencv +MISSING +ImportError +apt-get install libgl1", done.out)


class TestDryRun:
    def test_it_prints_the_plan_and_creates_nothing(
        self, spikebench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.chdir(tmp_path)
        done = spikebench("run", QUICKSTART, "--dry-run", "--set", "seeds=[0,1]")
        assert done.code == 0
        assert len(re.findall(r"\b[0-9a-f]{12}\b", done.out)) == 6
        assert done.out.count("to do") == 6
        for name in ("classification", "detection", "segmentation", "semantic_fpn_digit_scenes"):
            assert done.out.count(name) >= 2
        assert list(tmp_path.iterdir()) == []

    def test_it_says_what_is_done(self, spikebench, fake_task, write_suite, tmp_path: Path):
        path, work = str(write_suite(seeds=[0, 1, 2, 3])), tmp_path / "work"
        fake_task.raises["train:1"] = ValueError("no")
        fake_task.raises["train:2"] = KeyboardInterrupt()
        spikebench("run", path, "--work-dir", str(work))
        out = spikebench("run", path, "--work-dir", str(work), "--dry-run").out
        states = [line.split()[5:] for line in out.splitlines() if " fake " in line]
        assert states == [["finished"], ["failed"], ["started"], ["to", "do"]]


class TestRun:
    def test_it_runs_writes_tables_and_exits_with_0(
        self, spikebench, fake_task, write_suite, tmp_path: Path
    ):
        work = tmp_path / "work"
        arguments = ("run", str(write_suite()), "--work-dir", str(work))
        done = spikebench(*arguments, "--set", "fake.lr=0.5", "--set", "seeds=[4]")
        assert done.code == 0
        assert "runs: 1 finished, 0 finished before, 0 failed" in done.out
        assert f"tables: {work / 'demo' / 'report' / 'report.md'}" in done.out
        assert "finished: score 0.6667" in done.err
        ((_, record),) = find_records(work)
        assert (record.seed, record.config["lr"], record.partial) == (4, 0.5, False)
        again = spikebench(*arguments, "--set", "fake.lr=0.5", "--set", "seeds=[4]")
        assert again.code == 0
        assert "runs: 0 finished, 1 finished before, 0 failed" in again.out

    def test_a_failed_run_makes_it_exit_with_1(
        self, spikebench, fake_task, write_suite, tmp_path: Path
    ):
        fake_task.raises["train:0"] = ValueError("odd kernel")
        done = spikebench(
            "run", str(write_suite(seeds=[0, 1])), "--work-dir", str(tmp_path / "work")
        )
        assert done.code == 1
        assert "runs: 1 finished, 0 finished before, 1 failed" in done.out
        assert "failed: ValueError: odd kernel" in done.err
        assert "Traceback" not in done.err + done.out

    def test_an_interruption_makes_it_exit_with_130(
        self, spikebench, fake_task, write_suite, tmp_path: Path
    ):
        fake_task.raises["train:1"] = KeyboardInterrupt()
        done = spikebench(
            "run", str(write_suite(seeds=[0, 1])), "--work-dir", str(tmp_path / "work")
        )
        assert done.code == 130
        last = done.err.splitlines()[-1]
        assert last == "interrupted: finished records are whole; run again to go on"
        assert "Traceback" not in done.err
        assert [record.seed for _, record in find_records(tmp_path / "work")] == [0]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interruption_that_a_library_hides_is_one(
        self,
        spikebench,
        fake_task,
        write_suite,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        number: signal.Signals,
    ):
        class Interrupted(io.BytesIO):
            def write(self, data):
                if self.tell() > 0:
                    signal.raise_signal(number)
                return super().write(data)

        hidden = []

        def train(self, run):
            try:
                torch.save({"weight": torch.zeros(4)}, Interrupted())
            except RuntimeError as error:
                hidden.append(error)
                raise

        monkeypatch.setattr(fake_task, "train", train)
        before = signal.getsignal(number)
        done = spikebench("run", str(write_suite()), "--work-dir", str(tmp_path / "work"))
        assert done.code == 130
        assert done.err.splitlines()[-1].startswith("interrupted: finished records are whole")
        assert [type(error.__context__) for error in hidden] == [KeyboardInterrupt]
        assert list(find_records(tmp_path / "work")) == []
        assert signal.getsignal(number) is before

    def test_a_limit_is_handed_on(self, spikebench, fake_task, write_suite, tmp_path: Path):
        work = tmp_path / "work"
        spikebench("run", str(write_suite()), "--work-dir", str(work), "--limit", "3")
        ((_, record),) = find_records(work)
        assert record.partial
        assert record.dataset.test_samples == 3

    def test_the_data_root_is_handed_on(
        self, spikebench, fake_task, write_suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        roots = []
        original = fake_task.train
        monkeypatch.setattr(
            fake_task,
            "train",
            lambda self, run: roots.append(run.data_root) or original(self, run),
            raising=False,
        )
        root = tmp_path / "data"
        spikebench(
            *("run", str(write_suite()), "--work-dir", str(tmp_path / "w")),
            *("--data-root", str(root)),
        )
        assert roots == [root]


class TestReportAndLeaderboard:
    def test_they_read_what_run_wrote(self, spikebench, fake_task, write_suite, tmp_path: Path):
        work = tmp_path / "work"
        spikebench("run", str(write_suite()), "--work-dir", str(work))
        done = spikebench("report", str(work / "demo"), "--out", str(tmp_path / "tables"))
        assert done.code == 0
        written = [Path(line) for line in done.out.splitlines() if line.startswith(str(tmp_path))]
        assert {path.suffix for path in written} == {".md", ".csv", ".tex"}
        assert all(path.is_file() for path in written)
        page = tmp_path / "page.html"
        done = spikebench("leaderboard", "build", str(work / "demo"), "--out", str(page))
        assert done.code == 0
        assert done.out.strip() == f"leaderboard: {page}"
        assert "<html" in page.read_text()

    @pytest.mark.parametrize("command", [("report",), ("leaderboard", "build")])
    def test_a_folder_that_cannot_be_written_is_named(
        self, spikebench, fake_task, write_suite, tmp_path: Path, command: tuple[str, ...]
    ):
        spikebench("run", str(write_suite()), "--work-dir", str(tmp_path / "work"))
        done = spikebench(*command, str(tmp_path / "work"), "--out", "/dev/null/tables")
        assert done.code == 1
        assert done.err.startswith("error: ")
        assert "/dev/null/tables" in done.err
        assert done.err.count("\n") == 1

    def test_a_truncated_record_is_named(self, spikebench, tmp_path: Path):
        path = tmp_path / "k0" / "record.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"key": "k0"})[:-3])
        done = spikebench("report", str(tmp_path))
        assert done.code == 1
        assert done.err.startswith(f"error: {path} is not a result record")
        assert done.err.count("\n") == 1
