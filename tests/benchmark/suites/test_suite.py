from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spikebench.errors import UserError
from spikebench.registry import UnknownNameError
from spikebench.suites.suite import load_suite, plan
from spikebench.task import ConfigError

WriteSuite = Callable[..., Path]
ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "configs" / "suites" / "quickstart.yaml"

pytestmark = pytest.mark.usefixtures("fake_task")


def keys(path: Path, *overrides: str, **options) -> list[str]:
    _, runs = plan(path, Path("work"), overrides, **options)
    return [run.key for run, _ in runs]


class TestLoadSuite:
    def test_what_is_left_out_has_a_default(self, write_suite: WriteSuite):
        suite, of_tasks = load_suite(write_suite())
        assert suite.seeds == [0]
        assert suite.profile_images == 64
        assert suite.backbones[0].name == "meta_spikeformer_nano"
        assert suite.backbones[0].arguments == {}
        assert of_tasks == {"fake": []}

    def test_a_backbone_may_have_arguments(self, write_suite: WriteSuite):
        entry = {"name": "meta_spikeformer_nano", "arguments": {"dims": [1, 2]}}
        suite, _ = load_suite(write_suite(backbones=[entry]))
        assert suite.backbones[0].model_dump() == entry

    @pytest.mark.parametrize(
        ("override", "key", "value"),
        [
            ("seeds=[3, 4]", "seeds", [3, 4]),
            ("profile_images=2", "profile_images", 2),
            ("name=other", "name", "other"),
            ("seeds.0=9", "seeds", [9, 1]),
        ],
    )
    def test_a_key_of_the_suite_is_overridden(
        self, write_suite: WriteSuite, override: str, key: str, value: object
    ):
        suite, of_tasks = load_suite(write_suite(seeds=[0, 1]), [override])
        assert getattr(suite, key) == value
        assert of_tasks == {"fake": []}

    def test_an_override_of_a_task_goes_to_its_configurations(self, write_suite: WriteSuite):
        overrides = ["fake.lr=0.5", "+fake.model.new=1=2", "seeds=[1]"]
        suite, of_tasks = load_suite(write_suite(), overrides)
        assert of_tasks == {"fake": ["lr=0.5", "+model.new=1=2"]}
        assert suite.seeds == [1]

    def test_a_task_may_have_seeds_of_its_own(self, write_suite: WriteSuite, tmp_path: Path):
        entries = [
            {"task": "fake", "config": "toy.json"},
            {"task": "fake", "config": "toy.json", "seeds": [7]},
        ]
        _, runs = plan(write_suite(tasks=entries, seeds=[0, 1]), tmp_path)
        assert [run.seed for run, _ in runs] == [0, 1, 7]


WRONG_OVERRIDES = {
    "sedes=[1]": "unknown override 'sedes'; did you mean 'seeds'?",
    "fkae.lr=1": "unknown override 'fkae.lr'; did you mean 'fake.lr'?",
    "fake=1": "unknown override 'fake'; did you mean 'fake.'",
    "lr=1": "unknown override 'lr'; known: backbones, fake., name, profile_images, seeds, tasks",
    "fake.rl=1": "unknown key of toy.json 'rl'; did you mean 'lr'",
    "seeds": "override 'seeds'; expected key.path=value",
    "seeds=abc": "seeds: Input should be a valid list",
    "seeds=[]": "seeds: List should have at least 1 item",
    "seeds=[a]": "seeds.0: Input should be a valid integer",
    "seeds=[0.5]": "seeds.0: Input should be a valid integer",
    "seeds.4=1": "suite.yaml: '4' in override 'seeds.4'; expected an index below 2",
    "profile_images=0": "profile_images: Input should be greater than or equal to 1",
    "name=a/b": "name: String should match pattern",
    "backbones=[meta]": "unknown backbone 'meta'; known: meta_spikeformer_15m",
    "backbones=['meta_spikeformer_nan']": "'meta_spikeformer_nan'; did you mean 'meta_spikeformer_",
    "tasks.0.task=fkae": "unknown task 'fkae'; did you mean 'fake'?",
    "fake.lr=1j": "toy.json is not plain data: Object of type complex",
}


