"""Layers over time that architectures share: each takes and gives (T, B, C, H, W).

A branch of a residual block ends in a batch norm: it gives a current f. A shortcut joins it to what
the branch read, so that a block maps x to the next x; SN is a spiking neuron:

    membrane    x + f(SN(x))    x is a membrane; the branch begins with the neuron
    sew         x + SN(f(x))    x is whole numbers: sums of spikes
    vanilla     SN(x + f(x))    x is spikes

Membrane shortcut: Hu et al., arXiv 2112.08954; spike-element-wise (SEW): Fang et al., NeurIPS 2021,
arXiv 2102.04159; vanilla: that of spiking ResNets before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikebench.backbones.folding import folded, is_foldable
from spikebench.backbones.recompute import fire, recomputed
from spikebench.neurons import LIF

Factory = Callable[..., nn.Module]
"""Makes a layer: of neurons, given keywords such as `threshold`, or of another kind."""


def per_frame(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer of `(N, C, H, W)` to `(T, B, C, H, W)`, time and batch merged into N."""
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class ConvNorm(nn.Module):
    """Convolution and batch norm, with the padding that keeps the size at stride 1.

    Args:
        dim_in: channels read.
        dim_out: channels given.
        kernel: width and height of the kernel; odd.
        stride: in pixels.
        bias: whether the convolution has one.
        conv: a layer over frames `(N, dim_in, H, W)` to use instead of that convolution.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        kernel: int = 1,
        stride: int = 1,
        bias: bool = False,
        conv: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if conv is None:
            conv = nn.Conv2d(dim_in, dim_out, kernel, stride, padding=kernel // 2, bias=bias)
        self.conv = conv
        self.norm = nn.BatchNorm2d(dim_out)

    def forward(self, x: Tensor, neuron: nn.Module | None = None) -> Tensor:
        """`(T, B, dim_in, H, W)` to currents `(T, B, dim_out, H / stride, W / stride)`.

        Given the neuron that reads them, it returns the neuron's spikes, which saves memory in
        training.
        """
        frames = self.conv(x.flatten(0, 1))
        if neuron is None:
            return self.norm(frames).unflatten(0, (len(x), -1))
        return fire(neuron, self.norm, frames, len(x))

    def deployed(self, fold_norms: bool, fuse: bool) -> nn.Module:
        """The norm folded into the convolution; see `spikebench.inference.deploy`."""
        if fold_norms and is_foldable(self.norm):
            self.set_submodule("conv", folded(self.conv, self.norm))
            self.set_submodule("norm", nn.Identity())
        return self


class Downsample(ConvNorm):
    """SN -> conv -> BN between stages; a stem, which reads the image, has no neuron.

    Args:
        dim_in: channels read.
        dim_out: channels given.
        kernel: width and height of the kernel; odd.
        stride: in pixels.
        neuron: makes the neuron in front, or `nn.Identity` where there is none.

    Attributes:
        repeat: whether evaluation convolves an image that is the same at all time steps at each of
            them, as published, so that operations are counted as published; training and a
            deployed model do so once.
    """

    repeat = True

    def __init__(
        self, dim_in: int, dim_out: int, kernel: int, stride: int, neuron: Factory
    ) -> None:
        super().__init__(dim_in, dim_out, kernel, stride, bias=True)
        self.lif = neuron()

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """`(T, B, dim_in, H, W)` to currents `(T, B, dim_out, H / stride, W / stride)`."""
        x = self.lif(x)
        if (self.repeat and not self.training) or x.stride(0):
            return super().forward(x)
        return super().forward(x[:1]).expand(len(x), -1, -1, -1, -1)

    def deployed(self, fold_norms: bool, fuse: bool) -> nn.Module:
        """As `ConvNorm.deployed`; a still image is convolved once."""
        self.repeat = False
        return super().deployed(fold_norms, fuse)


class Shortcut(nn.Module):
    """Joins the current of a branch to x, what the branch read; both `(T, B, C, H, W)`.

    Args:
        neuron: makes the neuron behind the branch, if the shortcut has one.

    Attributes:
        carries_spikes: whether what it gives is spikes or sums of them, not a membrane.
    """

    carries_spikes = True

    def __init__(self, neuron: Factory = LIF) -> None:
        super().__init__()
        if self.carries_spikes:
            self.lif = neuron()

    @classmethod
    def in_front(cls, neuron: Factory) -> Factory:
        """What makes the first layer of a branch: a neuron, unless x is spikes already."""
        return nn.Identity if cls.carries_spikes else neuron

    @classmethod
    def behind(cls, neuron: Factory) -> Factory:
        """What makes the layer behind a downsample: a neuron where spikes are carried on."""
        return neuron if cls.carries_spikes else nn.Identity


class MembraneShortcut(Shortcut):
    """x + f, for a branch that begins with a neuron."""

    carries_spikes = False

    def forward(self, x: Tensor, current: Tensor) -> Tensor:
        return x + current


class SpikeElementWiseShortcut(Shortcut):
    """x + SN(f)."""

    def forward(self, x: Tensor, current: Tensor) -> Tensor:
        return x + self.lif(current)


class VanillaShortcut(Shortcut):
    """SN(x + f)."""

    def forward(self, x: Tensor, current: Tensor) -> Tensor:
        return self.lif(x + current)


SHORTCUTS: dict[str, type[Shortcut]] = {
    "membrane": MembraneShortcut,
    "sew": SpikeElementWiseShortcut,
    "vanilla": VanillaShortcut,
}


class ResidualBlock(nn.Module):
    """Branches one after another, each joined to what it read by a shortcut.

    Args:
        branches: by name, in their order.
        shortcut: makes a shortcut.
        last: makes that of the last branch.
        drop_path: rate of stochastic depth. It drops currents, not what fires from them, so that
            sums of spikes stay whole numbers.

    Attributes:
        grad_checkpointing: whether the backward pass computes each branch again.
    """

    grad_checkpointing = False

    def __init__(
        self,
        branches: Mapping[str, nn.Module],
        shortcut: Factory,
        last: Factory,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)
        *names, end = branches
        self.shortcuts = nn.ModuleDict({**{name: shortcut() for name in names}, end: last()})
        self.drop_path = DropPath(drop_path)

    def branches(self) -> Iterator[nn.Module]:
        """The branches in their order."""
        return map(self.get_submodule, self.shortcuts)

    def forward(self, x: Tensor) -> Tensor:
        """`(T, B, C, H, W)` to what the last shortcut gives."""
        again = self.grad_checkpointing and torch.is_grad_enabled()
        for branch, shortcut in zip(self.branches(), self.shortcuts.values(), strict=True):
            step = partial(self._step, branch, shortcut)
            x = recomputed(step, x, branch, shortcut) if again else step(x)
        return x

    def _step(self, branch: nn.Module, shortcut: nn.Module, x: Tensor) -> Tensor:
        return shortcut(x, self.drop_path(branch(x)))


class MatMul(nn.Module):
    """A matrix product of two activations, a module so that operation counts can name it."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """`torch.matmul(a, b)`."""
        return a @ b


class Mask(nn.Module):
    """The elementwise product of two activations; where one is spikes, it masks the other."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """`a * b`."""
        return a * b


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., ECCV 2016, arXiv 1603.09382): drops a branch per sample.

    In training each sample loses the branch with the given probability, at all time steps together;
    the others are scaled up so that the mean stays. In evaluation nothing is dropped.

    Args:
        rate: probability of a drop, at least 0 and less than 1.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """What a branch gives, `(T, B, ...)`."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty(1, x.shape[1], *[1] * (x.dim() - 2)).bernoulli_(keep)
        return x * (mask / keep)

    def extra_repr(self) -> str:
        """Return the settings that `repr` shows."""
        return f"rate={self.rate:.3g}"


@contextmanager
def settling_norms(model: nn.Module) -> Iterator[list[_BatchNorm]]:
    """Reset the running statistics of batch norms; inside, they are the plain average of batches.

    Yields:
        The norms that keep running statistics.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    try:
        yield norms
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
