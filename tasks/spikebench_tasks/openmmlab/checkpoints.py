"""MMEngine checkpoints: written atomically, plain data, with all that resuming needs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from spikebench.seeding import derived_seed, seed_everything
from spikebench.weights.loading import WeightsError, read_weights, unwrap
from spikebench.weights.published import find_layout

log = logging.getLogger("spikebench")

_NAMED = 5


@register_backend("whole", prefixes=None)
class WholeFileBackend(LocalBackend):
    """Local files that appear under their name only once complete."""

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write to a temporary name beside `filepath`, then rename."""
        path = Path(filepath)
        temporary = path.with_name(f".{path.name}.part")
        super().put(obj, temporary)
        temporary.replace(path)


@HOOKS.register_module()
class PlainCheckpointHook(CheckpointHook):
    """Saves checkpoints that `torch.load(..., weights_only=True)` accepts, whole or not at all.

    MMEngine puts its log buffers, instances of a class of its own, and NumPy scalars into a
    checkpoint. The buffers only smooth the figures of the log, and are left out. The
    checkpoint before the last is kept, unless `max_keep_ckpts` says otherwise.

    On CPU, a resumed run reproduces an uninterrupted one bit for bit. To do so, checkpoints also
    hold accumulated gradients that are not yet applied (their mean over processes), and all random
    generators are seeded again at each checkpoint, from seed, iteration and rank.

    Args:
        interval: epochs or iterations between two checkpoints; by default one epoch, or, where
            iterations are counted, all of the training.
        by_epoch: whether epochs are counted, or iterations.
        max_keep_ckpts: how many checkpoints stay on disk.
        **options: further ones of `CheckpointHook`.
    """

    def __init__(
        self,
        interval: int | None = None,
        by_epoch: bool = True,
        max_keep_ckpts: int = 2,
        **options: Any,
    ) -> None:
        if interval is None:
            interval = 1 if by_epoch else -1
        super().__init__(
            interval=interval,
            by_epoch=by_epoch,
            max_keep_ckpts=max_keep_ckpts,
            backend_args={"backend": "whole"},
            **options,
        )
        self._gradients: dict[str, Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        weights = dict(bare(runner.model).named_parameters())
        for name, gradient in self._gradients.items():
            weights[name].grad = gradient.to(weights[name].device)
        seed_everything(derived_seed(runner.seed, runner.iter, runner.rank))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if runner._resume:
            self._gradients = checkpoint.get("gradients", {})

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if self._gradients:
            checkpoint["gradients"] = self._gradients
        hub = checkpoint["message_hub"]
        hub["log_scalars"] = {}
        hub["runtime_info"] = {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in hub["runtime_info"].items()
        }

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        # every process gets here, but only the main one to `before_save_checkpoint`
        self._gradients = _unapplied_gradients(runner)
        super()._save_checkpoint_with_step(runner, step, {**meta, "processes": runner.world_size})
        seed_everything(derived_seed(runner.seed, meta["iter"], runner.rank))


class SafeRunner(Runner):
    """A Runner that reads only weights and plain data from checkpoints.

    A checkpoint to resume from must match in every key. `load_from` may be of another model: what
    fits is loaded, and what does not is logged.
    """

    def load_checkpoint(
        self,
        filename: str,
        map_location: str | Callable = "cpu",
        strict: bool = False,
        revise_keys: list | None = None,
    ) -> Mapping[str, Any]:
        """Load a checkpoint into the model and pass it to the hooks.

        Args:
            filename: what `spikebench.weights.loading.read_weights` reads.
            map_location: not used: what is loaded takes the place of what is there.
            strict: whether it must fit in every key; if resuming, it must in any case.
            revise_keys: not used.

        Raises:
            WeightsError: it cannot be read, does not fit, or nothing of it fits.
        """
        content: dict[str, Any] = dict(read_weights(filename))
        model = bare(self.model)
        if self._resume or strict:
            self.call_hook("after_load_checkpoint", checkpoint=content)
            _require_fit(content["state_dict"], model.state_dict(), filename)
            model.load_state_dict(content["state_dict"])
        else:
            state = _in_our_names(unwrap(content))
            own = model.state_dict()
            misfits = _Misfits(state, own)
            for kind, keys in misfits.items():
                self.logger.info("load_from %s: %s: %s", filename, kind, ", ".join(keys))
            content = {"state_dict": _fitting(state, own, misfits, filename)}
            self.call_hook("after_load_checkpoint", checkpoint=content)
            model.load_state_dict(content["state_dict"], strict=False)
        self._has_loaded = True
        return content

    def _init_model_weights(self) -> None:
        if not self._resume:  # files that a model starts from may be gone by then
            super()._init_model_weights()


def bare(model: nn.Module) -> nn.Module:
    """Unwrap a model from data parallelism and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        assert isinstance(model.module, nn.Module)
        model = model.module
    return model


def _unapplied_gradients(runner: Runner) -> dict[str, Tensor]:
    """Gradients by parameter while gradients are accumulated, else nothing."""
    trained = {name: p for name, p in bare(runner.model).named_parameters() if p.requires_grad}
    if all(parameter.grad is None for parameter in trained.values()):
        return {}
    gradients = {}
    for name, parameter in trained.items():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        all_reduce(gradient, op="mean")
        gradients[name] = gradient.cpu()
    return gradients


class _Misfits(dict[str, list[str]]):
    """Keys that do not fit, by kind; kinds without any are dropped."""

    def __init__(self, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
        shapes = {
            key: f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        }
        kinds = {
            "missing": [key for key in own if key not in state],
            "unexpected": [key for key in state if key not in own],
            "of another shape": list(shapes.values()),
        }
        super().__init__({kind: keys for kind, keys in kinds.items() if keys})
        self.keys_of_another_shape = shapes.keys()

    def lines(self) -> list[str]:
        """One line per kind: how many keys, and the first ones."""
        return [
            f"{len(keys)} {kind}: {', '.join(keys[:_NAMED])}{', ...' if keys[_NAMED:] else ''}"
            for kind, keys in self.items()
        ]


def _require_fit(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: str) -> None:
    lines = _Misfits(state, own).lines()
    if lines:
        raise WeightsError(f"{path} is of another model: {'; '.join(lines)}")


def _in_our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a whole model, without what wrapped it, and a published backbone as ours is."""
    wrapped = bool(state) and all(key.startswith("module.") for key in state)
    state = {key.removeprefix("module.") if wrapped else key: state[key] for key in state}
    layout, prefix = find_layout(state) or (None, "")
    if layout is None or not prefix:
        return state
    backbone = layout.translate(state, prefix)
    return {
        **{key: value for key, value in state.items() if not key.startswith(prefix)},
        **{key.replace("backbone.", "backbone.model.", 1): backbone[key] for key in backbone},
    }


def _fitting(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], misfits: _Misfits, path: str
) -> dict[str, Tensor]:
    """The part of `state` that fits; the log names the first keys that do not."""
    fits = {
        key: value
        for key, value in state.items()
        if key in own and key not in misfits.keys_of_another_shape
    }
    if not fits:
        raise WeightsError(
            f"load_from {path}: nothing in it fits the model; {'; '.join(misfits.lines())}; "
            "weights of a backbone alone are model.backbone.init_cfg's"
        )
    log.info("load_from %s: %d of the model's %d tensors loaded", path, len(fits), len(own))
    for line in misfits.lines():
        log.warning("load_from %s: %s", path, line)
    return fits
