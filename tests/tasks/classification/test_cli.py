"""LightningCLI on the module and the data modules of classification."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from spikebench.registry import DATASETS, PluginError
from spikebench_tasks.classification.__main__ import main

pytest.importorskip("jsonargparse", reason="pip install 'spikebench[cli]'")

pytestmark = pytest.mark.filterwarnings("ignore")

SHORT = {
    "trainer": {
        "max_epochs": 1,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
    "model": {
        "backbone": "meta_spikeformer_nano",
        "time_steps": 2,
        "optimizer": {"opt": "sgd", "lr": 0.01},
    },
    "data": {"class_path": "DigitsDataModule", "init_args": {"batch_size": 8, "limit": 16}},
}


def test_all_arguments_are_printed_as_a_configuration(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--data=CIFAR10DataModule", "--model.backbone=sew", "--print_config"])
    assert not ended.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["backbone"] == "sew"
    assert printed["model"]["warmup"] == 0.1
    assert "num_classes" not in printed["model"]  # the data set's
    assert printed["data"]["class_path"].endswith(".CIFAR10DataModule")
    assert printed["data"]["init_args"]["padding"] == 4


def test_an_epoch_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "short.yaml"
    file.write_text(yaml.safe_dump(SHORT))
    main(["fit", "--config", str(file)])
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["global_step"] == 2
    assert saved["hyper_parameters"]["num_classes"] == 10
    assert saved["hyper_parameters"]["optimizer"]["opt"] == "sgd"


def test_classes_follow_from_the_data_and_time_steps_from_the_model():
    arguments = ["--data=NMNISTDataModule", "--model.backbone=meta_spikeformer_nano"]
    built = main([*arguments, "--model.time_steps=7", "--trainer.logger=False"], run=False)
    assert built.datamodule.time_steps == built.model.model.time_steps == 7
    assert built.model.num_classes == 10


def test_a_data_set_of_a_package_that_is_broken_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    names, get = DATASETS.names(), DATASETS.get

    def broken(name: str):
        if name == "broken":
            raise PluginError("data set 'broken' of package 'theirs' cannot be imported")
        return get(name)

    monkeypatch.setattr(DATASETS, "names", lambda: ["broken", *names])
    monkeypatch.setattr(DATASETS, "get", broken)
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--data=DigitsDataModule", "--model.backbone=sew", "--print_config"])
    assert not ended.value.code
    assert any("'theirs'" in message for message in caplog.messages)
