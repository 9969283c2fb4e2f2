from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from spikebench.backbones import list_backbones
from spikebench.errors import UserError
from spikebench.papers.reported import (
    ClassifierBuild,
    TaskBuild,
    TimmBuild,
    load_table,
    table_names,
)

ROWS = {"ade20k": 6, "architecture": 15, "coco": 8, "har-dvs": 2, "imagenet": 27, "voc": 2}
"""The tables that come with this project, and how many rows were published."""


def row(**keys: Any) -> dict[str, Any]:
    return {"id": "a", "model": "a", "seen": {"top1": 1.0}, **keys}


def table(*rows: dict[str, Any], **keys: Any) -> dict[str, Any]:
    figures = {"top1": {"title": "Top-1", "unit": "%"}}
    return {"title": "Mine", "figures": figures, "rows": [*(rows or (row(),))], **keys}


@pytest.fixture
def write(tmp_path: Path):
    def write(content: Any) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(path)

    return write


class TestShippedTables:
    def test_they_are_the_published_ones(self):
        assert {name: len(load_table(name).rows) for name in table_names()} == ROWS

    @pytest.mark.parametrize(
        ("name", "id_", "seen", "unverified"),
        [
            (
                "imagenet",
                "meta_spikeformer_55m-t4",
                {"params_m": 55.4, "energy_mj": 52.4, "top1": 79.7},
                {},
            ),
            (
                "imagenet",
                "meta_spikeformer_15m-t1",
                {},
                {"params_m": 15.1, "energy_mj": 4.0, "top1": 71.8},
            ),
            ("imagenet", "ms_resnet_104", {"params_m": 77.3, "top1": 76.02}, {"energy_mj": 10.2}),
            (
                "imagenet",
                "spike_driven_transformer_8_768-288",
                {"params_m": 66.34, "top1": 77.07},
                {},
            ),
            (
                "coco",
                "meta_spikeformer_55m-mask_rcnn",
                {"params_m": 75.0, "map50": 51.2},
                {"energy_mj": 140.8},
            ),
            (
                "ade20k",
                "meta_spikeformer_15m-t4",
                {"params_m": 16.5, "energy_mj": 88.1, "miou": 33.6},
                {},
            ),
            (
                "voc",
                "meta_spikeformer_55m-t4",
                {"params_m": 59, "energy_mj": 179.4, "miou": 61.1},
                {},
            ),
            ("har-dvs", "meta_spikeformer_18m", {}, {"params_m": 18.3, "top1": 47.5}),
            (
                "architecture",
                "meta_spikeformer_15m",
                {"params_m": 15.112208, "dense_gmacs": 6.47278176},
                {},
            ),
        ],
    )
    def test_figures_are_seen_or_not_as_they_were(
        self, name: str, id_: str, seen: dict, unverified: dict
    ):
        loaded = load_table(name)
        (found,) = (loaded.reported(row) for row in loaded.rows if row.id == id_)
        assert {key: one.value for key, one in found.figures.items() if one.seen} == seen
        assert {key: one.value for key, one in found.figures.items() if not one.seen} == unverified

    @pytest.mark.parametrize(
        ("name", "id_", "texts"),
        [
            ("imagenet", "qkformer_10_384", ["16.47", "15.13", "78.80"]),
            ("imagenet", "spike_driven_transformer_8_384", ["16.81", "3.90", "72.28"]),
            ("imagenet", "spike_driven_transformer_8_512", ["29.68", "4.50", "74.57"]),
            ("imagenet", "e_spikeformer_19m", ["19.0", "5.9", "79.8"]),
            ("ade20k", "spike2former", ["34", "68.0", "46.3"]),
            ("voc", "meta_spikeformer_15m-t1", ["17", "81.4", "58.1"]),
        ],
    )
    def test_figures_have_the_digits_of_their_source(self, name: str, id_: str, texts: list[str]):
        loaded = load_table(name)
        (found,) = (loaded.reported(row) for row in loaded.rows if row.id == id_)
        assert [one.text for one in found.figures.values()] == texts

    @pytest.mark.parametrize("name", ROWS)
    def test_builds_name_what_there_is(self, name: str):
        import timm

        from spikebench.registry import TASKS

        loaded = load_table(name)
        builds = [row.build for row in loaded.rows]
        assert loaded.score is None or (loaded.path.parent / loaded.score.config).is_file()
        for build in builds:
            if isinstance(build, TimmBuild):
                assert timm.is_model(build.timm)
            elif build is not None:
                assert build.backbone in list_backbones()
            if isinstance(build, TaskBuild):
                assert (loaded.path.parent / build.config).is_file()
                metrics = {figure.metric for figure in loaded.figures.values()} - {None}
                assert metrics <= TASKS.get(build.task).metrics.keys()

    def test_every_row_of_our_models_is_built_and_no_other(self):
        for name in ROWS:
            for each in load_table(name).rows:
                ours = each.model in list_backbones() or each.model == "deit_b"
                assert (each.build is not None) == ours, each.id


