"""Gradient checkpointing: the backward pass computes again what the forward pass did not keep.

Gradients and running statistics are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


def recomputed(run: Callable[[Tensor], Tensor], x: Tensor, *modules: nn.Module) -> Tensor:
    """Compute `run(x)` and keep only `x`: the backward pass computes the rest again.

    Chen et al., arXiv 1604.06174. The second pass draws the same random numbers as the first and
    changes no buffer: batch norms count each batch once.

    Args:
        run: what to compute.
        x: its input.
        *modules: the modules that `run` calls.
    """
    spare = _SpareBuffers(modules)
    with _keeping_inputs():
        return checkpoint(run, x, use_reentrant=False, context_fn=lambda: (nullcontext(), spare))


def fire(neuron: nn.Module, norm: nn.Module, frames: Tensor, time_steps: int) -> Tensor:
    """Compute `neuron(norm(frames))` without keeping the output of the norm.

    A batch norm keeps its input for its own gradient. Its output, which the neuron would keep, is
    computed again from that input in the backward pass, to the same bits, in one pass over it.

    Args:
        neuron: of currents `(T, B, C, H, W)`.
        norm: of frames.
        frames: what a convolution gave, `(T * B, C, H, W)`.
        time_steps: T.

    Returns:
        Spikes `(T, B, C, H, W)`.
    """
    currents = norm(frames).unflatten(0, (time_steps, -1))
    if (
        not (isinstance(norm, nn.BatchNorm2d) and norm.training and torch.is_grad_enabled())
        or _inputs_are_kept
        or torch.compiler.is_compiling()
    ):
        return neuron(currents)
    kept, place, size = frames.detach(), currents.data_ptr(), currents.numel()

    def pack(tensor: Tensor) -> Tensor | tuple[torch.Size, tuple[int, ...]]:
        same = tensor.data_ptr() == place and tensor.numel() == size
        return (tensor.shape, tensor.stride()) if same else tensor

    def unpack(packed: Tensor | tuple[torch.Size, tuple[int, ...]]) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        with torch.no_grad():
            again = functional.batch_norm(
                kept, None, None, norm.weight, norm.bias, training=True, eps=norm.eps
            )
        return again.as_strided(*packed)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return neuron(currents)


_inputs_are_kept = False


@contextmanager
def _keeping_inputs() -> Iterator[None]:
    """Inside, `fire` leaves the choice of what to keep to the checkpoint around it."""
    global _inputs_are_kept
    before, _inputs_are_kept = _inputs_are_kept, True
    try:
        yield
    finally:
        _inputs_are_kept = before


class _SpareBuffers:
    """Inside, modules work on copies of their buffers, such as running statistics."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules = [module for root in modules for module in root.modules()]
        self.kept: list[tuple[nn.Module, str, Tensor]] = []
        self.checkpoint = ExitStack()

    def __enter__(self) -> None:
        self.checkpoint.enter_context(_keeping_inputs())
        self.kept = [
            (module, name, buffer)
            for module in self.modules
            for name, buffer in module.named_buffers(recurse=False)
        ]
        for module, name, buffer in self.kept:
            setattr(module, name, buffer.clone())

    def __exit__(self, *_: object) -> None:
        self.checkpoint.close()
        for module, name, buffer in self.kept:
            setattr(module, name, buffer)
