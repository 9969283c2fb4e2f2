"""What another installed package brings runs without another line of code."""

from __future__ import annotations

import subprocess
import sys

import pytest

from spikebench.results import find_records

TASKS = ("classification", "detection", "segmentation")


@pytest.fixture
def with_package(tmp_path, scenes_root, third_party_site, helpers):
    return helpers.Command(tmp_path, scenes_root, third_party_site)


@pytest.fixture
def installed(tmp_path, third_party_site, helpers):
    """The command as it is installed: it imports all it needs, and makes the embedded data."""
    return helpers.Command(tmp_path, tmp_path / "data", third_party_site, fresh=True)


def test_it_is_listed_and_keeps_the_contract(with_package):
    assert "tiny_spiking_convnet" in with_package("list", "backbones").stdout
    checked = with_package("check", "tiny_spiking_convnet")
    assert checked.returncode == 0, checked.stdout


def test_all_tasks_tables_and_page(installed, with_package, helpers):
    suite = installed.suite(*TASKS, backbone="tiny_spiking_convnet")
    done = installed("run", suite, *helpers.few(*TASKS))
    assert done.returncode == 0, done.stderr
    records = {record.task: record for _, record in find_records(with_package.folder / "work_dirs")}
    assert set(records) == set(TASKS)
    for record in records.values():
        assert record.status == "finished"
        assert record.partial
        assert record.dataset.test_samples == 16
        assert record.energy_mj["rate-45nm"] > 0
        assert record.operations.firing_rates
        assert record.packages["torch"]
    for task, part in (("detection", "roi_head"), ("segmentation", "decode_head")):
        names = [row.name for row in records[task].operations.rows]
        assert any(name.startswith("neck.") for name in names)
        assert any(part in name for name in names)
    for title in ("Accuracy", "Detection", "Segmentation", "Energy"):
        assert title in done.stdout
    tensorboard = with_package.folder / "work_dirs" / "trial" / "tensorboard"
    logged = {path.parent.name.partition("-")[0] for path in tensorboard.glob("*/events.*")}
    assert logged == set(TASKS)

    page = with_package("leaderboard", "build", "work_dirs/trial", "--out", "page")
    assert page.returncode == 0, page.stderr
    assert (with_package.folder / "page" / "index.html").exists()


def test_lightning_cli_finds_its_data_set(with_package):
    command = [sys.executable, "-m", "spikebench_tasks.classification", "fit"]
    process = with_package.popen(
        [*command, "--data=StripesDataModule", "--model.backbone=sew", "--print_config"],
        cwd=with_package.folder,
        env=with_package.env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "class_path: spikebench_tiny.stripes.StripesDataModule" in out


def test_one_of_each(with_package):
    """The package's neuron in its backbone, on its data set and in its task, on its chip."""
    folder = with_package.folder
    (folder / "stripes.py").write_text(
        "model = dict(backbone='tiny_spiking_convnet', time_steps=2, optimizer=dict(lr=0.01))\n"
        "data = dict(name='stripes', batch_size=8)\n"
        "trainer = dict(max_epochs=10, precision='32-true')\n"
    )
    (folder / "turn.json").write_text('{"steps": 100, "lr": 0.02}')
    (folder / "suite.yaml").write_text(
        "name: tiny\n"
        "backbones: [{name: tiny_spiking_convnet, arguments: {neuron: halving}}]\n"
        "tasks:\n"
        "  - {task: classification, config: stripes.py}\n"
        "  - {task: turn, config: turn.json}\n"
    )
    done = with_package("run", "suite.yaml")
    assert done.returncode == 0, done.stderr
    records = {record.task: record for _, record in find_records(folder / "work_dirs" / "tiny")}
    assert records.keys() == {"classification", "turn"}
    for record in records.values():
        assert record.status == "finished", record.error
        assert record.dataset.name == "stripes"
        assert (record.dataset.train_samples, record.dataset.test_samples) == (64, 32)
        assert record.backbone.arguments["neuron"] == "halving"
        assert record.energy_mj["tiny-chip"] > 0
        rates = [layer.rate for layer in record.operations.neurons]
        assert len(rates) >= 3
        assert any(0 < rate < 1 for rate in rates)
    assert records["classification"].metrics["top1"].value > 0.9
    assert records["turn"].metrics["error"].value < 20
    for title in ("Accuracy", "Turn", "tiny-chip"):
        assert title in done.stdout
