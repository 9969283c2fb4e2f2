"""Spiking layers written out: one time step after the other, membranes carried by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

WEIGHT_LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
Maps = tuple[Tensor, ...]


class ByHand:
    """Layers with a LIF each (tau 2, threshold 1, reset to 0), on the weights of a module.

    Args:
        module: whose state dict has the weights, under the names that methods take.
    """

    def __init__(self, module: nn.Module) -> None:
        self.weights = module.state_dict()
        self.membranes: dict[str, Tensor] = {}
        self.spikes: dict[str, list[Tensor]] = {}

    def fire(self, name: str, current: Tensor) -> Tensor:
        """One time step of the neurons before a layer."""
        membrane = self.membranes.get(name, torch.zeros_like(current))
        membrane = membrane + (current - membrane) / 2
        spikes = (membrane >= 1).to(current.dtype)
        self.membranes[name] = torch.where(spikes > 0, 0.0, membrane)
        self.spikes.setdefault(name, []).append(spikes)
        return spikes

    def conv(self, name: str, current: Tensor, **options: Any) -> Tensor:
        """Neurons and convolution."""
        return F.conv2d(self.fire(name, current), *self._of(name), **options)

    def module(self, name: str, current: Tensor, **options: Any) -> Tensor:
        """Neurons, convolution and, where there is one, batch norm in evaluation."""
        return self.norm(f"{name}.bn", self.conv(f"{name}.conv", current, **options))

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Batch norm in evaluation, where the module has that one."""
        if f"{name}.weight" not in self.weights:
            return x
        of = {key: self.weights[f"{name}.{key}"] for key in ("weight", "bias")}
        mean, variance = (self.weights[f"{name}.running_{key}"] for key in ("mean", "var"))
        return F.batch_norm(x, mean, variance, **of, training=False, eps=1e-5)

    def deconv(self, name: str, current: Tensor, **options: Any) -> Tensor:
        """Neurons and transposed convolution."""
        return F.conv_transpose2d(self.fire(name, current), *self._of(name), **options)

    def linear(self, name: str, current: Tensor) -> Tensor:
        """Neurons and fully connected layer."""
        return self.real(name, self.fire(name, current))

    def real(self, name: str, x: Tensor) -> Tensor:
        """A fully connected layer of real values."""
        return F.linear(x, *self._of(name))

    def _of(self, name: str) -> tuple[Tensor, Tensor | None]:
        return self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")


def every_step(
    module: nn.Module, step: Callable[..., Maps], maps: Maps, time_steps: int
) -> tuple[list[Maps], ByHand]:
    """What a step gives at every time step, for maps `(T * B, ...)`, and what did it."""
    hand = ByHand(module)
    over_time = zip(*(one.chunk(time_steps) for one in maps), strict=True)
    return [step(hand, *now) for now in over_time], hand


def enliven(module: nn.Module) -> nn.Module:
    """Give a module weights with which some neurons of every layer fire and others do not.

    Everything is in double precision, where no rounding decides about a spike.
    """
    generator = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        if weight.dim() > 1:
            fan_in = max(weight[0].numel(), len(weight))
            nn.init.normal_(weight, std=3 / math.sqrt(fan_in), generator=generator)
        else:
            nn.init.uniform_(weight, 0.5, 1.5, generator=generator)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.normal_(norm.running_mean, std=0.3, generator=generator)
            nn.init.uniform_(norm.running_var, 0.5, 1.5, generator=generator)
    return module.double().eval()


def membranes(*shape: int, seed: int = 0) -> Tensor:
    """Random membranes of which about a third fire at once, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    return 1 + 2 * torch.randn(*shape, generator=generator, dtype=torch.float64)


class Reads(TorchFunctionMode):
    """Notes what the weight layers of a model read, whatever calls them.

    Args:
        model: whose layers; after its call `inputs` has their inputs by name.
    """

    FUNCTIONS = (F.conv2d, F.conv_transpose2d, F.linear)

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {
            id(layer.weight): name
            for name, layer in model.named_modules()
            if isinstance(layer, WEIGHT_LAYERS)
        }
        self.inputs: dict[str, list[Tensor]] = {}

    def __torch_function__(
        self, func: Callable, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in self.FUNCTIONS and id(args[1]) in self.names:
            self.inputs.setdefault(self.names[id(args[1])], []).append(args[0].detach())
        return func(*args, **(kwargs or {}))

    @property
    def silent(self) -> set[str]:
        """The layers that were not called."""
        return set(self.names.values()) - self.inputs.keys()

    def not_binary(self) -> set[str]:
        """The layers that read something else than 0 and 1."""
        return {
            name
            for name, inputs in self.inputs.items()
            if not all(((x == 0) | (x == 1)).all() for x in inputs)
        }
