"""What contenders run: a classifier, a LIF layer or a matrix product, built from its description.

All contenders load the same weights and see the same images. The weights are random, but the batch
norms hold the statistics of random images, so that neurons fire instead of being silent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spikebench.backbones import build_classifier
from spikebench.backbones.layers import settling_norms
from spikebench.backbones.options import input_channels
from spikebench.energy.profile import profile_operations
from spikebench.neurons import LIF, is_neuron, use_backend
from spikebench.seeding import seed_everything
from spikebench.speed import spikingjelly
from spikebench.speed.record import Contender, Settings

LAYER_SHAPE = (128, 56, 56)
MATMUL_SIZE = 2048
OPTIMIZER = "AdamW, learning rate 1e-4, weight decay 0.05"
COMPARED_IMAGES = 2
"""Of how many images of the batch the spikes are compared: all of a large one would not fit."""

_WEIGHTS = "weights.safetensors"
_SPIKES = "spikes.pt"


@dataclass
class Workload:
    """Something to be timed.

    Attributes:
        step: what is timed, once the device is idle.
        calls: how often `step` is called between two looks at the clock.
        spikes: runs the model once and gives the spikes of each neuron, in the order of their
            calls; None of what has no model.
    """

    step: Callable[[], object]
    calls: int = 1
    spikes: Callable[[], list[Tensor]] | None = None


def prepare(settings: Settings, folder: Path) -> dict[str, Any]:
    """Save the weights and the reference's spikes for all contenders.

    Returns:
        The facts of the model that a record holds: parameters, dense_macs, firing_rate.

    Raises:
        ValueError: the backbone does not take images of this size.
    """
    seed_everything(settings.seed)
    images, _ = _batch(settings)
    with use_backend("reference"):
        model = _classifier(settings)
        _settle_norms(model, images)
        report = profile_operations(model, [images[:1]])
        torch.save(_spikes(model, lambda: model(images)), folder / _SPIKES)
    save_file(model.state_dict(), folder / _WEIGHTS)
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "dense_macs": report.dense_macs,
        "firing_rate": report.firing_rate,
    }


def build(contender: Contender, settings: Settings, folder: Path) -> Workload:
    """Build what a contender runs, from what `prepare` left in `folder`."""
    seed_everything(settings.seed)
    if contender.subject == "matmul":
        return _matmul(contender, settings)
    if contender.subject == "lif":
        return _layer(contender, settings)
    return _model(contender, settings, folder)


def spikes_equal(workload: Workload, folder: Path) -> float | None:
    """The share of spikes that equal the reference's; None where there are no neurons.

    Raises:
        ValueError: it has other neurons than the reference.
    """
    assert workload.spikes is not None
    found, expected = workload.spikes(), torch.load(folder / _SPIKES)
    if [one.shape for one in found] != [one.shape for one in expected]:
        raise ValueError(
            f"{len(found)} neuron layers fired, where the reference has {len(expected)}, "
            "or their shapes differ"
        )
    equal = sum(int((a == b).sum()) for a, b in zip(found, expected, strict=True))
    total = sum(one.numel() for one in expected)
    return equal / total if total else None


def _batch(settings: Settings) -> tuple[Tensor, Tensor]:
    """The same random images and labels in every process."""
    generator = torch.Generator().manual_seed(settings.seed)
    side = settings.image_size
    channels = input_channels(settings.backbone_name)
    images = torch.randn(settings.batch_size, channels, side, side, generator=generator)
    labels = torch.randint(settings.num_classes, (settings.batch_size,), generator=generator)
    return images.to(settings.device), labels.to(settings.device)


def _classifier(settings: Settings) -> nn.Module:
    model = build_classifier(settings.backbone_name, settings.num_classes, settings.time_steps)
    return model.to(settings.device).eval()


def _settle_norms(model: nn.Module, images: Tensor) -> None:
    """Set the running statistics of all batch norms to those of `images`."""
    with settling_norms(model), torch.no_grad():
        model.train()(images)
    model.eval()


def _spikes(model: nn.Module, forward: Callable[[], object]) -> list[Tensor]:
    spikes: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
        spikes.append(output[:, :COMPARED_IMAGES].to(torch.uint8).cpu())

    hooks = [m.register_forward_hook(keep) for m in model.modules() if is_neuron(m)]
    try:
        with torch.inference_mode():
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    return spikes


def _model(contender: Contender, settings: Settings, folder: Path) -> Workload:
    images, labels = _batch(settings)
    model = _classifier(settings)
    model.load_state_dict(load_file(folder / _WEIGHTS, device=settings.device))
    peer = contender.neurons.startswith(spikingjelly.PEER)
    if peer:
        spikingjelly.replace_neurons(model)
    if contender.form != "as-coded":
        from spikebench.inference.deploy import in_form

        model = in_form(model, "dense" if contender.form == "event" else contender.form)
    if contender.channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    if contender.form == "event":
        from spikebench.inference.event_conv import use_event_convs

        use_event_convs(model, [images])
    if contender.grad_checkpointing:
        _backbone_of(model).set_grad_checkpointing(True)
    autocast = _autocast(contender, settings)

    def forward() -> Tensor:
        if peer:
            spikingjelly.reset(model)
        with autocast():
            return model(images)

    def infer() -> None:
        with torch.inference_mode():
            forward()

    if contender.mode == "inference":
        return Workload(infer, spikes=lambda: _spikes(model, forward))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)

    def train() -> None:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(forward().float(), labels)
        loss.backward()
        optimizer.step()

    return Workload(train)


def _backbone_of(model: nn.Module) -> Any:
    return model if hasattr(model, "set_grad_checkpointing") else model.backbone


def _layer(contender: Contender, settings: Settings) -> Workload:
    dtype = getattr(torch, contender.precision)  # as autocast would hand it over
    shape = (settings.time_steps, settings.batch_size, *LAYER_SHAPE)
    currents = torch.randn(shape, device=settings.device).to(dtype)
    peer = contender.neurons.startswith(spikingjelly.PEER)
    layer: nn.Module = LIF().to_spikingjelly() if peer else LIF()

    def forward() -> Tensor:
        if peer:
            spikingjelly.reset(layer)
        return layer(currents)

    def infer() -> None:
        with torch.inference_mode():
            forward()

    if contender.mode == "inference":
        return Workload(infer)
    currents.requires_grad_()
    gradient = torch.randn(shape, device=settings.device).to(dtype)

    def train() -> None:
        currents.grad = None
        forward().backward(gradient)

    return Workload(train)


def _matmul(contender: Contender, settings: Settings) -> Workload:
    dtype = getattr(torch, contender.precision)
    a, b = (torch.randn(MATMUL_SIZE, MATMUL_SIZE, device=settings.device).to(dtype) for _ in "ab")
    out = torch.empty_like(a)
    # On CUDA one product is over before the clock can be read.
    return Workload(lambda: torch.mm(a, b, out=out), calls=100 if settings.device == "cuda" else 1)


def _autocast(contender: Contender, settings: Settings) -> Callable[[], Any]:
    half = contender.precision == "bfloat16"
    return lambda: torch.autocast(settings.device, torch.bfloat16, enabled=half)
