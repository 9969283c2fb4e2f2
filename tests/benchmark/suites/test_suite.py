from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from spikebench.errors import UserError
from spikebench.registry import UnknownNameError
from spikebench.suites.plan import plan
from spikebench.suites.suite import load_suite
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
        suite, overrides_by_task = load_suite(write_suite())
        assert suite.seeds == [0]
        assert suite.profile_images == 64
        assert suite.backbones[0].name == "meta_spikeformer_nano"
        assert suite.backbones[0].arguments == {}
        assert overrides_by_task == {"fake": []}

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
        suite, overrides_by_task = load_suite(write_suite(seeds=[0, 1]), [override])
        assert getattr(suite, key) == value
        assert overrides_by_task == {"fake": []}

    def test_an_override_of_a_task_goes_to_its_configurations(self, write_suite: WriteSuite):
        overrides = ["fake.lr=0.5", "+fake.model.new=1=2", "seeds=[1]"]
        suite, overrides_by_task = load_suite(write_suite(), overrides)
        assert overrides_by_task == {"fake": ["lr=0.5", "+model.new=1=2"]}
        assert suite.seeds == [1]

    def test_a_task_may_have_seeds_of_its_own(self, write_suite: WriteSuite, tmp_path: Path):
        entries = [
            {"task": "fake", "config": "toy.json"},
            {"task": "fake", "config": "toy.json", "seeds": [7]},
        ]
        _, runs = plan(write_suite(tasks=entries, seeds=[0, 1]), tmp_path)
        assert [run.seed for run, _ in runs] == [0, 1, 7]


WRONG_OVERRIDES = {
    "sedes=[1]": "'seeds'",
    "fkae.lr=1": "'fake.lr'",
    "fake=1": "'fake'",
    "lr=1": "backbones, fake., name, profile_images, seeds, tasks",
    "fake.rl=1": "'lr'",
    "seeds": "'seeds'",
    "seeds=abc": "seeds: ",
    "seeds=[]": "seeds: ",
    "seeds=[a]": "seeds.0: ",
    "seeds=[0.5]": "seeds.0: ",
    "seeds.4=1": "'seeds.4'",
    "profile_images=0": "profile_images: ",
    "name=a/b": "name: ",
    "backbones=[meta]": "'meta'",
    "backbones=['meta_spikeformer_nan']": "'meta_spikeformer_nano'",
    "tasks.0.task=fkae": "'fake'",
    "fake.lr=1j": "toy.json",
}
"""What each message has to hold: the offending value, or the one that was meant."""


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
            ({"seed": [1]}, "'seeds'"),
            ({"backbones": ["resnet"]}, "'resnet'"),
            ({"backbones": []}, "tasks: "),
            ({"backbones": 3}, "backbones: "),
            ({"backbones": [{"nam": "x"}]}, "backbones.0.name: "),
            ({"tasks": None}, "tasks: "),
            ({"tasks": ["fake"]}, "tasks.0: "),
            ({"tasks": [{"task": "fake"}]}, "tasks.0.config: "),
            (
                {"tasks": [{"task": "detektion", "config": "toy.json"}]},
                "'detection'",
            ),
            ({"seeds": "0"}, "seeds: "),
            ({"name": "../up"}, "name: "),
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
            (b"name: [", "is not YAML"),
            (b"name: a\nname: b", "'name'"),
            (b"\xff\xfe\x00", "is not YAML"),
            (b"- a\n- b\n", "a list"),
            (b"", "NoneType"),
            (b"name: demo\nbackbones: [meta_spikeformer_nano]\n", "tasks"),
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
        with pytest.raises(ConfigError, match=name):
            load_suite(tmp_path / name)

    @pytest.mark.parametrize(
        ("override", "key"),
        [
            ("detection.max_epochs=1", "max_epochs"),
            ("segmentation.width=8", "width"),
            ("detection.norm_cfg.type=GN", "norm_cfg"),
        ],
    )
    def test_an_override_that_would_have_no_effect_is_an_error(self, override: str, key: str):
        with pytest.raises(UnknownNameError, match=key):
            keys(QUICKSTART, override)

    def test_a_configuration_of_another_task_is_refused(self):
        with pytest.raises(ConfigError, match=r"digits\.py.*model\.backbone"):
            keys(QUICKSTART, "tasks.0.task=segmentation")
        with pytest.raises(ConfigError, match="'data'"):
            keys(QUICKSTART, "tasks.1.task=classification")

    def test_a_task_that_an_override_brought_in_runs(self, write_suite: WriteSuite):
        config = ROOT / "configs" / "segmentation" / "semantic_fpn_digit_scenes.py"
        entry = f"{{'task': 'segmentation', 'config': '{config}'}}"
        (key,) = keys(write_suite(), f"tasks=[{entry}]", "profile_images=64")
        assert key in keys(QUICKSTART)
