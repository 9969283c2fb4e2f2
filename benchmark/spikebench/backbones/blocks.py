"""The blocks of Meta-SpikeFormer: branches of spiking layers, and the shortcuts that join them.

A branch ends in a batch norm: it gives a current f. A shortcut joins it to what the branch read, so
that a block maps x to the next x; SN is a spiking neuron:

    membrane    x + f(SN(x))    x is a membrane; the branch begins with the neuron
    sew         x + SN(f(x))    x is whole numbers: sums of spikes
    vanilla     SN(x + f(x))    x is spikes

So neurons stand in front of the convolutions of a downsample or branch where membranes are carried
on, and behind its batch norms where spikes are. Heads read membranes in all three: the map of a
stage is its last sum x + f, before any neuron. Where spikes are carried on, the stage gives them
beside it; the last stage, which nothing reads but heads, has no neuron there.

Membrane shortcut: Hu et al., arXiv 2112.08954; spike-element-wise (SEW): Fang et al., NeurIPS 2021,
arXiv 2102.04159; vanilla: that of spiking ResNets before them and of Spikformer (arXiv 2209.15425).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikebench.backbones.layers import ConvNorm, DropPath, per_frame
from spikebench.backbones.recompute import recomputed
from spikebench.neurons import LIF

Factory = Callable[..., nn.Module]
ShortcutName = Literal["membrane", "sew", "vanilla"]


class Downsample(ConvNorm):
    """SN -> conv -> BN between stages; the stem, which reads the image, has no neuron.

    Attributes:
        repeat: whether evaluation convolves an image that is the same at all time steps at each of
            them, as published, so that operations are counted as published; training and a
            deployed model do so once.
    """

    repeat = True

    def __init__(
        self, dim_in: int, dim_out: int, stride: int, stem: bool = False, front: Factory = LIF
    ) -> None:
        super().__init__(dim_in, dim_out, 7 if stem else 3, stride, bias=True)
        self.lif = nn.Identity() if stem else front()

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        x = self.lif(x)
        if (self.repeat and not self.training) or x.stride(0):
            return super().forward(x)
        return super().forward(x[:1]).expand(len(x), -1, -1, -1, -1)


class SepConv(nn.Module):
    """Spiking separable convolution: SN, pw, BN, SN, dw 7x7, pw, BN.

    Nothing stands between the depthwise and the second pointwise convolution: together they are one
    linear map of spikes.

    Args:
        dim: channels.
        expansion: of the channels in between.
        neuron: makes a neuron.
        front: makes the first one, or `nn.Identity` where the input is spikes.
    """

    def __init__(
        self, dim: int, expansion: int = 2, neuron: Factory = LIF, front: Factory = LIF
    ) -> None:
        super().__init__()
        hidden = expansion * dim
        self.lif1 = front()
        self.pw1 = ConvNorm(dim, hidden)
        self.lif2 = neuron()
        self.dw = nn.Conv2d(hidden, hidden, 7, padding=3, groups=hidden, bias=False)
        self.pw2 = ConvNorm(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        spikes = self.pw1(self.lif1(x), self.lif2)
        return self.pw2(per_frame(self.dw, spikes))


class ChannelConv(nn.Module):
    """Spiking channel mixer of the convolution blocks: twice SN, conv 3x3, BN.

    Arguments as in `SepConv`.
    """

    def __init__(
        self, dim: int, expansion: int = 4, neuron: Factory = LIF, front: Factory = LIF
    ) -> None:
        super().__init__()
        self.lif1 = front()
        self.conv1 = ConvNorm(dim, expansion * dim, 3)
        self.lif2 = neuron()
        self.conv2 = ConvNorm(expansion * dim, dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(self.lif1(x), self.lif2))


class SpikingMLP(nn.Module):
    """Channel mixer of the transformer blocks: twice SN, pw with bias, BN.

    Arguments as in `SepConv`.
    """

    def __init__(
        self, dim: int, expansion: int = 4, neuron: Factory = LIF, front: Factory = LIF
    ) -> None:
        super().__init__()
        self.lif1 = front()
        self.fc1 = ConvNorm(dim, expansion * dim, bias=True)
        self.lif2 = neuron()
        self.fc2 = ConvNorm(expansion * dim, dim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(self.lif1(x), self.lif2))


class Shortcut(nn.Module):
    """Joins the current of a branch to x, what the branch read; both (T, B, C, H, W).

    Args:
        neuron: makes the neuron behind the branch, where there is one.
    """

    carries_spikes = True

    def __init__(self, neuron: Factory = LIF) -> None:
        super().__init__()
        if self.carries_spikes:
            self.lif = neuron()


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


class Fork(nn.Module):
    """The end of a stage that carries spikes on: the membrane x + f for heads, and these spikes."""

    def __init__(self, shortcut: Shortcut) -> None:
        super().__init__()
        self.shortcut = shortcut

    def forward(self, x: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        return x + current, self.shortcut(x, current)


SHORTCUTS: dict[str, type[Shortcut]] = {
    "membrane": MembraneShortcut,
    "sew": SpikeElementWiseShortcut,
    "vanilla": VanillaShortcut,
}


@dataclass(frozen=True)
class Wiring:
    """Which neurons and which shortcuts the blocks of a network have.

    Attributes:
        neuron: makes a neuron, given its `threshold` and whether to `learn_threshold`.
        shortcut: one of `SHORTCUTS`.
    """

    neuron: Factory
    shortcut: type[Shortcut]

    @property
    def front(self) -> Factory:
        """Makes what stands in front of a convolution that reads what shortcuts carry on."""
        return nn.Identity if self.shortcut.carries_spikes else self.neuron

    def behind_downsample(self) -> nn.Module:
        """What makes the output of a downsample fit to be carried on."""
        return self.neuron() if self.shortcut.carries_spikes else nn.Identity()

    def join(self) -> Shortcut:
        """A shortcut inside a stage."""
        return self.shortcut(self.neuron)

    def end_of_stage(self) -> nn.Module:
        """The last shortcut of a stage that another one reads."""
        return Fork(self.join()) if self.shortcut.carries_spikes else self.join()


class Block(nn.Module):
    """Branches one after another, each with its shortcut.

    Args:
        branches: by name, in their order.
        wiring: of the network.
        end: makes the last shortcut; `wiring.join` inside a stage.
        drop_path: rate of stochastic depth. It drops currents, not what fires from them, so that
            sums of spikes stay whole numbers.

    Attributes:
        grad_checkpointing: whether the backward pass computes each branch again.
    """

    grad_checkpointing = False

    def __init__(
        self,
        branches: Mapping[str, nn.Module],
        wiring: Wiring,
        end: Callable[[], nn.Module],
        drop_path: float,
    ) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)
        *names, last = branches
        self.shortcuts = nn.ModuleDict({**{name: wiring.join() for name in names}, last: end()})
        self.drop_path = DropPath(drop_path)

    def branches(self) -> Iterator[nn.Module]:
        """The branches in their order."""
        return map(self.get_submodule, self.shortcuts)

    def forward(self, x: Tensor) -> Tensor:
        again = self.grad_checkpointing and torch.is_grad_enabled()
        for branch, shortcut in zip(self.branches(), self.shortcuts.values(), strict=True):
            step = partial(self._step, branch, shortcut)
            x = recomputed(step, x, branch, shortcut) if again else step(x)
        return x

    def _step(self, branch: nn.Module, shortcut: nn.Module, x: Tensor) -> Tensor:
        return shortcut(x, self.drop_path(branch(x)))


class ConvBlock(Block):
    """A separable convolution, a channel mixer, or both.

    Args:
        dim: channels.
        wiring: of the network.
        mlp_ratio: expansion of the channel mixer.
        sep_conv: whether there is a `SepConv`.
        channel_conv: whether there is a `ChannelConv`.
        **place: `end` and `drop_path` of `Block`.
    """

    def __init__(
        self, dim: int, wiring: Wiring, mlp_ratio: int, sep_conv: bool, channel_conv: bool, **place
    ) -> None:
        neurons: dict[str, Any] = {"neuron": wiring.neuron, "front": wiring.front}
        branches: dict[str, nn.Module] = {}
        if sep_conv:
            branches["sep_conv"] = SepConv(dim, **neurons)
        if channel_conv:
            branches["channel_conv"] = ChannelConv(dim, mlp_ratio, **neurons)
        super().__init__(branches, wiring, **place)


class TransformerBlock(Block):
    """Spike-driven self-attention and an MLP.

    Args:
        dim: channels.
        wiring: of the network.
        mlp_ratio: expansion of the MLP.
        attention: makes the attention, given `dim`, `neuron` and `front`.
        **place: `end` and `drop_path` of `Block`.
    """

    def __init__(
        self, dim: int, wiring: Wiring, mlp_ratio: int, attention: Factory, **place
    ) -> None:
        neurons: dict[str, Any] = {"neuron": wiring.neuron, "front": wiring.front}
        branches = {
            "attn": attention(dim, **neurons),
            "mlp": SpikingMLP(dim, mlp_ratio, **neurons),
        }
        super().__init__(branches, wiring, **place)


class Stage(nn.Module):
    """A downsample and the blocks at its resolution.

    Args:
        downsample: the first layer.
        lif: the neuron behind it where the blocks carry spikes, otherwise `nn.Identity`.
        blocks: of one kind.
    """

    def __init__(self, downsample: Downsample, lif: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.downsample = downsample
        self.lif = lif
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """What the stage before carried on to the stage's map, and spikes if there is a `Fork`."""
        return self.blocks(self.lif(self.downsample(x)))
