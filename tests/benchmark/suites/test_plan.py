from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spikebench.files import sha256
from spikebench.suites.plan import plan, recorded_config
from spikebench.task import ConfigError, ConfigPath

WriteSuite = Callable[..., Path]
ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "configs" / "suites" / "quickstart.yaml"

pytestmark = pytest.mark.usefixtures("fake_task")


def keys(path: Path, *overrides: str, **options) -> list[str]:
    _, runs = plan(path, Path("work"), overrides, **options)
    return [run.key for run, _ in runs]


class TestBaseline:
    CONFIG = ROOT / "configs" / "segmentation" / "semantic_fpn_resnet18_ade20k.py"

    def suite(self, write_suite: WriteSuite, **entry: str) -> Path:
        return write_suite(tasks=[{"task": "segmentation", "config": str(self.CONFIG), **entry}])

    def test_a_configuration_with_a_backbone_of_its_own_runs_once(self, write_suite: WriteSuite):
        _, runs = plan(self.suite(write_suite, backbone="resnet18"), Path("work"))
        ((run, _),) = runs
        assert run.backbone == "resnet18"
        assert run.config["model"]["backbone"]["depth"] == 18

    def test_no_registered_backbone_is_put_into_it(self, write_suite: WriteSuite):
        with pytest.raises(ConfigError, match="'ResNet'.*backbone: resnet"):
            plan(self.suite(write_suite), Path("work"))
        with pytest.raises(ConfigError, match="not 'SpikingBackbone'"):
            plan(self.suite(write_suite, backbone="meta_spikeformer_nano"), Path("work"))


class TestPlan:
    def test_every_backbone_runs_every_task_with_every_seed(self, write_suite: WriteSuite):
        names = ["meta_spikeformer_nano", "meta_spikeformer_15m"]
        path = write_suite(backbones=names, seeds=[0, 7])
        suite, runs = plan(path, Path("work"), limit=5)
        assert [(run.backbone, run.seed) for run, _ in runs] == [
            (name, seed) for name in names for seed in (0, 7)
        ]
        assert len({run.key for run, _ in runs}) == 4
        assert suite.name == "demo"
        for run, _ in runs:
            assert run.folder == Path("work") / "demo" / run.key
            assert run.tensorboard.parent == Path("work") / "demo" / "tensorboard"
            assert run.key in run.tensorboard.name
            assert (run.task, run.protocol, run.limit) == ("fake", "toy", 5)
            assert run.config["backbone"] == run.backbone
            assert run.title == f"fake/{run.backbone}/toy/seed{run.seed}"

    def test_nothing_is_written(self, write_suite: WriteSuite, tmp_path: Path):
        path = write_suite()
        before = sorted(tmp_path.rglob("*"))
        plan(path, tmp_path / "work")
        assert sorted(tmp_path.rglob("*")) == before