class TestWhatIsWrong:
    @pytest.mark.parametrize(("override", "message"), WRONG_OVERRIDES.items())
    def test_a_wrong_override_is_one_line(
        self, write_suite: WriteSuite, override: str, message: str
    ):
        path = write_suite(seeds=[0, 1])
        with pytest.raises(UserError) as caught:
            keys(path, override)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"seed": [1]}, "unknown key of suite.yaml 'seed'; did you mean 'seeds'?"),
            ({"backbones": ["resnet"]}, "unknown backbone 'resnet'; known: meta_spikeformer_15m"),
            ({"backbones": []}, "tasks: Value error, some have no backbone of their own"),
            ({"backbones": 3}, "backbones: Input should be a valid list"),
            ({"backbones": [{"nam": "x"}]}, "backbones.0.name: Field required"),
            ({"tasks": None}, "tasks: Input should be a valid list"),
            ({"tasks": ["fake"]}, "tasks.0: Input should be a valid dictionary"),
            ({"tasks": [{"task": "fake"}]}, "tasks.0.config: Field required"),
            (
                {"tasks": [{"task": "detektion", "config": "toy.json"}]},
                "unknown task 'detektion'; did you mean 'detection'",
            ),
            ({"seeds": "0"}, "seeds: Input should be a valid list"),
            ({"name": "../up"}, "name: String should match pattern"),
        ],
    )
    def test_a_wrong_suite_is_one_line(self, write_suite: WriteSuite, change: dict, message: str):
        path = write_suite(**change)
        with pytest.raises(UserError) as caught:
            keys(path)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"name: [", "is not YAML: while parsing"),
            (b"name: a\nname: b", "is not YAML: the key 'name' comes twice"),
            (b"\xff\xfe\x00", "is not YAML: "),
            (b"- a\n- b\n", "holds a list; expected the keys of a suite"),
            (b"", "holds a NoneType; expected the keys of a suite"),
            (b"name: demo\nbackbones: [meta_spikeformer_nano]\n", "tasks: Field required"),
        ],
    )
    def test_a_file_that_is_no_suite_is_named(self, tmp_path: Path, content: bytes, message: str):
        path = tmp_path / "suite.yaml"
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load_suite(path)
        assert str(caught.value).startswith(str(path))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["none.yaml", "."])
    def test_a_missing_suite_is_named(self, tmp_path: Path, name: str):
        with pytest.raises(ConfigError, match="no such suite: "):
            load_suite(tmp_path / name)

    @pytest.mark.parametrize(
        "override", ["detection.max_epochs=1", "segmentation.width=8", "detection.norm_cfg.type=GN"]
    )
    def test_an_override_that_would_have_no_effect_is_an_error(self, override: str):
        with pytest.raises(UnknownNameError, match="unknown key of"):
            keys(QUICKSTART, override)

    def test_a_configuration_of_another_task_is_refused(self):
        with pytest.raises(ConfigError, match=r"digits\.py: model\.backbone is 'meta_spik"):
            keys(QUICKSTART, "tasks.0.task=segmentation")
        with pytest.raises(ConfigError, match="'data' is missing; a classification needs it"):
            keys(QUICKSTART, "tasks.1.task=classification")

    def test_a_task_that_an_override_brought_in_runs(self, write_suite: WriteSuite):
        config = ROOT / "configs" / "segmentation" / "semantic_fpn_digit_scenes.py"
        entry = f"{{'task': 'segmentation', 'config': '{config}'}}"
        (key,) = keys(write_suite(), f"tasks=[{entry}]", "profile_images=64")
        assert key in keys(QUICKSTART)


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
        with pytest.raises(ConfigError, match="'ResNet', not 'SpikingBackbone'.* backbone: resnet"):
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


PATHS_AND_DEVICES = {
    "accelerator": "gpu",
    "cache_dir": "/c",
    "data_root": "/d",
    "device": "cuda:1",
    "devices": 2,
    "launcher": "slurm",
    "num_workers": 9,
    "persistent_workers": True,
    "pin_memory": True,
    "work_dir": "/w",
}


class TestKey:
    @pytest.mark.parametrize(("name", "value"), PATHS_AND_DEVICES.items())
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

    def test_the_data_root_of_the_environment_does_not_matter(
        self, monkeypatch: pytest.MonkeyPatch
    ):
        before = keys(QUICKSTART)
        monkeypatch.setenv("SPIKEBENCH_DATA", "/elsewhere")
        assert keys(QUICKSTART) == before

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

    def test_initial_weights_count_by_what_they_hold(self, write_suite: WriteSuite, tmp_path: Path):
        def key(name: str, content: bytes, place: str = "load_from") -> str:
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            described = {
                "load_from": {"load_from": str(path)},
                "init_cfg": {
                    "model": [{"init_cfg": {"type": "Pretrained", "checkpoint": str(path)}}]
                },
                "list": {"init_cfg": [{"type": "Kaiming"}, {"checkpoint": str(path)}]},
            }[place]
            (found,) = keys(write_suite(described))
            return found

        for place in ("load_from", "init_cfg", "list"):
            here = key("a.pth", b"one", place)
            assert key("elsewhere/b.pth", b"one", place) == here
            assert key("a.pth", b"other", place) != here
        assert len({key("a.pth", b"one", place) for place in ("load_from", "init_cfg")}) == 2

    def test_without_initial_weights_nothing_changes(self, write_suite: WriteSuite):
        plain = keys(write_suite({"load_from": None, "a": {"checkpoint": "here"}}))
        assert plain == keys(write_suite({"load_from": None, "a": {"checkpoint": "here"}}))
        assert plain != keys(write_suite({"load_from": None, "a": {"checkpoint": "there"}}))

    def test_what_is_downloaded_counts_by_its_name(self, write_suite: WriteSuite):
        found = [
            keys(write_suite({"init_cfg": {"checkpoint": f"torchvision://resnet{depth}"}}))
            for depth in (18, 50, 18)
        ]
        assert found[0] == found[2] != found[1]

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ({"load_from": "gone.pth"}, "load_from is 'gone.pth'; there is no such file"),
            ({"load_from": "https://a.b/c.pth"}, "load_from is 'https://a.b/c.pth'; there is no "),
            (
                {"model": {"init_cfg": {"checkpoint": "gone.pth"}}},
                "init_cfg.checkpoint is 'gone.pth'; there is no such file",
            ),
        ],
    )
    def test_initial_weights_that_are_not_there_are_named(
        self, write_suite: WriteSuite, config: dict, message: str
    ):
        with pytest.raises(ConfigError, match=rf"toy\.json: {message}"):
            keys(write_suite(config))

    def test_another_process_finds_the_same(self):
        code = (
            "import json, sys; from pathlib import Path; from spikebench.suites.suite import plan;"
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
