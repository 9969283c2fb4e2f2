"""`spikebench evaluate`: given weights scored, counted and recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from spikebench import build_classifier
from spikebench.cli import app
from spikebench.errors import UserError
from spikebench.files import sha256
from spikebench.registry import UnknownNameError
from spikebench.report import write_report
from spikebench.results import Record, find_records
from spikebench.task import ConfigError
from spikebench_tasks.classification.datasets.digits import DigitsDataModule

DIGITS = Path(__file__).parents[3] / "configs" / "classification" / "digits.py"
NANO, LIMIT = "meta_spikeformer_nano", 40

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random classifier with some accuracy of its own at each time step."""
    torch.manual_seed(0)
    model = build_classifier(NANO, 10, 3)
    torch.nn.init.normal_(model.head.weight)
    path = tmp_path_factory.mktemp("weights") / "nano.pth"
    torch.save(model.state_dict(), path)
    return path


def invoke(folder: Path, *arguments: str | Path) -> Result:
    words = ["evaluate", str(DIGITS), "--work-dir", str(folder), "--limit", str(LIMIT)]
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [*words, *map(str, arguments)])


def records(folder: Path) -> list[Record]:
    return [record for _, record in find_records(folder / "evaluate")]


def test_what_is_scored_is_recorded(weights: Path, tmp_path: Path):
    done = invoke(tmp_path, "--weights", weights, "--set", "model.time_steps=3")
    assert done.exit_code == 0, done.output
    (record,) = records(tmp_path)
    assert (record.status, record.partial) == ("finished", True)
    assert record.backbone_name == NANO
    assert record.config["load_from"] == {"file": "nano.pth", "sha256": sha256(weights)}
    assert "train" not in record.wall_time_s
    assert record.energy_mj
    top1 = record.metrics["top1"]
    assert f"{top1.value:.4f}" in done.output
    assert "{:.4f} to {:.4f}".format(*top1.interval) in done.output
    for steps, value in enumerate(record.by_time_steps["top1"], 1):
        assert f"T = {steps}" in done.output
        assert f"{value:.4f}" in done.output
    assert str(tmp_path) in done.output.replace("\n", "")
    assert write_report(tmp_path).tables


def test_one_pass_tells_the_accuracy_of_fewer_time_steps(weights: Path, tmp_path: Path):
    invoke(tmp_path, "--weights", weights, "--set", "model.time_steps=3")
    (record,) = records(tmp_path)
    data = DigitsDataModule(limit=LIMIT)
    data.setup("test")
    (batch,) = data.test_dataloader()
    images, labels = batch
    expected = []
    for steps in (1, 2, 3):
        model = build_classifier(NANO, 10, steps).eval()
        model.load_state_dict(torch.load(weights, weights_only=True))
        with torch.no_grad():
            expected.append((model(images).argmax(1) == labels).float().mean().item())
    assert record.by_time_steps["top1"] == pytest.approx(expected, abs=1e-6)
    assert record.metrics["top1"].value == pytest.approx(expected[-1], abs=1e-6)
    assert len(set(np.round(expected, 4))) > 1


def test_several_resolutions_are_a_record_each(weights: Path, tmp_path: Path):
    sizes_asked = ("--image-size", "32", "--image-size", "48")
    done = invoke(tmp_path, "--weights", weights, "--set", "model.time_steps=1", *sizes_asked)
    assert done.exit_code == 0, done.output
    sizes = {record.config["data"]["image_size"]: record for record in records(tmp_path)}
    assert sizes.keys() == {32, 48}
    assert sizes[48].operations.dense_macs > 2 * sizes[32].operations.dense_macs
    assert [line for line in done.output.splitlines() if line.startswith("resolution")] == [
        "resolution 32",
        "resolution 48",
    ]
    assert sizes[32].by_time_steps == {}  # of T = 1


class TestWrongRequests:
    def failed(self, folder: Path, *arguments: str | Path, kind: type = UserError) -> str:
        done = invoke(folder, *arguments)
        assert done.exit_code == 1
        assert isinstance(done.exception, kind), done.exception
        return str(done.exception)

    def test_weights_that_are_not_there(self, tmp_path: Path):
        said = self.failed(tmp_path, "--weights", tmp_path / "no.pth", kind=ConfigError)
        assert said == f"no such file of weights: {tmp_path / 'no.pth'}"

    def test_weights_of_another_model(self, tmp_path: Path):
        path = tmp_path / "other.pth"
        torch.save(build_classifier(NANO, 7).state_dict(), path)
        said = self.failed(tmp_path, "--weights", path)
        assert str(path) in said
        assert "head.weight" in said
        assert records(tmp_path) == []

    def test_a_configuration_of_no_task(self, weights: Path, tmp_path: Path):
        config = tmp_path / "digits.py"
        config.write_text(DIGITS.read_text())
        done = CliRunner().invoke(app, ["evaluate", str(config), "--weights", str(weights)])
        assert "is no task; say which it is with --task" in str(done.exception)

    def test_an_unknown_backbone(self, weights: Path, tmp_path: Path):
        said = self.failed(
            tmp_path, "--weights", weights, "--backbone", "meta_spikformer_nano", kind=UserError
        )
        assert NANO in said

    def test_an_unknown_task(self, weights: Path, tmp_path: Path):
        self.failed(tmp_path, "--weights", weights, "--task", "clasify", kind=UnknownNameError)
