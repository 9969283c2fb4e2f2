"""The layouts of published checkpoints: how each published code names the tensors of a model.

A family has a file in this folder, or in another package, that registers its layout:

    LAYOUTS.register(PublishedLayout(...), name="my_family")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from spikebench.registry import Registry

LAYOUTS: Registry[PublishedLayout] = Registry("published layout", "spikebench.layouts")


@dataclass(frozen=True)
class PublishedLayout:
    """How a published code names and shapes the tensors of a classifier.

    Attributes:
        markers: parts of names that together only checkpoints of this code have. What stands before
            the first of them is a prefix of all names, such as `module.`.
        rename: a published name to that in our `Classifier`; works for modules, too.
        reshape: a published tensor to ours.
    """

    markers: tuple[str, ...]
    rename: Callable[[str], str]
    reshape: Callable[[Tensor], Tensor] = lambda tensor: tensor

    def prefix(self, keys: Iterable[str]) -> str | None:
        """What stands before the published names, often nothing; None for another layout."""
        keys = list(keys)
        for key in keys:
            prefix, name, _ = key.rpartition(self.markers[0])
            if not name or (prefix and not prefix.endswith(".")):
                continue
            if all(any(k.startswith(prefix + marker) for k in keys) for marker in self.markers):
                return prefix
        return None

    def translate(self, state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
        """A published state dict in the names and shapes of our `Classifier`.

        Args:
            state: the published tensors.
            prefix: what stands before their names; tensors without it are left out.
        """
        return {
            self.rename(key.removeprefix(prefix)): self.reshape(value)
            for key, value in state.items()
            if key.startswith(prefix)
        }


def find_layout(keys: Iterable[str]) -> tuple[PublishedLayout, str] | None:
    """The published layout of a state dict and the prefix of its names, or None.

    Where several layouts fit, the one with the most markers is meant.
    """
    keys = list(keys)
    layouts = sorted(map(LAYOUTS.get, LAYOUTS.names()), key=lambda layout: -len(layout.markers))
    for layout in layouts:
        prefix = layout.prefix(keys)
        if prefix is not None:
            return layout, prefix
    return None
