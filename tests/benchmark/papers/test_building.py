from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spikebench.errors import UserError
from spikebench.papers.building import assign_weights, build_model
from spikebench.weights.loading import read_weights
from tests.benchmark.papers.rows import BUILD, row, small_classifier


class TestSubjects:
    def test_a_classifier_is_built_as_its_row_says(self, write_table, weights: Path):
        distilled = {**BUILD, "distillation": True}
        table = write_table(row("a", time_steps=4), row("b", build=distilled))
        subject = build_model(table, table.rows[0], 4, read_weights(weights))
        assert subject.time_steps == 4
        (batch,) = subject.batches(1)
        assert batch.shape == (1, 3, 32, 32)
        expected = small_classifier(time_steps=4, seed=3)
        with torch.no_grad():
            assert torch.equal(subject.model.eval()(batch), expected(batch))
        other = build_model(table, table.rows[1], 1).model
        assert hasattr(other, "distillation_head")
        assert other.distillation_head is not None

    def test_without_classes_it_is_the_backbone_alone(self, write_table):
        table = write_table(row("a", build={**BUILD, "num_classes": None}))
        model = build_model(table, table.rows[0], 1).model
        assert not any("head" in name for name, _ in model.named_parameters())

    def test_events_are_what_a_backbone_of_two_channels_sees(self, write_table):
        arguments = {**BUILD["arguments"], "in_channels": 2}
        table = write_table(row("a", build={**BUILD, "arguments": arguments}))
        subject = build_model(table, table.rows[0], 1)
        assert next(iter(subject.batches(1))).shape == (1, 2, 32, 32)
        assert subject.images == "events at random"

    def test_images_come_from_a_folder_if_there_is_one(self, write_table, photographs: Path):
        table = write_table(row("a"))
        subject = build_model(table, table.rows[0], 1, folder=photographs)
        assert len(list(subject.batches(8))) == 3
        assert subject.images == f"images of {photographs}"

    @pytest.mark.parametrize(
        ("build", "message"),
        [
            ({"backbone": "meta_spikeformer_nan", "num_classes": 5}, "meta_spikeformer_nano"),
            ({**BUILD, "arguments": {"embed_dim": 3}}, "'embed_dim'"),
            ({**BUILD, "arguments": {"embed_dims": [8]}}, "4"),
            ({**BUILD, "deploy": {"fuse": ["RepConf"]}}, "RepConf"),
            ({"task": "segment", "config": "a.py", "backbone": "b"}, "'segmentation'"),
        ],
    )
    def test_a_build_that_fails_says_why(self, write_table, build: dict, message: str):
        table = write_table(row("a", build=build))
        with pytest.raises(UserError, match=message):
            build_model(table, table.rows[0], 1)

    def test_an_unknown_argument_of_deploy_is_refused_with_its_table(self, write_table):
        with pytest.raises(UserError, match="'fuse_rep'"):
            write_table(row("a", build={**BUILD, "deploy": {"fuse_rep": True}}))

    def test_an_unknown_model_of_timm_is_named(self, write_table):
        table = write_table(row("a", spiking=False, build={"timm": "resnet19"}))
        with pytest.raises(UserError, match="'resnet19'"):
            build_model(table, table.rows[0], 1)


class TestWeights:
    def test_a_file_belongs_to_the_only_row_that_it_fits(self, write_table, weights: Path):
        other = {**BUILD, "num_classes": 6}
        ann = row("ann", spiking=False, build={"timm": "test_resnet"})
        table = write_table(row("a"), row("b", build=other), ann, row("none", build=None))
        assert assign_weights(table, table.rows, [str(weights)]) == {"a": weights}

    def test_a_file_that_fits_two_rows_needs_a_name(self, write_table, weights: Path):
        table = write_table(row("t1"), row("t4", time_steps=4))
        with pytest.raises(UserError, match=f"t1, t4.*t1={weights}"):
            assign_weights(table, table.rows, [str(weights)])
        assert assign_weights(table, table.rows, [f"t4={weights}"]) == {"t4": weights}
        assert assign_weights(table, table.rows[:1], [str(weights)]) == {"t1": weights}

    def test_a_path_with_an_equals_sign_is_a_path(self, write_table, weights: Path):
        path = weights.rename(weights.with_name("lr=1.safetensors"))
        table = write_table(row("a"))
        assert assign_weights(table, table.rows, [str(path)]) == {"a": path}
        assert assign_weights(table, table.rows, [f"a={path}"]) == {"a": path}

    def test_weights_that_fit_nothing_are_refused(self, write_table, tmp_path: Path):
        path = tmp_path / "distilled.safetensors"
        save_file(small_classifier(distillation=True).state_dict(), path)
        table = write_table(row("a"), row("b", build={**BUILD, "num_classes": 6}))
        with pytest.raises(UserError, match=str(path)):
            assign_weights(table, table.rows, [str(path)])
        for given in (f"a={path}", str(path)):
            with pytest.raises(UserError, match=f"{path}.*distillation=True"):
                assign_weights(table, table.rows[:1], [given])

    def test_a_row_that_cannot_be_built_leaves_the_others(self, write_table, weights: Path):
        unknown = {**BUILD, "backbone": "none"}
        missing = {"task": "classification", "config": "none.py", "backbone": "none"}
        bad = [row("unknown", build=unknown), row("missing", build=missing)]
        table = write_table(*bad, row("good"))
        assert assign_weights(table, table.rows, [str(weights)]) == {"good": weights}
        with pytest.raises(UserError, match=str(weights)):
            assign_weights(table, table.rows[:2], [str(weights)])
        for given in (f"unknown={weights}", str(weights)):
            with pytest.raises(UserError, match="row unknown"):
                assign_weights(table, table.rows[:1], [given])

    def test_wrong_requests_say_what_was_meant(self, write_table, weights: Path):
        table = write_table(row("first"), row("none", build=None))
        with pytest.raises(UserError, match="'frist'.*'first'"):
            assign_weights(table, table.rows, [f"frist={weights}"])
        with pytest.raises(UserError, match="'none'.*first"):
            assign_weights(table, table.rows, [f"none={weights}"])
        with pytest.raises(UserError, match=r"none\.pth"):
            assign_weights(table, table.rows, ["none.pth"])
        with pytest.raises(UserError, match="first"):
            assign_weights(table, table.rows, [str(weights), f"first={weights}"])
        with pytest.raises(UserError, match="mine"):
            assign_weights(table, table.rows[1:], [str(weights)])
