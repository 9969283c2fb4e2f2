"""Finds batch norms that read a convolution and nothing else, by tracing code that is not ours.

Every module is traced alone with `torch.fx`, its submodules as opaque calls. A pair is proved if,
in the forwards of all modules above it, convolution and norm each occur once, as a call, and the
convolution's output goes to the norm only. A forward that cannot be traced, such as one with
branches on its input, proves nothing about what is below it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikebench.backbones.folding import CONVOLUTIONS, is_plain
from spikebench.backbones.zoo import to_time_first

_CONTAINERS = (nn.ModuleList, nn.ModuleDict)  # never called: who holds one calls its elements


class Unproved(Exception):
    """A norm cannot be folded; the message says why."""


class _OwnCode(fx.Tracer):
    """Traces one module's own code."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=(to_time_first,))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def provable_pairs(model: nn.Module) -> Iterator[tuple[str, str | Unproved]]:
    """Look for the convolution of every batch norm of a model in evaluation mode.

    Args:
        model: any module; it is not changed.

    Yields:
        The full name of a norm, and that of its convolution or why there is none.
    """
    norms = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    traces = _Traces(copy.deepcopy(model))  # a forward may keep what it is given
    for name in norms:
        try:
            yield name, traces.convolution_before(name)
        except Unproved as reason:
            yield name, reason


class _Traces:
    """The forwards of a model, each traced when it is first asked for."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.graph = cache(self._graph)

    def convolution_before(self, name: str) -> str:
        norm = self.modules[name]
        if norm.running_mean is None:
            raise Unproved("it has no running statistics")
        if not is_plain(norm):
            raise Unproved("it is not a plain batch norm, or has hooks")
        owner, call = self._only_call(name)
        source = call.args[0] if call.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module":
            raise Unproved("what it normalises is not the output of a convolution")
        conv = _join(owner, str(source.target))
        if not isinstance(self.modules[conv], CONVOLUTIONS) or not is_plain(self.modules[conv]):
            raise Unproved(f"{conv} before it is not a plain convolution, or has hooks")
        self._only_call(conv)
        if set(source.users) != {call}:
            raise Unproved(f"the output of {conv} is used elsewhere, too")
        return conv

    def _only_call(self, name: str) -> tuple[str, fx.Node]:
        """The one place in the model's code that touches a module."""
        if list(self.modules.values()).count(self.modules[name]) > 1:
            raise Unproved(f"{name} is shared")
        places = [
            (owner, node)
            for owner in _above(name)
            for node in self.graph(owner).nodes
            if node.op in ("call_module", "get_attr")
            and f"{_join(owner, node.target)}.".startswith(f"{name}.")
        ]
        if not places:
            raise Unproved(f"no forward calls {name}")
        if len(places) > 1 or places[0][1].op != "call_module":
            raise Unproved(f"{name} is used in {len(places)} places, or not as a layer")
        return places[0]

    def _graph(self, name: str) -> fx.Graph:
        module = self.modules[name]
        if isinstance(module, _CONTAINERS):
            return fx.Graph()
        try:
            return _OwnCode().trace(module)
        except Exception as error:
            cause = str(error).strip().split("\n")[0]
            what = f"{name} ({type(module).__name__})" if name else type(module).__name__
            raise Unproved(f"the forward of {what} cannot be traced: {cause}") from error


def _above(name: str) -> Iterator[str]:
    """The full names of the modules that hold `name`, from the root down."""
    parts = name.split(".") if name else []
    return (".".join(parts[:length]) for length in range(len(parts)))


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)
