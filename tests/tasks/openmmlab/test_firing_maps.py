from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from PIL import Image
from spikingjelly.activation_based.neuron import IFNode
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from spikebench.errors import UserError
from spikebench.neurons import ILIF, LIF
from spikebench_tasks.openmmlab import firing_maps, loop
from spikebench_tasks.openmmlab.firing_maps import FiringRateMapsHook, find_neuron, firing_rate_maps
from tests.tasks.openmmlab.tiny import tiny_config, tiny_run

STEPS, CHANNELS, SIDE = 3, 5, 4


class Spiking(nn.Module):
    """Gives fixed currents to a neuron: all time steps at once, or one after the other."""

    def __init__(self, neuron: nn.Module, currents: list[Tensor], at_once: bool = True) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.time_steps = STEPS
        self.backbone.lif = neuron
        self.backbone.silent = LIF()
        self.currents = currents
        self.at_once = at_once

    def forward(self) -> list[Tensor]:
        """The spikes (T, B, ...) of each call or, of single steps, of each sequence."""
        run = self.backbone.lif
        if self.at_once:
            return [run(currents) for currents in self.currents]
        return [torch.stack([run(step) for step in currents]) for currents in self.currents]


def currents_of(*sides: int, images: int = 2, channels: tuple[int, ...] = (CHANNELS,)) -> list:
    torch.manual_seed(0)
    return [3 * torch.rand(STEPS, images, *channels, side, side) for side in sides]


def batch_of(images: int) -> dict[str, Any]:
    torch.manual_seed(1)
    about = [{"img_path": f"/data/{index}.png", "pad_shape": (16, 20)} for index in range(images)]
    return {
        "inputs": [torch.randint(256, (3, 12, 14), dtype=torch.uint8) for _ in about],
        "data_samples": [BaseDataElement(metainfo=one) for one in about],
    }


def heard(
    model: Spiking, monkeypatch: pytest.MonkeyPatch, wanted: tuple[int, ...] = (1,)
) -> tuple[list[Tensor], dict[str, tuple[np.ndarray, list[np.ndarray], Any]]]:
    """What the model gave, and what the hook would draw, by name of the picture."""
    hook = FiringRateMapsHook("backbone.lif")
    drawn: dict = {}
    monkeypatch.setattr(
        firing_maps, "firing_rate_maps", lambda image, maps, layer, padded: (image, maps, padded)
    )
    hook.save = lambda runner, name, picture: drawn.update({name: picture})
    hook.wanted = {f"/data/{index}.png": (str(index), index) for index in wanted}
    runner, batch = SimpleNamespace(model=model), batch_of(model.currents[0].shape[1])
    hook.before_run(runner)
    hook.before_test_iter(runner, 0, batch)
    given = model()
    hook.after_test_iter(runner, 0, batch, batch["data_samples"])
    assert not model.backbone.lif._forward_hooks
    return given, drawn


@pytest.mark.parametrize(
    ("neuron", "at_once"),
    [
        (LIF(), True),
        (ILIF(), True),
        (IFNode(step_mode="m"), True),
        (IFNode(step_mode="s"), False),
    ],
    ids=["LIF", "ILIF", "spikingjelly, multi-step", "spikingjelly, single-step"],
)
def test_maps_are_the_share_of_channels_that_fire(neuron, at_once, monkeypatch):
    model = Spiking(neuron, currents_of(SIDE), at_once)
    (spikes,), drawn = heard(model, monkeypatch, wanted=(0, 1))
    assert 0.05 < (spikes != 0).float().mean() < 0.95
    for index in (0, 1):
        _, (rates,), padded = drawn[str(index)]
        expected = (spikes[:, index] != 0).sum(1).numpy() / CHANNELS
        assert rates.shape == (STEPS, SIDE, SIDE)
        assert rates == pytest.approx(expected)
        assert padded == (16, 20)


@pytest.mark.parametrize("at_once", [True, False])
def test_each_level_of_a_pyramid_has_its_maps(at_once, monkeypatch):
    neuron = LIF() if at_once else IFNode(step_mode="s")
    if not at_once:  # as a network does between inputs
        neuron.register_forward_pre_hook(lambda node, given: node.reset())
    model = Spiking(neuron, currents_of(8, 4, 2), at_once)
    _, drawn = heard(model, monkeypatch)
    assert [rates.shape for rates in drawn["1"][1]] == [(STEPS, side, side) for side in (8, 4, 2)]


def test_single_steps_behind_a_mean_over_time_are_calls_of_their_own(monkeypatch):
    neuron = IFNode(step_mode="s")
    neuron.register_forward_pre_hook(lambda node, given: node.reset())
    model = Spiking(neuron, [currents[:1] for currents in currents_of(8, 4)], at_once=False)
    _, drawn = heard(model, monkeypatch)
    assert [rates.shape for rates in drawn["1"][1]] == [(1, 8, 8), (1, 4, 4)]


def test_the_image_is_what_the_model_saw_in_rgb(monkeypatch):
    _, drawn = heard(Spiking(LIF(), currents_of(SIDE)), monkeypatch)
    seen = batch_of(2)["inputs"][1].numpy()
    assert np.array_equal(drawn["1"][0], seen[::-1].transpose(1, 2, 0))


