from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spikebench.registry import UnknownNameError
from spikebench.task import ConfigError
from spikebench_tasks.config import load_config, read_config
from tests.tasks.small import CONFIGS, PATHS, resolved

BASE = "lr = 0.1\nmodel = dict(type='Net', depths=[1, 2], size=(4, 8), act=None)\n"

TASKS = ("classification", "detection", "segmentation")
OURS = sorted(path for task in TASKS for path in (CONFIGS / task).glob("*.py"))
READ = {  # by MMEngine's Runner
    "model",
    *("train_cfg", "val_cfg", "test_cfg"),
    *("train_dataloader", "val_dataloader", "test_dataloader", "val_evaluator", "test_evaluator"),
    *("optim_wrapper", "param_scheduler", "auto_scale_lr", "sync_bn"),
    *("default_hooks", "log_processor", "default_scope", "custom_imports"),
    *("custom_hooks", "env_cfg", "load_from", "log_level"),
}


@pytest.fixture
def write(tmp_path: Path):
    def put(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return put


def is_plain(value: object) -> bool:
    if type(value) is dict:
        return all(type(key) is str and is_plain(one) for key, one in value.items())
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def test_what_comes_back_is_plain_data(write):
    resolved = load_config(write(BASE), [])
    assert resolved == {
        "lr": 0.1,
        "model": {"type": "Net", "depths": [1, 2], "size": (4, 8), "act": None},
    }
    assert is_plain(resolved)


def test_a_base_is_read_and_changed(write):
    write(BASE, "base.py")
    path = write("_base_ = './base.py'\nmodel = dict(act='relu', size=(2, 2))\nextra = 1\n")
    assert load_config(path, []) == {
        "lr": 0.1,
        "model": {"type": "Net", "depths": [1, 2], "size": (2, 2), "act": "relu"},
        "extra": 1,
    }


def test_other_formats_are_read(write):
    assert load_config(write("lr: 0.1\nmodel: {depths: [1]}\n", "a.yaml"), []) == {
        "lr": 0.1,
        "model": {"depths": [1]},
    }
    assert load_config(write('{"lr": 0.1}', "a.json"), ["lr=1"]) == {"lr": 1}


def test_overrides_are_applied_in_their_order(write):
    overrides = ["model.depths.1=7", "lr=1", "+model.new=(1, 2)", "model.new.0=x", "lr=2"]
    with pytest.raises(ConfigError):  # a tuple stays a tuple: it holds no keys
        load_config(write(BASE), overrides)
    overrides.remove("model.new.0=x")
    resolved = load_config(write(BASE), overrides)
    assert resolved["model"]["depths"] == [1, 7]
    assert resolved["model"]["new"] == (1, 2)
    assert resolved["lr"] == 2


def test_a_misspelt_key_names_the_file(write):
    with pytest.raises(UnknownNameError, match="unknown key of mine.py 'model.depth'; did you"):
        load_config(write(BASE), ["model.depth=1"])


def test_a_value_that_is_used_twice_is_changed_once(write):
    path = write("norm = dict(type='BN')\nmodel = dict(a=dict(norm=norm), b=dict(norm=norm))\n")
    resolved = load_config(path, ["model.a.norm.type=GN"])
    assert resolved["model"] == {"a": {"norm": {"type": "GN"}}, "b": {"norm": {"type": "BN"}}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("model = dict(", "SyntaxError"),
        ("model = undefined\n", "NameError"),
        ("_base_ = './none.py'\n", "FileNotFoundError"),
        ("raise ValueError('two\\nlines')\n", "ValueError: two lines"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(write, text: str, reason: str):
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, [])
    assert str(caught.value).startswith(f"{path} cannot be read: {reason}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=f"no such configuration: {tmp_path}/none.py"):
        load_config(tmp_path / "none.py", [])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_no_one_reads_is_dropped(path: Path):
    _, config = resolved(path)
    assert is_plain(config)
    assert config.keys() <= READ


@pytest.mark.parametrize("name", ["width", "dataset_type"])  # of the file, of the one it inherits
def test_a_helper_of_a_file_is_no_key_to_override(name: str):
    path = CONFIGS / "detection" / "mask_rcnn_nano_nuclei.py"
    assert name in read_config(path)
    with pytest.raises(UnknownNameError, match=name):
        resolved(path, f"{name}=3")


def test_reading_one_needs_neither_torch_nor_a_framework():
    code = (
        "import sys; from pathlib import Path; from spikebench_tasks.config import load_config\n"
        "for path in sys.argv[1:]: load_config(Path(path), [])\n"
        "print([n for n in ('torch', 'lightning', 'mmdet', 'mmseg', 'mmcv') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, OURS)], capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
