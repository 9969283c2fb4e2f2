"""The deploy form of a trained model: the same function of its input, in fewer or fatter layers.

A layer that knows more about itself than its code shows says so in a method

    def deployed(self, fold_norms: bool, fuse: bool) -> nn.Module

which `deploy` calls on a copy, after those of the layers inside it. It returns what takes its
place, or itself: without batch norms if `fold_norms`, with linear layers in a row as one if `fuse`.
Only layers with `can_fuse = True` are asked to fuse: a RepConv is three convolutions without its
norms, and one dense 3x3 if fused.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Collection
from functools import partial

from torch import nn

from spikebench.backbones.folding import DeployError, folded
from spikebench.forms import FORMS, known_form
from spikebench.inference.tracing import provable_pairs

log = logging.getLogger("spikebench")

__all__ = ["DeployError", "deploy", "in_form"]


def deploy(
    model: nn.Module, fold_norms: bool = True, fuse: bool | str | Collection[str] = False
) -> nn.Module:
    """Copy a model into a form for inference; `in_form` makes the named ones.

    Folding and fusing are exact: only rounding differs, by about 1e-7 of a layer's scale in
    float32. The stem of Meta-SpikeFormer meets a still image once and not T times.

    Where rounding lifts a membrane over its threshold a spike flips, and with it what
    follows; whole models are therefore best compared in float64.

    Args:
        model: a backbone, a classifier or any other module, with its weights loaded: a deployed
            model has other ones. It is not changed.
        fold_norms: fold batch norms into the convolutions before them: in layers that say how, and
            in other modules wherever tracing their code with `torch.fx` proves that a plain
            `nn.Conv1d`, `nn.Conv2d` or `nn.Conv3d` is called once and that only the norm reads what
            it gives. Norms behind linear layers stay (which axis they normalise depends on the
            input), as do norms without running statistics. What stays is logged, with the reason.
        fuse: make linear layers in a row one dense layer: True for all layers that can (their
            attribute `can_fuse`), or the names of their classes. `RepConv` becomes a 3x3
            convolution: the parameters of Meta-SpikeFormer 15M grow from 15.1 M to 33.2 M. The last
            two convolutions of a `SepConv` become a 7x7, which adds 3.6 M.

    Returns:
        The copy, in evaluation mode and without gradients. Its `train()` raises `DeployError`:
        without its norms it would train as another model.

    Raises:
        DeployError: a layer to fold was replaced by another kind, or has hooks; or the model has no
            layer of a kind to fuse.
    """
    deployed = copy.deepcopy(model).eval().requires_grad_(False)
    fuse = [fuse] if isinstance(fuse, str) else fuse
    names = {type(one).__name__ for one in model.modules() if getattr(one, "can_fuse", False)}
    if not isinstance(fuse, bool) and (missing := set(fuse) - names):
        raise DeployError(
            f"no layer to fuse is a {min(missing)}; {type(model).__name__} has "
            f"{', '.join(sorted(names)) or 'none that can be fused'}"
        )
    deployed = _Layers(fold_norms, fuse).deployed(deployed)
    if fold_norms:
        _fold_foreign(deployed)
    deployed.eval()
    vars(deployed)["train"] = partial(_train, deployed)
    return deployed


def _own(module: nn.Module) -> Callable[[bool, bool], nn.Module] | None:
    """A layer's method that says how it is deployed."""
    method = getattr(module, "deployed", None)
    return method if callable(method) else None


class _Layers:
    """Deploys the layers that say how, each once, the inner ones first."""

    def __init__(self, fold_norms: bool, fuse: bool | Collection[str]) -> None:
        self.fold_norms = fold_norms
        self.fuse = fuse
        self.done: dict[nn.Module, nn.Module] = {}

    def deployed(self, module: nn.Module) -> nn.Module:
        if module not in self.done:
            for name, child in list(module._modules.items()):
                if child is not None:
                    module._modules[name] = self.deployed(child)
            own = _own(module)
            self.done[module] = own(self.fold_norms, self._fuses(module)) if own else module
        return self.done[module]

    def _fuses(self, module: nn.Module) -> bool:
        return self.fuse if isinstance(self.fuse, bool) else type(module).__name__ in self.fuse


def in_form(model: nn.Module, form: str) -> nn.Module:
    """The model in one of the forms of `spikebench.forms`: itself as coded, else a deployed copy.

    Raises:
        UnknownNameError: there is no such form.
        DeployError: see `deploy`.
    """
    arguments = FORMS[known_form(form)].deploy
    return model if arguments is None else deploy(model, **arguments)


def _train(model: nn.Module, mode: bool = True) -> nn.Module:
    if mode:
        raise DeployError(
            f"this {type(model).__name__} is deployed, its norms folded: train the model that "
            "deploy() copied, and deploy it again"
        )
    return type(model).train(model, False)


def _fold_foreign(model: nn.Module) -> None:
    """Fold the norms of plain modules where tracing proves that nothing changes."""
    kept: dict[str, list[str]] = {}
    for name, found in provable_pairs(model):
        if isinstance(found, str):
            merged = folded(model.get_submodule(found), model.get_submodule(name))
            model.set_submodule(found, merged)
            model.set_submodule(name, nn.Identity())
        else:
            kept.setdefault(str(found), []).append(name)
    for reason, names in kept.items():
        others = f" and {len(names) - 1} others stay" if names[1:] else " stays"
        log.warning("deploy: batch norm %s%s: %s", names[0], others, reason)