class TestATable:
    def test_it_is_read_with_its_rows_and_columns(self, write):
        figures = {
            "params_m": {"title": "Parameters", "unit": "M"},
            "top1": {"title": "Top-1", "unit": "%", "higher_is_better": True, "metric": "top1"},
        }
        build = {"backbone": "meta_spikeformer_nano", "num_classes": 10}
        first = row(
            time_steps=4,
            seen={"top1": 90.0},
            unverified={"params_m": 1.5},
            details={"size": "32x32"},
            build=build,
        )
        loaded = load_table(write(table(first, figures=figures, source="a paper")))
        assert loaded.name == "mine"
        assert loaded.figures["top1"].spec.model_dump() == {
            "title": "Top-1",
            "unit": "%",
            "decimals": 2,
            "higher_is_better": True,
        }
        found = loaded.reported(loaded.rows[0])
        assert list(found.figures) == ["params_m", "top1"]  # in the order of the columns
        assert (found.time_steps, found.source, found.details) == (4, "a paper", {"size": "32x32"})
        assert isinstance(loaded.rows[0].build, ClassifierBuild)

    @pytest.mark.parametrize("text", ["78.80", "17", "17.0", "0.10", "'3.90'", "0.0001"])
    def test_figures_keep_the_digits_that_were_printed(self, write, text: str):
        content = yaml.safe_dump(table(row(seen={"top1": 1.5}, unverified={}, note="1.5")))
        loaded = load_table(write(content.replace("top1: 1.5", f"top1: {text}")))
        found = loaded.reported(loaded.rows[0]).figures["top1"]
        assert found.text == text.strip("'")
        assert found.value == float(found.text)

    def test_numbers_that_are_no_figures_stay_numbers(self, write):
        build = {"backbone": "meta_spikeformer_nano", "num_classes": 10}
        first = row(time_steps=4, build={**build, "arguments": {"norm_bias": 0.5, "depth": 2}})
        loaded = load_table(write(table(first)))
        assert loaded.rows[0].build.arguments == {"norm_bias": 0.5, "depth": 2}

    def test_a_rows_own_source_goes_before_the_tables(self, write):
        loaded = load_table(write(table(row(source="its own"), source="a paper")))
        assert loaded.reported(loaded.rows[0]).source == "its own"

    def test_rows_are_chosen_by_id_and_by_model(self, write):
        rows = [row(id="a1"), row(id="a2"), row(id="b1", model="b")]
        loaded = load_table(write(table(*rows)))
        assert [each.id for each in loaded.select([])] == ["a1", "a2", "b1"]
        assert [each.id for each in loaded.select(["b1", "a"])] == ["a1", "a2", "b1"]
        assert [each.id for each in loaded.select(["a2"])] == ["a2"]
        with pytest.raises(UserError, match="'a3'"):
            loaded.select(["a3"])


BUILD = {"backbone": "meta_spikeformer_nano", "num_classes": 10}
WRONG = {
    "no mapping": (["a"], "a list"),
    "key twice": ("title: a\ntitle: b\n", "'title'"),
    "figure twice": (
        "title: a\nrows:\n- {id: a, seen: {top1: 1.0, top1: 2.0}}\n",
        "'top1'",
    ),
    "no figure": (table(row(seen={"top1": "high"})), "rows.0.seen.top1"),
    "infinite": (table(row(seen={"top1": float("inf")})), "rows.0.seen.top1"),
    "no YAML": ("a: [", "YAML"),
    "key": (table(titel="x"), "'title'"),
    "key of a row": (table(row(modell="x")), "'model'"),
    "figure": (
        table(row(seen={"top2": 1.0})),
        "'top1'",
    ),
    "twice": (table(row(), row()), "'a'"),
    "seen and not": (table(row(unverified={"top1": 2.0})), "top1"),
    "id": (table(row(id="a=b")), "rows.0.id"),
    "missing": ({"title": "Mine", "rows": [row()]}, "figures"),
    "kind of build": (
        table(row(build={"num_classes": 3})),
        "timm, task, backbone",
    ),
    "key of a build": (
        table(row(time_steps=1, build={**BUILD, "distilation": True})),
        "'distillation'",
    ),
    "T": (table(row(time_steps="1x4", build=BUILD)), "time_steps='1x4'"),
    "ANN": (table(row(build={"timm": "resnet18"})), "timm"),
    "SNN": (table(row(time_steps=1, spiking=False, build=BUILD)), "timm"),
}


class TestAWrongTable:
    @pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
    def test_is_named_with_what_is_wrong(self, write, content: Any, message: str):
        path = write(content)
        with pytest.raises(UserError) as caught:
            load_table(path)
        assert str(caught.value).startswith(path)
        assert message in str(caught.value)

    def test_a_wrong_name_suggests_the_right_one(self):
        with pytest.raises(UserError, match="'imagnet'.*'imagenet'"):
            load_table("imagnet")

    def test_a_missing_file_is_named(self):
        with pytest.raises(UserError, match=r"mine\.yaml"):
            load_table("mine.yaml")
