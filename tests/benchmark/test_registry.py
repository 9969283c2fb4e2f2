from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from spikebench.registry import CollisionError, PluginError, Registry, UnknownNameError
from tests import forkserver

GROUP = "spikebench.test"


def registry(*names: str) -> Registry:
    made: Registry = Registry("thing", GROUP)
    for name in names:
        made.register(type(name, (), {}))
    return made


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make packages that importlib.metadata finds, each in a folder on sys.path."""

    def make(package: str, code: str, **points: str) -> None:
        folder = tmp_path / package
        info = folder / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"[{GROUP}]", *(f"{name} = {value}" for name, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines))
        (folder / f"{package}.py").write_text(code)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, package, raising=False)

    return make


def test_an_entry_is_found_under_its_own_name():
    things = Registry("thing", GROUP)

    @things.register
    def widget():
        return 42

    assert things.names() == ["widget"]
    assert things.get("widget") is widget
    assert widget() == 42


def test_registering_the_same_entry_again_is_no_collision():
    things = Registry("thing", GROUP)

    def widget(): ...

    things.register(widget)
    assert things.register(widget) is widget


def test_a_collision_names_both_sides():
    things = Registry("thing", GROUP)

    def widget(): ...

    class Other:
        @staticmethod
        def widget(): ...

    things.register(widget)
    with pytest.raises(CollisionError, match="'widget'") as caught:
        things.register(Other.widget)
    assert "test_a_collision_names_both_sides.<locals>.widget" in str(caught.value)
    assert "<locals>.Other.widget" in str(caught.value)
    assert things.get("widget") is widget


@pytest.mark.parametrize("wrong", ["meta_spikeformer_15", "meta_spikformer_15m"])
def test_an_unknown_name_suggests_what_was_meant(wrong: str):
    with pytest.raises(UnknownNameError, match="'meta_spikeformer_15m'"):
        registry("meta_spikeformer_15m", "resnet").get(wrong)


def test_an_unknown_name_near_to_none_lists_all():
    with pytest.raises(UnknownNameError, match="thing 'xyz'.*gadget, widget"):
        registry("widget", "gadget").get("xyz")


def test_a_plugin_is_listed_without_being_imported(install):
    install("plugin_a", "def widget(): return 'from a'\n", widget="plugin_a:widget")
    things = registry("gadget")
    assert things.names() == ["gadget", "widget"]
    assert "plugin_a" not in sys.modules
    assert things.get("widget")() == "from a"
    assert "plugin_a" in sys.modules
    assert things.names() == ["gadget", "widget"]


def test_a_plugin_is_imported_only_when_it_is_asked_for(install):
    install("plugin_b", "raise RuntimeError('imported')\n", widget="plugin_b:widget")
    assert callable(registry("gadget").get("gadget"))


def test_a_broken_plugin_names_its_package(install):
    install("plugin_c", "import no_such_module_anywhere\n", widget="plugin_c:widget")
    with pytest.raises(PluginError, match="'widget'.*plugin_c:widget.*no_such_module_anywhere"):
        registry().get("widget")


def test_a_plugin_without_the_promised_entry_names_its_package(install):
    install("plugin_d", "", widget="plugin_d:widget")
    with pytest.raises(PluginError, match="'plugin_d'"):
        registry().get("widget")


def test_a_plugin_that_takes_a_name_of_ours_is_a_collision(install):
    install("plugin_e", "def widget(): ...\n", widget="plugin_e:widget")
    things = registry("widget")
    for _ in range(2):
        with pytest.raises(CollisionError, match=r"plugin_e\.widget"):
            things.get("widget")


def test_two_plugins_with_one_name_are_a_collision(install):
    install("plugin_f", "def widget(): ...\n", widget="plugin_f:widget")
    install("plugin_g", "def widget(): ...\n", widget="plugin_g:widget")
    things = registry()
    assert things.names() == ["widget"]
    with pytest.raises(CollisionError, match="plugin_f:widget") as caught:
        things.get("widget")
    assert "plugin_g:widget" in str(caught.value)


REGISTERS = """
from spikebench.registry import Registry
import {home}
@{home}.things.register(name="first")
def one(): return 1
@{home}.things.register(name="second")
def two(): return 2
"""


def test_a_module_registers_its_entries_when_they_are_asked_for(install, monkeypatch):
    things = registry("gadget")
    home = type(sys)("home_of_things")
    home.things = things
    monkeypatch.setitem(sys.modules, "home_of_things", home)
    install("plugin_h", REGISTERS.format(home="home_of_things"), anything="plugin_h")
    assert things.get("gadget")
    assert "plugin_h" not in sys.modules
    assert things.get("second")() == 2
    assert things.names() == ["first", "gadget", "second"]


def test_a_package_that_takes_a_name_out_of_a_module_is_a_collision(install, monkeypatch):
    things = registry("gadget")
    home = type(sys)("home_of_things")
    home.things = things
    monkeypatch.setitem(sys.modules, "home_of_things", home)
    install("plugin_j", REGISTERS.format(home="home_of_things"), anything="plugin_j")
    install("plugin_k", "def first(): ...\n", first="plugin_k:first")
    with pytest.raises(CollisionError, match=r"'first'.*plugin_k"):
        things.get("first")
    assert things.names() == ["first", "gadget", "second"]


def test_a_broken_module_is_named_and_the_others_are_listed(install, caplog):
    install("plugin_i", "raise RuntimeError('no')\n", anything="plugin_i")
    things = registry("gadget")
    assert things.names() == ["gadget"]
    assert "package 'plugin_i' (plugin_i)" in caplog.text
    assert "RuntimeError: no" in caplog.text
    with pytest.raises(PluginError, match=r"'widget'.*plugin_i.*RuntimeError: no"):
        things.get("widget")


def test_names_are_filtered_by_a_pattern():
    things = registry("sew_resnet18", "sew_resnet34", "ms_resnet18")
    assert things.names("sew_*") == ["sew_resnet18", "sew_resnet34"]


@pytest.fixture
def in_third_party_site(third_party_site: Path):
    def run(code: str):
        path = os.pathsep.join(filter(None, [str(third_party_site), os.environ.get("PYTHONPATH")]))
        done = forkserver.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_an_installed_package_is_listed_without_importing_it(in_third_party_site):
    names, loaded = in_third_party_site(
        "import json, sys; from spikebench.registry import BACKBONES; names = BACKBONES.names();"
        "print(json.dumps([names, 'spikebench_tiny' in sys.modules]))"
    )
    assert {"tiny_spiking_convnet", "meta_spikeformer_15m"} <= set(names)
    assert not loaded


def test_an_installed_backbone_is_built_and_keeps_the_contract(in_third_party_site):
    home, strides, failures = in_third_party_site(
        "import json; from spikebench import build_backbone, check_backbone, list_backbones;"
        "name = 'tiny_spiking_convnet'; assert name in list_backbones();"
        "model = build_backbone(name, time_steps=2);"
        "failures = [f.reason for f in check_backbone(name).failures];"
        "print(json.dumps([type(model).__module__, [i.stride for i in model.feature_info],"
        " failures]))"
    )
    assert home == "spikebench_tiny"
    assert strides == [4, 8, 16, 32]
    assert failures == []
