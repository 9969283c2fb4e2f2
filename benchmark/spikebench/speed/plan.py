"""Which contenders to measure, from what was asked for and what works here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import Any, get_args

import torch

from spikebench.errors import UserError
from spikebench.neurons import available_backends
from spikebench.registry import unknown_name
from spikebench.speed import spikingjelly
from spikebench.speed.record import Contender, Form, Mode, Precision


def device_type() -> str:
    """The device to measure on: "cuda" where there is one, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def plan_contenders(
    device: str,
    against: str = "",
    modes: Sequence[str] = (),
    backends: Sequence[str] = (),
    precisions: Sequence[str] = (),
    forms: Sequence[str] = (),
    channels_last: Sequence[bool] = (),
    grad_checkpointing: bool = False,
    layer: bool = False,
) -> list[Contender]:
    """List the contenders, those that are compared next to each other.

    Args:
        device: "cpu" or "cuda".
        against: "spikingjelly" adds the model with SpikingJelly's neurons, as coded.
        modes: "inference" and "train"; both where none is given.
        backends: of our neurons; all that work here where none is given.
        precisions: "float32" where none is given.
        forms: of the model in inference; "as-coded" where none is given. "event" has one kernel:
            float32, channels last, on the CPU.
        channels_last: memory layouts of the maps; contiguous where none is given.
        grad_checkpointing: whether our backends also train with gradient checkpointing.
        layer: whether one LIF layer is measured too.

    Raises:
        UserError: a name is unknown, or what was asked for does not work here.
    """
    modes = _known("mode", modes, get_args(Mode)) or get_args(Mode)
    precisions = _known("precision", precisions, get_args(Precision)) or ("float32",)
    forms = _known("form", forms, get_args(Form)) or ("as-coded",)
    trains, infers = "train" in modes, "inference" in modes
    for option, unused in (
        ("--grad-checkpointing, which is for training", grad_checkpointing and not trains),
        ("--form, which is for inference", set(forms) != {"as-coded"} and not infers),
        ("--form event, which is in float32", "event" in forms and "float32" not in precisions),
    ):
        if unused:
            raise UserError(f"nothing that is measured uses {option}")
    if "event" in forms and device != "cpu":
        raise UserError(f"form 'event' has no kernel for {device}; it runs on the CPU")
    own = _usable(backends, device)
    peers = spikingjelly.peers(device) if against == spikingjelly.PEER else []
    if against and not peers:
        _known("neurons to measure against", [against], (spikingjelly.PEER, *own))
    layouts = tuple(dict.fromkeys(channels_last)) or (False,)
    contenders: list[dict[str, Any]] = []
    for mode in modes:
        ways: list[dict[str, Any]] = [
            *({"neurons": name} for name in peers),
            *({"neurons": name, "form": form} for name in own for form in _of_mode(mode, forms)),
        ]
        if grad_checkpointing and mode == "train":
            ways += [{"neurons": name, "grad_checkpointing": True} for name in own]
        contenders += _distinct(
            {**way, "mode": mode, "precision": precision, "channels_last": last}
            for way, precision, last in product(ways, precisions, layouts)
        )
        if mode == "inference":
            # The floor, in the precisions asked for only: without bfloat16 in hardware, one such
            # product takes a minute.
            contenders += [
                {"subject": "matmul", "precision": precision} for precision in precisions
            ]
    if layer:
        contenders += [
            {"subject": "lif", "mode": mode, "neurons": name, "precision": precision}
            for mode, name, precision in product(modes, [*peers, *own], precisions)
        ]
    return [Contender(**contender) for contender in contenders]


def _distinct(ways: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Those ways, of which the event-driven form has one layout and precision only."""
    only = {"precision": "float32", "channels_last": True}
    seen = []
    for way in ways:
        if way.get("form") == "event":
            way |= only
        if way not in seen:
            seen.append(way)
            yield way


def _of_mode(mode: str, forms: Sequence[str]) -> Sequence[str]:
    return forms if mode == "inference" else ("as-coded",)


def _known(kind: str, given: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    for name in given:
        if name not in known:
            raise unknown_name(kind, name, known)
    return tuple(dict.fromkeys(given))


def _usable(backends: Sequence[str], device: str) -> tuple[str, ...]:
    """The backends asked for, or all that work here."""
    available = available_backends(device)
    for name in _known("neuron backend", backends, tuple(available)):
        if (reason := available[name]) is not None:
            raise UserError(f"neuron backend {name!r} cannot run here: {reason}")
    asked = _known("neuron backend", backends, tuple(available))
    return asked or tuple(name for name, reason in available.items() if reason is None)
