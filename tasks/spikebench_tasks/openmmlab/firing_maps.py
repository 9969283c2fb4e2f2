"""Pictures of where on an image the neurons of a chosen layer fire.

Switched on in a configuration:

    custom_hooks = [
        dict(type="FiringRateMapsHook", layer="backbone.model.stages.1.downsample.lif"),
    ]
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from mmengine.model import BaseTTAModel
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from spikebench.errors import UserError
from spikebench.neurons import Neuron, is_neuron
from spikebench.registry import unknown_name
from spikebench_tasks.openmmlab.checkpoints import bare
from spikebench_tasks.openmmlab.pictures import EvenlySpreadHook

log = logging.getLogger("spikebench")

_MOST_CALLS = 8
_NAMED = 8


@HOOKS.register_module()
class FiringRateMapsHook(EvenlySpreadHook):
    """Draws where on the image the neurons of a layer fire, over time and at each time step.

    A map is the share of channels that fire at each place. A layer that runs several times in a
    forward pass, as the heads do on every level of a pyramid, gets a row for each. Of test images
    that are augmented none is drawn, and a line says so. PNG files are
    `<work_dir>/firing_rates/<layer>/<image>.png`.

    Args:
        layer: a layer of neurons by its name in the model, as in `model.named_modules()`:
            "backbone.model....", "neck....".
        count: how many images, spread evenly over the split; 0 draws none.

    Raises:
        UserError: the model has no such layer of neurons, it is not run, or its spikes are no maps
            of the images: not of shape `(T, B, C, H, W)`, or, one time step at a time,
            `(B, C, H, W)`. A model that is trained says so in its first iteration.
    """

    def __init__(self, layer: str, count: int = 4) -> None:
        super().__init__(f"firing_rates/{layer}", count)
        self.layer = layer
        self._checked = False
        self._spikes: list[Tensor] = []
        self._listening = contextlib.ExitStack()

    def before_run(self, runner: Runner) -> None:
        model = bare(runner.model)
        self._neuron = find_neuron(model, self.layer)
        self._time_steps = getattr(getattr(model, "backbone", None), "time_steps", 1)

    def before_test(self, runner: Runner) -> None:
        if any(isinstance(module, BaseTTAModel) for module in runner.model.modules()):
            log.warning("no maps of %s: test images are augmented; tta=False has maps", self.layer)
            return
        super().before_test(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if not self._checked:
            self._listen()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if not self._checked:
            self._heard(len(data_batch["inputs"]))
            self._checked = True

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if self.wanted_of(data_batch["data_samples"]):
            self._listen()

    before_test_iter = before_val_iter

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        wanted = self.wanted_of(data_batch["data_samples"])
        if not wanted:
            return
        calls = self._heard(len(data_batch["inputs"]))
        for place, name, _ in wanted:
            image = data_batch["inputs"][place].permute(1, 2, 0).flip(-1)
            padded = outputs[place].metainfo
            padded = padded.get("batch_input_shape") or padded.get("pad_shape") or image.shape
            maps = [rates[:, place].numpy() for rates in calls]
            image = image.clamp(0, 255).to(torch.uint8).numpy()
            self.save(runner, name, firing_rate_maps(image, maps, self.layer, padded[:2]))

    after_test_iter = after_val_iter

    def _listen(self) -> None:
        self._spikes = []

        def keep(module: nn.Module, inputs: Any, spikes: Tensor) -> None:
            self._spikes.append((spikes.detach() != 0).cpu())

        self._listening.enter_context(_hooked(self._neuron, keep))

    def _heard(self, images: int) -> list[Tensor]:
        """Rates `(T, B, H, W)` of every call of the layer since `_listen`."""
        self._listening.close()
        fired, self._spikes = self._spikes, []
        if not fired:
            raise UserError(
                f"FiringRateMapsHook: layer {self.layer!r} did not run on the images; "
                "choose one that takes part in testing"
            )
        shape, mode = tuple(fired[0].shape), _step_mode(self._neuron, fired[0], images)
        expected = 5 if mode == "m" else 4
        if len(shape) != expected or shape[expected - 4] != images:
            wanted = "(T, B, C, H, W)" if mode == "m" else "(B, C, H, W)"
            raise UserError(
                f"FiringRateMapsHook: layer {self.layer!r} gives spikes of shape {shape}; "
                f"expected maps of the batch's {images} images, {wanted}: "
                "choose a layer that sees whole images, beside a convolution"
            )
        rates = [one.float().mean(-3) for one in fired]
        return rates if mode == "m" else _together(rates, self._time_steps)


def find_neuron(model: nn.Module, layer: str) -> nn.Module:
    """The layer of neurons of that name.

    Raises:
        UnknownNameError: there is none; the message names near ones.
        UserError: what has the name is no neuron; the message names the first ones inside it.
    """
    modules = dict(model.named_modules())
    neurons = [name for name, module in modules.items() if is_neuron(module)]
    if layer in neurons:
        return modules[layer]
    if layer not in modules:
        raise unknown_name("layer of neurons", layer, neurons)
    inside = [name for name in neurons if not layer or name.startswith(f"{layer}.")]
    more = f" and {len(inside) - _NAMED} more" if len(inside) > _NAMED else ""
    raise UserError(
        f"layer {layer!r} is a {type(modules[layer]).__name__}, not a layer of neurons; "
        + (f"inside it are {', '.join(inside[:_NAMED])}{more}" if inside else "none is inside it")
    )


def firing_rate_maps(
    image: np.ndarray, calls: Sequence[np.ndarray], layer: str, padded: Sequence[int]
) -> np.ndarray:
    """A picture of an image and of where on it a layer fires.

    Args:
        image: as the model saw it, RGB, of shape `(H, W, 3)`.
        calls: firing rates of each call of the layer, of shape `(T, H_i, W_i)`.
        layer: its name.
        padded: height and width that the image was padded to, at its lower and right edge.

    Returns:
        A row for each of the first calls: the image, the mean over time, and each time step where
        there are several; RGB, of shape `(H', W', 3)`.
    """
    shown = calls[:_MOST_CALLS]
    steps = shown[0].shape[0]
    columns = 2 + (steps if steps > 1 else 0)
    height, width = image.shape[:2]
    each = 3.0
    figure = Figure(
        figsize=(each * columns + 1, each * min(2.0, height / width) * len(shown) + 0.8),
        layout="constrained",
    )
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(len(shown), columns, squeeze=False)
    highest = max(float(rates.max()) for rates in shown) or 1.0
    for row, rates in zip(grid, shown, strict=True):
        row[0].imshow(image)
        row[0].set_title("image")
        maps = [("mean over time" if steps > 1 else "rate", rates.mean(0))]
        if steps > 1:
            maps += [(f"t = {step}", rate) for step, rate in enumerate(rates, start=1)]
        for axes, (title, rate) in zip(row[1:], maps, strict=True):
            drawn = axes.imshow(
                rate,
                extent=(0, padded[1], padded[0], 0),
                vmin=0,
                vmax=highest,
                cmap="viridis",
                interpolation="nearest",
            )
            axes.set(xlim=(0, width), ylim=(height, 0))
            axes.set_title(f"{title}: {rate.mean():.3f}")
        row[1].set_ylabel(f"{rates.shape[1]} x {rates.shape[2]}")
        for axes in row:
            axes.set(xticks=[], yticks=[])
    figure.colorbar(drawn, ax=grid, label="share of channels that fire", aspect=20 * len(shown))
    some = f", first {len(shown)} of {len(calls)} calls" if len(shown) < len(calls) else ""
    figure.suptitle(f"{layer}{some}")
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


@contextlib.contextmanager
def _hooked(module: nn.Module, hook: Any) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _together(rates: Sequence[Tensor], time_steps: int) -> list[Tensor]:
    """Rates `(B, H, W)` of single time steps as `(T, B, H, W)`, one for each size of map."""
    calls: list[list[Tensor]] = []
    for one in rates:
        if not calls or len(calls[-1]) == time_steps or calls[-1][0].shape != one.shape:
            calls.append([])
        calls[-1].append(one)
    return [torch.stack(steps) for steps in calls]


def _step_mode(neuron: nn.Module, spikes: Tensor, images: int) -> str:
    """Whether a neuron sees all time steps at once, "m", or one after the other, "s"."""
    mode = getattr(neuron, "step_mode", "m" if isinstance(neuron, Neuron) else None)
    if mode is None:
        return "s" if spikes.dim() == 4 and spikes.shape[0] == images else "m"
    return mode
