"""The options of backbones, as `spikebench list backbones` shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from spikebench.backbones.attention import ATTENTION_CONVS, ATTENTIONS
from spikebench.backbones.layers import SHORTCUTS
from spikebench.backbones.options import backbone_options, input_channels, option_tables
from spikebench.cli import app
from spikebench.neurons import NeuronName
from spikebench.registry import BACKBONES, NEURONS, UnknownNameError
from tests.benchmark.backbones.test_meta_spikeformer_options import CHANGES


class Plain(nn.Module):
    def __init__(self, width, time_steps: int = 1, norm: str | None = None, *rest, **kw):
        """Not written in any style. Args: none."""


class Described(nn.Module):
    def __init__(self, width: int, frozen: Callable[[], Tensor] = torch.rand):
        """Describes its arguments where they are.

        Args:
            width: channels.
        """


class TestList:
    def options(self, name: str = "meta_spikeformer_15m") -> dict[str, tuple]:
        return {option.name: option for option in backbone_options(name)}

    def test_every_argument_is_listed_with_its_values_default_and_meaning(self):
        options = self.options()
        tested = {name for change in CHANGES for name in change} | {"time_steps"}
        assert options.keys() == tested
        assert all(all(option) for option in options.values())
        assert options["attention"].values == "sdsa1, sdsa2, sdsa3, sdsa4"
        assert options["shortcut"].default == "membrane"
        assert options["sep_conv"].values == "True, False"
        assert options["depths"].values == "Sequence[int]"
        assert options["neuron"].values == ", ".join([*NEURONS.names(), "a function"])
        assert options["norm_bias"].about.startswith("initial bias of the batch norms that neurons")
        assert options["norm_bias"].about.endswith("start with 1.25 at most.")

    @pytest.mark.parametrize(
        ("option", "known"),
        [("attention", ATTENTIONS), ("attention_conv", ATTENTION_CONVS), ("shortcut", SHORTCUTS)],
    )
    def test_values_are_those_that_are_understood(self, option: str, known: dict):
        assert self.options()[option].values == ", ".join(known)

    def test_annotations_of_any_backbone_name_their_values(self, monkeypatch: pytest.MonkeyPatch):
        def annotated(
            pool: Annotated[str, {"max": 1, "mean": 2}] = "max",
            width: Annotated[int, "channels"] = 8,
            neuron: NeuronName | None = None,
        ) -> None: ...

        monkeypatch.setitem(BACKBONES._entries, "annotated", annotated)
        assert [option.values for option in backbone_options("annotated")] == [
            "max, mean",
            "int",
            ", ".join([*NEURONS.names(), "None"]),
        ]

    def test_defaults_are_those_of_the_backbone(self):
        assert self.options()["embed_dims"].default == "(64, 128, 256, 360)"
        assert self.options("meta_spikeformer_nano")["norm_bias"].default == "2.0"

    def test_one_table_serves_backbones_with_the_same_options(self):
        [(names, options)] = option_tables(["meta_spikeformer_15m", "meta_spikeformer_nano"])
        defaults = {option.name: option.default for option in options}
        assert names == ["meta_spikeformer_15m", "meta_spikeformer_nano"]
        assert defaults["num_heads"] == "by backbone"
        assert defaults["mlp_ratio"] == "4"

    def test_backbones_of_other_packages_need_no_docs(self, monkeypatch: pytest.MonkeyPatch):
        def passes_on(**overrides) -> Plain:
            return Plain(8, **overrides)

        def described(width: int = 3, **overrides) -> Described:
            return Described(width, **overrides)

        def own_arguments(time_steps: int = 4, depth=(1, 2)):
            """Built by hand.

            Args:
                time_steps (int): T, of
                    which more is better.
                    Note: not always.
                depth: of stages.

            Returns:
                A module: of layers.
            """

        def odd(x: Unheard, y: int = 1):  # noqa: F821
            pass

        def bare(**kw):
            pass

        for factory in (passes_on, described, own_arguments, odd, bare):
            monkeypatch.setitem(BACKBONES._entries, factory.__name__, factory)
        assert [tuple(option) for option in backbone_options("passes_on")] == [
            ("width", "", "required", ""),
            ("time_steps", "int", "1", ""),
            ("norm", "str, None", "None", ""),
        ]
        width, frozen = backbone_options("described")
        assert tuple(width) == ("width", "int", "3", "channels.")
        assert (frozen.name, frozen.values, frozen.about) == ("frozen", "a function", "")
        assert [tuple(option) for option in backbone_options("own_arguments")] == [
            ("time_steps", "int", "4", "T, of which more is better. Note: not always."),
            ("depth", "", "(1, 2)", "of stages."),
        ]
        assert [option.values for option in backbone_options("odd")] == ["Unheard", "int"]
        assert backbone_options("bare") == []

    def command(self, *arguments: str) -> str:
        done = CliRunner().invoke(app, ["list", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    def test_the_command_shows_names_and_options(self):
        lines = self.command("backbones").splitlines()
        starts = {line.split()[0]: line for line in lines if line.split()}
        assert {"meta_spikeformer_55m", *self.options()} <= starts.keys()
        assert "SN(sum(K (x) V))" in starts["attention"]
        assert "Sequence[int]" in starts["embed_dims"]
        assert "by backbone" in starts["embed_dims"]

    def test_the_command_narrows_to_one_backbone(self):
        out = self.command("backbones", "meta_spikeformer_nano")
        assert "meta_spikeformer_15m" not in out
        assert "(16, 48, 96, 160)" in out

    def test_the_command_suggests_near_names(self):
        done = CliRunner().invoke(app, ["list", "backbones", "meta_spikeformer_16m"])
        assert isinstance(done.exception, UnknownNameError)
        assert "did you mean 'meta_spikeformer_" in str(done.exception)


def test_the_channels_of_an_input_are_the_default_or_those_of_images(
    monkeypatch: pytest.MonkeyPatch,
):
    def events_only(time_steps: int = 1, in_channels: int = 2) -> None: ...

    def anything(**options) -> None: ...

    for factory in (events_only, anything):
        monkeypatch.setitem(BACKBONES._entries, factory.__name__, factory)
    assert input_channels("events_only") == 2
    assert input_channels("anything") == 3
    assert input_channels("meta_spikeformer_nano") == 3
