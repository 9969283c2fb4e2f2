from __future__ import annotations

from pathlib import Path

import pytest

from spikebench import shipped
from spikebench.registry import UnknownNameError
from spikebench.shipped import find_config, find_suite, shipped_configs, shipped_suites
from spikebench.task import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package as a wheel lays it out, beside folders of the user that have the same names."""
    package = tmp_path / "site" / "spikebench"
    for name in ("classification/a.py", "detection/a.py", "detection/b.py", "_base_/c.py"):
        for configs in (package / "configs", tmp_path / "configs"):
            (configs / name).parent.mkdir(parents=True, exist_ok=True)
            (configs / name).touch()
    (package / "configs" / "suites").mkdir()
    (package / "configs" / "suites" / "small.yaml").touch()
    (package / "leaderboards" / "papers").mkdir(parents=True)
    monkeypatch.setattr(shipped, "_PACKAGE", package)
    return package


def test_a_checkout_is_read_in_place():
    assert shipped_suites()["quickstart"] == ROOT / "configs/suites/quickstart.yaml"
    assert shipped_configs()["classification/digits"] == ROOT / "configs/classification/digits.py"
    assert shipped.shipped_folder("leaderboards/papers") == ROOT / "leaderboards/papers"


def test_a_wheel_holds_them_inside_the_package(wheel: Path):
    assert shipped_suites() == {"small": wheel / "configs/suites/small.yaml"}
    assert list(shipped_configs()) == ["classification/a", "detection/a", "detection/b"]
    assert find_config("b") == wheel / "configs/detection/b.py"
    assert find_config("detection/a") == wheel / "configs/detection/a.py"
    assert shipped.shipped_folder("leaderboards/papers") == wheel / "leaderboards/papers"


def test_a_file_goes_before_a_name(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").write_text("name: mine")
    assert find_suite("small") == Path("small")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "b.py").touch()
    assert find_config("b.py", beside=tmp_path / "mine") == tmp_path / "mine" / "b.py"


def test_a_name_of_several_tasks_needs_its_folder(wheel: Path):
    with pytest.raises(ConfigError, match="classification/a, detection/a"):
        find_config("a")


@pytest.mark.parametrize(
    ("find", "given", "meant"),
    [
        (find_suite, "quikstart", "'quickstart'"),
        (find_config, "imagnet", "'imagenet'"),
        (find_config, "clasification/imagenet", "'classification/imagenet'"),
    ],
)
def test_a_wrong_name_suggests_what_was_meant(find, given: str, meant: str):
    with pytest.raises(UnknownNameError, match=meant) as caught:
        find(given)
    assert repr(given) in str(caught.value)


@pytest.mark.parametrize("find", [find_suite, find_config])
def test_a_file_that_is_not_there_is_named(find, tmp_path: Path):
    with pytest.raises(ConfigError, match="none.yaml") as caught:
        find(tmp_path / "none.yaml")
    assert "`spikebench list" in str(caught.value)
