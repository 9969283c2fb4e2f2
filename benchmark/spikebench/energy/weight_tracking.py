"""Which tensors are weights: parameters, buffers, and what is computed from these alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

StorageKey = StorageWeakRef


class WeightTracker:
    """The storages of parameters, of buffers and of what is computed from these alone.

    Args:
        named: parameters and buffers with their names, as `named_weights` gives them.
    """

    def __init__(self, named: Iterable[tuple[str, Tensor]]) -> None:
        self._names: dict[StorageKey, list[str]] = {}
        for name, tensor in named:
            if tensor.layout is not torch.strided:
                continue
            self._names.setdefault(storage_of(tensor), []).append(name)

    def __contains__(self, x: Tensor) -> bool:
        return x.layout is torch.strided and storage_of(x) in self._names

    def names(self, x: Tensor) -> list[str]:
        """The full names of the parameter that `x` is or is a view of; empty if it is computed."""
        return self._names.get(storage_of(x), [])

    def follow(self, func: Any, args: Sequence[Any], output: Any) -> None:
        """Note what an operation makes of weights, and what it writes over them."""
        inputs = tensors_in(args)
        first = next(inputs, None)
        if first is None:
            return
        if first in self and all(x in self for x in inputs):
            for x in tensors_in([output]):
                if x.layout is torch.strided:
                    self._names.setdefault(storage_of(x), [])
            return
        for position in _written(func):
            for x in tensors_in(args[position : position + 1]):
                if x.layout is torch.strided:
                    self._names.pop(storage_of(x), None)


def named_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers of a model, under all of their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


@cache
def _written(func: Any) -> list[int]:
    """The positions of the arguments that an operation writes to."""
    arguments = enumerate(func._schema.arguments)
    return [i for i, argument in arguments if argument.alias_info and argument.alias_info.is_write]


def storage_of(x: Tensor) -> StorageKey:
    """The storage of `x`, as a key that keeps no memory alive and names no other storage."""
    return StorageWeakRef(x.untyped_storage())


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among `values`, those in tuples and lists included."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from tensors_in(value)