def test_batches_without_a_chosen_image_are_not_listened_to(monkeypatch):
    hook = FiringRateMapsHook("backbone.lif")
    runner = SimpleNamespace(model=Spiking(LIF(), currents_of(SIDE)))
    hook.before_run(runner)
    hook.wanted = {"/data/7.png": ("7", 7)}
    hook.before_test_iter(runner, 0, batch_of(2))
    assert not runner.model.backbone.lif._forward_hooks
    hook.after_test_iter(runner, 0, batch_of(2), [])


@pytest.mark.parametrize(
    ("model", "images", "message"),
    [
        (
            Spiking(LIF(), [torch.rand(STEPS, 2, 6, 7)]),
            2,
            r"'backbone.lif'.*\(3, 2, 6, 7\)",
        ),
        (Spiking(LIF(), currents_of(SIDE, images=5)), 2, r"\(3, 5, 5, 4, 4\)"),
        (
            Spiking(IFNode(step_mode="s"), [torch.rand(STEPS, 2, 6)], False),
            2,
            r"\(2, 6\)",
        ),
        (Spiking(LIF(), []), 2, "'backbone.lif'"),
    ],
    ids=["tokens", "regions of interest", "single-step features", "not run"],
)
def test_what_is_no_map_is_one_line_in_the_first_training_iteration(model, images, message):
    hook = FiringRateMapsHook("backbone.lif")
    runner, batch = SimpleNamespace(model=model), batch_of(images)
    hook.before_run(runner)
    hook.before_train_iter(runner, 0, batch)
    model()
    with pytest.raises(UserError, match=message) as caught:
        hook.after_train_iter(runner, 0, batch)
    assert "\n" not in str(caught.value)


def test_training_is_listened_to_only_once():
    hook = FiringRateMapsHook("backbone.lif")
    model = Spiking(LIF(), currents_of(SIDE))
    runner = SimpleNamespace(model=model)
    hook.before_run(runner)
    hook.before_train_iter(runner, 0, batch_of(2))
    assert model.backbone.lif._forward_hooks
    model()
    hook.after_train_iter(runner, 0, batch_of(2))
    hook.before_train_iter(runner, 1, batch_of(2))
    assert not model.backbone.lif._forward_hooks


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("backbone.lff", "'backbone.lif'"),
        (
            "backbone",
            "backbone.lif, backbone.silent",
        ),
        ("head", "'head' is a Linear"),
    ],
)
def test_a_wrong_layer_is_one_line_that_names_right_ones(layer, message):
    model = Spiking(LIF(), [])
    model.head = nn.Linear(2, 2)
    with pytest.raises(UserError) as caught:
        find_neuron(model, layer)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_picture_has_a_row_a_call_and_a_column_a_time_step():
    image = np.zeros((20, 20, 3), np.uint8)
    rng = np.random.default_rng(0)

    def picture(calls: int, steps: int) -> np.ndarray:
        maps = [rng.random((steps, 4, 4)) for _ in range(calls)]
        return firing_rate_maps(image, maps, "neck.lif", (20, 20))

    one, steps, calls = picture(1, 1), picture(1, 4), picture(3, 1)
    assert one.dtype == np.uint8
    assert one.shape[2] == 3
    assert steps.shape[0] == one.shape[0]
    assert steps.shape[1] > 2 * one.shape[1]
    assert calls.shape[1] == one.shape[1]
    assert calls.shape[0] > 2 * one.shape[0]
    assert picture(50, 1).shape == picture(8, 1).shape


def test_a_map_lies_on_its_image_and_padding_is_cut_off():
    """The lower half fires of what the image was padded to: its lower quarter is in the image."""
    image = np.full((24, 32, 3), 255, np.uint8)
    rates = np.zeros((1, 4, 4))
    rates[:, 2:] = 1.0
    picture = firing_rate_maps(image, [rates], "x", (32, 32)).astype(int)
    dark = (np.abs(picture - (68, 1, 84)) < 3).all(-1)  # the ends of viridis
    bright = (np.abs(picture - (253, 231, 37)) < 3).all(-1)
    columns = np.flatnonzero(dark.sum(0) > 60)[:100]  # the map is left of the colour bar
    assert len(columns) == 100
    ratio = bright[:, columns].sum() / dark[:, columns].sum()
    assert ratio == pytest.approx(8 / 16, abs=0.05)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("data_root")
@pytest.mark.parametrize(
    ("task", "layer"),
    [
        ("segmentation", "backbone.model.stages.1.downsample.lif"),
        ("detection", "neck.fpn_convs.0.conv.fire.neuron"),
    ],
)
def test_a_run_leaves_maps_as_files_and_in_tensorboard(tmp_path, task: str, layer: str):
    hook = {"type": "FiringRateMapsHook", "layer": layer, "count": 2}
    config = tiny_config(task, custom_hooks=[hook])
    config["train_cfg"]["max_epochs"] = 1
    run = tiny_run(tmp_path / "run", task, config)
    loop.evaluate(run, loop.train(run))
    files = sorted((run.folder / "firing_rates" / layer).glob("*"))
    assert [file.name for file in files] == ["0000.png", "0003.png"]
    board = EventAccumulator(str(run.tensorboard), size_guidance={"images": 0}).Reload()
    (event,) = board.Images(f"firing_rates/{layer}/0003")
    with Image.open(files[1]) as picture:
        assert (event.width, event.height) == picture.size
