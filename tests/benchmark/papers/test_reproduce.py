from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from spikebench.energy.estimators import energies
from spikebench.energy.profile import profile_operations
from spikebench.errors import UserError
from spikebench.images import sample_images
from spikebench.inference.deploy import in_form
from spikebench.papers.implied_rates import mean_rate
from spikebench.papers.reported import load_table
from spikebench.papers.reproduce import COUNTED_IMAGES, reproduce
from spikebench.results import BackboneInfo
from spikebench.task import Probe
from spikebench.weights.loading import load_weights
from tests.benchmark.papers.rows import BUILD, NANO, row, small_classifier

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def not_here(reproduced, figure: str) -> str:
    """Why a figure of a row was not measured."""
    measured = reproduced.measured[figure]
    assert (measured.value, measured.status) == (None, "not measurable here")
    return measured.reason


@pytest.fixture
def score(fake_task, tmp_path: Path) -> dict[str, Any]:
    """How a table has its classifiers scored by the fake task."""
    (tmp_path / "toy.json").write_text('{"steps": 0, "size": 0}')
    overrides = ["steps={time_steps}", "size={image_size}"]
    return {"task": "fake", "config": "toy.json", "overrides": overrides}


class TestWithoutWeights:
    def test_parameters_and_dense_macs_are_measured(self, write_table):
        record = reproduce(write_table(row("a", seen={"top1": 50.0})))
        (found,) = record.rows
        model = small_classifier()
        parameters = sum(weight.numel() for weight in model.parameters())
        dense = profile_operations(model, sample_images(1, 32)).dense_macs
        assert found.measured["params_m"].value == parameters / 1e6
        assert found.measured["dense_gmacs"].value == dense / 1e9
        assert found.dense_gmacs["as-coded"] == dense / 1e9
        assert found.dense_gmacs.keys() == {"as-coded", "dense", "paper"}
        assert found.measured.keys() == {"top1", "params_m", "dense_gmacs"}
        assert (found.energy_mj, found.measured_rates, record.images) == ({}, {}, "")
        assert record.figures.keys() == {"params_m", "energy_mj", "top1", "dense_gmacs"}

    def test_the_energy_is_solved_backwards_and_the_rest_says_what_is_missing(
        self, write_table, score, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.delenv("SPIKEBENCH_DATA", raising=False)
        table = write_table(row("t1"), row("t4", time_steps=4), score=score, data="photographs")
        t1, t4 = reproduce(table).rows
        assert not_here(t1, "energy_mj") == "no weights were given"
        assert not_here(t1, "top1") == "no weights were given, and no folder data/photographs"
        assert t1.implied_rates["paper"] > 0
        for form, rate in t1.implied_rates.items():
            assert t4.implied_rates[form] == pytest.approx(rate / 4)

    def test_an_ann_is_charged_as_macs(self, write_table):
        ann = row("ann", spiking=False, build={"timm": "test_resnet"}, image_size=64)
        (found,) = reproduce(write_table(ann)).rows
        assert found.measured["energy_mj"].value == pytest.approx(
            4.6 * found.measured["dense_gmacs"].value
        )
        assert found.energy_mj["rate-45nm"] == pytest.approx(found.energy_mj["dense-45nm"])
        # the others would charge what random weights make of one image
        assert found.energy_mj.keys() == {"rate-45nm", "dense-45nm"}
        assert "random weights" in found.measured["energy_mj"].reason
        assert found.implied_rates == {}
        assert "timm" in not_here(found, "top1")


class TestRowsThatCannotBeMeasured:
    def test_weights_without_a_row_go_to_the_row_that_can_be_built(
        self, write_table, weights: Path
    ):
        unknown = {**BUILD, "backbone": "none"}
        table = write_table(row("unknown", build=unknown), row("good"))
        unknown_row, good = reproduce(table, weights=[str(weights)], limit=1).rows
        assert "unknown backbone 'none'" in not_here(unknown_row, "params_m")
        assert good.measured["energy_mj"].status == "measured"

    def test_wrong_estimators_are_said_before_any_work(
        self, write_table, tmp_path: Path, monkeypatch
    ):
        def counted(*_: Any, **__: Any) -> None:
            raise AssertionError

        monkeypatch.setattr("spikebench.papers.operation_counts.profile_operations", counted)
        monkeypatch.setenv("SPIKEBENCH_ESTIMATORS", "none.yaml")
        with pytest.raises(UserError, match=r"none\.yaml"):
            reproduce(write_table(row("a")), work_dir=tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_they_say_why_and_the_others_go_on(self, write_table):
        rows = [
            row("foreign", model="qkformer", build=None),
            row("unsaid", build=None),
            row("wrong", build={**BUILD, "arguments": {"embed_dims": [8]}}),
            row("odd", image_size=30),
            row("good"),
        ]
        foreign, unsaid, wrong, odd, good = reproduce(write_table(*rows)).rows
        for figure in ("params_m", "energy_mj", "top1", "dense_gmacs"):
            assert not_here(foreign, figure) == "no registered backbone of this name"
            assert not_here(unsaid, figure) == "the table does not say how to build it"
            assert "expected 4 widths" in not_here(wrong, figure)
            assert "30x30" in not_here(odd, figure)
        assert good.measured["params_m"].status == "measured"

    def test_other_failures_are_not_hidden(self, write_table, monkeypatch):
        def broken(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("spikebench.papers.operation_counts.profile_operations", broken)
        with pytest.raises(ZeroDivisionError):
            reproduce(write_table(row("a")))

    def test_only_the_rows_asked_for_are_reproduced(self, write_table):
        table = write_table(row("a"), row("b", model="other"), row("c"))
        chosen = reproduce(table, rows=["other"]).rows
        assert [each.reported.id for each in chosen] == ["b"]
        with pytest.raises(UserError, match="'other'"):
            reproduce(table, rows=["othr"])


class TestWithWeights:
    def test_energies_and_rates_are_counted_on_images(self, write_table, weights: Path):
        table = write_table(row("t1"), row("t4", time_steps=4))
        record = reproduce(table, weights=[f"t4={weights}"], limit=2)
        t1, t4 = record.rows
        model = load_weights(small_classifier(time_steps=4), weights)
        reports = [
            profile_operations(in_form(model, form), sample_images(2, 32), form=form)
            for form in ("as-coded", "dense", "paper")
        ]
        assert t4.energy_mj == pytest.approx(energies(*reports))
        assert t4.measured["energy_mj"].value == pytest.approx(t4.energy_mj["paper-45nm"])
        assert t4.measured["energy_mj"].reason == f"paper-45nm on {record.images}"
        assert t4.measured_rates == pytest.approx({each.form: mean_rate(each) for each in reports})
        assert record.images == "2 squares cut out of two photographs"
        assert (t1.energy_mj, t1.measured_rates) == ({}, {})

    @pytest.mark.parametrize(
        ("limit", "images"), [(None, "3 images"), (2, "2 images"), (1, "1 image")]
    )
    def test_images_of_the_data_root_go_before(
        self, write_table, weights: Path, photographs: Path, limit: int | None, images: str
    ):
        table = write_table(row("a"), data="photographs")
        record = reproduce(table, weights=[str(weights)], limit=limit)
        assert record.images == f"{images} of {photographs}"

    def test_a_single_image_is_called_one(self, write_table, weights: Path):
        record = reproduce(write_table(row("a")), weights=[str(weights)], limit=1)
        assert record.images == "1 square cut out of two photographs"

    def test_the_want_of_data_is_said(self, write_table, weights: Path):
        record = reproduce(write_table(row("a"), data="photographs"), weights=[str(weights)])
        said = f"{COUNTED_IMAGES} squares cut out of two photographs, for want of data"
        assert record.images == said

    def test_wrong_weights_are_refused_before_any_work(self, write_table, tmp_path: Path):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(UserError, match=r"none\.pth"):
            reproduce(write_table(row("a")), weights=["a=none.pth"], work_dir=tmp_path / "out")
        assert [path.name for path in sorted(tmp_path.iterdir())] == ["mine.yaml", *before]


class TestScores:
    def test_they_are_those_of_the_tables_task(
        self, write_table, score, weights: Path, photographs: Path, fake_task, monkeypatch
    ):
        runs = []
        evaluate = fake_task.evaluate
        monkeypatch.setattr(
            fake_task,
            "evaluate",
            lambda self, run, file: runs.append((run, file)) or evaluate(self, run, file),
        )
        table = write_table(row("a", time_steps=4), score=score, data="photographs")
        (found,) = reproduce(table, weights=[str(weights)], limit=5, work_dir=Path("out")).rows
        assert found.measured["top1"].value == pytest.approx(200 / 3)  # of a fraction, percent
        assert found.measured["top1"].reason == "test split, 5 images of toy"
        ((run, file),) = runs
        assert file == weights
        assert (run.backbone, run.limit) == (NANO, 5)
        assert run.config == {
            "steps": 4,
            "size": 32,
            "backbone": NANO,
            "arguments": BUILD["arguments"],
        }
        assert run.folder == Path("out/mine/a")

    def test_a_score_that_fails_leaves_the_rest(self, write_table, score, weights: Path, fake_task):
        fake_task.raises["evaluate"] = UserError("no label in it")
        (found,) = reproduce(write_table(row("a"), score=score), weights=[str(weights)]).rows
        assert not_here(found, "top1") == "no label in it"
        assert found.measured["energy_mj"].status == "measured"

    def test_a_metric_that_is_not_scored_is_named(
        self, write_table, score, weights: Path, fake_task, monkeypatch
    ):
        monkeypatch.setattr(fake_task, "evaluation", {"loss": 1.0})
        (found,) = reproduce(write_table(row("a"), score=score), weights=[str(weights)]).rows
        assert not_here(found, "top1") == "toy scores no score"

    def test_nothing_is_scored_that_was_not_reported(
        self, write_table, score, weights: Path, fake_task
    ):
        rows = [row("a", seen={"params_m": 0.1})]
        reproduce(write_table(*rows, score=score), weights=[str(weights)])
        assert fake_task.calls == []

    def test_a_table_may_say_nothing_of_scores(self, write_table, weights: Path):
        (found,) = reproduce(write_table(row("a")), weights=[str(weights)]).rows
        assert not_here(found, "top1") == "the table does not say how it is scored"

    def test_classifiers_are_scored_on_digits(self, write_table, tmp_path: Path):
        """The real task, with a distilled classifier at another T than the configuration's."""
        model = small_classifier(num_classes=10, distillation=True, time_steps=4)
        torch.save(model.state_dict(), tmp_path / "distilled.pth")
        build = {**BUILD, "num_classes": 10, "distillation": True}
        table = write_table(
            row("a", time_steps=4, build=build, seen={"top1": 50.0}),
            figures={"top1": {"title": "Top-1", "unit": "%", "metric": "top1"}},
            score={
                "task": "classification",
                "config": str(ROOT / "configs" / "classification" / "digits.py"),
                "overrides": ["model.time_steps={time_steps}", "data.image_size={image_size}"],
            },
        )
        (found,) = reproduce(table, weights=[str(tmp_path / "distilled.pth")], limit=16).rows
        assert found.measured["top1"].reason == "test split, 16 images of digits"
        assert (found.measured["top1"].value or 0) * 16 / 100 == pytest.approx(
            _correct(model, 16), abs=1e-4
        )


def _correct(model: torch.nn.Module, count: int) -> int:
    from spikebench_tasks.classification.datasets.digits import Digits

    pairs = [Digits("test", 32, limit=count)[index] for index in range(count)]
    with torch.no_grad():
        found = model(torch.stack([image for image, _ in pairs])).argmax(1)
    return sum(int(one) == label for one, (_, label) in zip(found, pairs, strict=True))


class TestModelsOfTasks:
    @pytest.fixture
    def build(self, fake_task, tmp_path: Path, monkeypatch) -> dict[str, Any]:
        """A build of a task whose sketch is the small classifier, with a head that runs once."""

        def sketch(self, config: dict[str, Any]) -> Probe:
            model = small_classifier(config["steps"])
            info = BackboneInfo(name=NANO, time_steps=config["steps"], parameters=1)
            batches = [{"inputs": [next(sample_images(1, 32))[0]]}]
            return Probe(
                model,
                batches,
                lambda model, batch: model(batch["inputs"][0][None]),
                info,
                images=lambda batch: batch["inputs"],
            )

        monkeypatch.setattr(fake_task, "sketch", sketch)
        (tmp_path / "toy.json").write_text('{"steps": 1}')
        return {
            "task": "fake",
            "config": "toy.json",
            "backbone": NANO,
            "overrides": ["steps={time_steps}"],
        }

    def test_they_are_sketched_at_the_rows_t(self, write_table, build):
        rows = [row("t1", build=build), row("t4", time_steps=4, build=build), row("classifier")]
        t1, t4, classifier = reproduce(write_table(*rows)).rows
        assert t4.measured["params_m"].value == classifier.measured["params_m"].value
        assert t1.dense_gmacs == classifier.dense_gmacs
        assert t4.implied_rates["paper"] == pytest.approx(t1.implied_rates["paper"] / 4)

    def test_a_configuration_of_another_t_is_refused(self, write_table, build):
        build["overrides"] = []
        (found,) = reproduce(write_table(row("a", time_steps=4, build=build))).rows
        assert "builds T = 1, but row a has T = 4" in not_here(found, "params_m")

    def test_a_missing_configuration_is_said(self, write_table):
        build = {"task": "classification", "config": "none.py", "backbone": NANO}
        (found,) = reproduce(write_table(row("a", build=build))).rows
        assert "no such configuration" in not_here(found, "params_m")

    def test_with_data_they_are_counted_on_test_images(
        self, write_table, build, weights: Path, photographs: Path, fake_task, monkeypatch
    ):
        def probe(self, run, checkpoint) -> Probe:
            sketched = self.sketch(run.config)
            load_weights(sketched.model, checkpoint)
            images = [{"inputs": [image[0]]} for image in sample_images(4, 32, folder=photographs)]
            return sketched._replace(batches=images)

        monkeypatch.setattr(fake_task, "probe", probe)
        table = write_table(row("a", build=build), row("c"), data="photographs")
        record = reproduce(table, weights=[f"a={weights}", f"c={weights}"])
        of_task, classifier = record.rows
        assert of_task.energy_mj == pytest.approx(classifier.energy_mj)
        assert record.images == f"3 images of {photographs}"
        assert of_task.measured["top1"].value == pytest.approx(200 / 3)

    def test_without_data_they_are_counted_on_random_images(
        self, write_table, build, weights: Path
    ):
        table = write_table(row("a", build=build), data="photographs")
        record = reproduce(table, weights=[str(weights)])
        assert record.images == "1 random image, for want of data"
        assert record.rows[0].measured["energy_mj"].status == "measured"


@pytest.mark.slow
class TestThePublishedTables:
    def test_the_architecture_comes_out_as_published(self):
        for found in reproduce(load_table("architecture")).rows:
            for name, reported in found.reported.figures.items():
                measured = found.measured[name].value
                exact = reported.value != round(reported.value, 2)
                tolerance = {"abs": 1e-9} if exact else {"rel": 3e-3}
                assert measured == pytest.approx(reported.value, **tolerance), found.reported.id

    def test_the_energies_of_imagenet_imply_the_papers_form(self):
        rows = {each.reported.id: each for each in reproduce(load_table("imagenet")).rows}
        implied = rows["meta_spikeformer_55m-t4"].implied_rates
        assert implied["as-coded"] == pytest.approx(0.58, abs=0.005)
        assert implied["paper"] == pytest.approx(0.25, abs=0.005)
        for name in ("15m-t1", "31m-t4", "55m-t4-distilled"):
            dense = rows[f"meta_spikeformer_{name}"].dense_gmacs
            as_coded = {"15m": 6.4728, "31m": 14.02, "55m": 24.82}[name[:3]]
            paper = {"15m": 14.89, "31m": 32.36, "55m": 57.49}[name[:3]]
            assert dense["as-coded"] == pytest.approx(as_coded, rel=1e-3)
            assert dense["paper"] == pytest.approx(paper, rel=1e-3)
        ann = rows["deit_b"].measured
        assert ann["params_m"].value == pytest.approx(86.6, abs=0.05)
        assert ann["energy_mj"].value == pytest.approx(80.5, rel=0.01)
        assert sum(each.measured["params_m"].status == "measured" for each in rows.values()) == 8

    @pytest.mark.parametrize(
        ("name", "parameters"),
        [
            ("coco", {"meta_spikeformer_15m": 34.863320, "meta_spikeformer_55m": 75.007728}),
            ("ade20k", {"meta_spikeformer_15m": 16.470, "meta_spikeformer_55m": 58.992}),
        ],
    )
    def test_detectors_and_segmentors_have_the_papers_parameters(
        self, name: str, parameters: dict[str, float]
    ):
        record = reproduce(load_table(name), rows=list(parameters))
        for found in record.rows:
            expected = parameters[found.reported.model]
            assert found.measured["params_m"].value == pytest.approx(expected, abs=1e-3)
            assert found.implied_rates.keys() == {"as-coded", "dense", "paper"}