class TestKey:
    @pytest.mark.parametrize(("name", "value"), [("data_root", "/d"), ("devices", 2)])
    def test_where_it_runs_does_not_matter(self, write_suite: WriteSuite, name: str, value: object):
        plain = keys(write_suite({"lr": 1, "loader": [{"size": 8}]}))
        deep = keys(write_suite({"lr": 1, "loader": [{"size": 8, name: value}]}))
        top = keys(write_suite({"lr": 1, "loader": [{"size": 8}], name: value}))
        assert plain == deep == top

    def test_where_it_lies_does_not_matter(self, write_suite: WriteSuite):
        path = write_suite()
        (here,), (there,) = plan(path, Path("here"))[1], plan(path, Path("/there"))[1]
        assert here[0].key == there[0].key
        assert here[0].folder != there[0].folder
        assert keys(path) == keys(path, "name=other")

    def test_other_runs_of_the_suite_do_not_matter(self, write_suite: WriteSuite):
        (alone,) = keys(write_suite())
        assert keys(write_suite(seeds=[5, 0]))[1] == alone

    def test_the_data_root_does_not_matter(
        self, write_suite: WriteSuite, monkeypatch: pytest.MonkeyPatch
    ):
        def found(**given: Path) -> tuple[str, Path]:
            ((run, _),) = plan(path, Path("work"), **given)[1]
            return run.key, run.data_root

        path = write_suite()
        monkeypatch.delenv("SPIKEBENCH_DATA", raising=False)
        (key, default), given = found(), found(data_root=Path("/given"))
        monkeypatch.setenv("SPIKEBENCH_DATA", "/elsewhere")
        environment = found()
        assert given == (key, Path("/given"))
        assert environment == (key, Path("/elsewhere"))
        assert default == Path("data")

    @pytest.mark.parametrize(
        "override", ["seeds=[1]", "fake.lr=0.2", "+fake.new=None", "profile_images=3"]
    )
    def test_what_is_measured_matters(self, write_suite: WriteSuite, override: str):
        path = write_suite()
        assert keys(path) != keys(path, override)

    def test_backbone_arguments_and_limit_matter(self, write_suite: WriteSuite):
        plain = keys(write_suite())
        wide = {"name": "meta_spikeformer_nano", "arguments": {"dims": [8, 16]}}
        seen = [
            plain,
            keys(write_suite(backbones=["meta_spikeformer_15m"])),
            keys(write_suite(backbones=[wide])),
            keys(write_suite(), limit=1),
            keys(write_suite(), limit=2),
        ]
        assert len({key for (key,) in seen}) == len(seen)

    def test_every_value_of_a_real_configuration_matters(self):
        before = keys(QUICKSTART)
        after = keys(
            QUICKSTART,
            "classification.model.optimizer.lr=0.123",
            "detection.model.rpn_head.anchor_generator.scales.0=77",
            "segmentation.train_dataloader.batch_size=77",
        )
        assert len({*before, *after}) == 6
        same = keys(
            QUICKSTART,
            "classification.data.num_workers=2",
            "detection.train_dataloader.num_workers=2",
            "segmentation.test_dataloader.num_workers=2",
        )
        assert same == before

    @pytest.mark.parametrize("place", [("start",), ("parts", 1, "start")])
    def test_initial_weights_count_by_what_they_hold(
        self, write_suite: WriteSuite, tmp_path: Path, place: ConfigPath
    ):
        other = tmp_path / "other"
        other.write_bytes(b"other")

        def key(name: str, content: bytes) -> str:
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            parts = [{"start": str(other)}, {"start": str(path)}]
            config = {"start": str(path)} if place == ("start",) else {"parts": parts}
            (found,) = keys(write_suite(config))
            return found

        here = key("a", b"one")
        assert key("elsewhere/b", b"one") == here
        assert key("a", b"two") != here

    def test_what_the_task_calls_no_weights_counts_as_it_stands(self, write_suite: WriteSuite):
        plain = keys(write_suite({"a": {"start": "here"}}))
        assert plain == keys(write_suite({"a": {"start": "here"}}))
        assert plain != keys(write_suite({"a": {"start": "there"}}))

    @pytest.mark.parametrize(
        ("config", "place"),
        [({"start": "gone"}, "start"), ({"parts": [{"start": "gone"}]}, r"parts\.0\.start")],
    )
    def test_initial_weights_that_are_not_there_are_named(
        self, write_suite: WriteSuite, config: dict, place: str
    ):
        with pytest.raises(ConfigError, match=rf"toy\.json: {place} is 'gone'"):
            keys(write_suite(config))

    def test_the_configuration_of_a_run_is_left_as_it_was(
        self, write_suite: WriteSuite, tmp_path: Path
    ):
        path = tmp_path / "weights"
        path.write_bytes(b"one")
        suite = write_suite({"parts": [{"start": str(path)}]})
        ((run, task),) = plan(suite, tmp_path)[1]
        assert run.config["parts"] == [{"start": str(path)}]
        (part,) = recorded_config(task, run.config)["parts"]
        assert part["start"] == {"file": "weights", "sha256": sha256(path)}
        assert run.config["parts"] == [{"start": str(path)}]

    def test_another_process_finds_the_same(self):
        code = (
            "import json, sys; from pathlib import Path; from spikebench.suites.plan import plan;"
            "print(json.dumps([run.key for run, _ in plan(Path(sys.argv[1]), Path('w'))[1]]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(QUICKSTART)],
            env={**os.environ, "PYTHONHASHSEED": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == keys(QUICKSTART)
