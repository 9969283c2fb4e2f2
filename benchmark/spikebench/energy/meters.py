"""Energy as meters read it: NVML on NVIDIA GPUs, RAPL on CPUs. Nothing here is an estimate.

Zeus (https://ml.energy/zeus) finds the meters and talks to them; it is optional:
`pip install 'spikebench[energy]'`. Where there is no meter there is no number: a meter that cannot
be read, or that stood still, is absent from a result, and `available_meters` says why.

A meter reads what its whole device draws, idle power and other programs included, so measure on a
quiet machine, and compare only figures of one machine. RAPL counts anew about every millisecond,
NVML about every 100 ms: a window of 2 seconds is good to some 5 % on a GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import nn

from spikebench.energy.batches import FindImages, count_images
from spikebench.energy.profile import evaluating

log = logging.getLogger("spikebench")

MIN_SECONDS = 2.0
"""How long a window is at least, in seconds."""

_NOT_INSTALLED = "Zeus is not installed: pip install 'spikebench[energy]'"


class Meter(NamedTuple):
    """A counter of energy that only ever rises, until it starts again from 0.

    Attributes:
        name: what it meters, such as "nvml:0", "rapl:package-0" or "rapl:package-0/dram".
        read: gives its count in joules.
        span: joules after which it starts again; None where it does not.
    """

    name: str
    read: Callable[[], float]
    span: float | None = None

    def spent(self, before: float, after: float) -> float:
        """Joules between two readings, less than a span apart.

        Raises:
            RuntimeError: the count went back without reason, as when a driver is loaded again.
        """
        if after >= before:
            return after - before
        if self.span is None:
            raise RuntimeError(f"{self.name} went from {before} J back to {after} J; measure again")
        return after - before + self.span


@dataclass(frozen=True)
class Measurement:
    """The energy that some work drew.

    Attributes:
        joules: by meter; a meter that was not read is absent, so `{}` means "not measured".
        seconds: wall time of all repeats.
        repeats: how often the work was done.
    """

    joules: dict[str, float]
    seconds: float
    repeats: int


def available_meters() -> dict[str, str | None]:
    """The meters of this machine: None for one that can be read, else why not, in one line.

    A kind of meter that cannot be read at all is listed as "nvml" or "rapl".
    """
    return {name: found if isinstance(found, str) else None for name, found in _meters().items()}


def measured_mj_per_image(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[nn.Module, Any], object] | None = None,
    *,
    images: FindImages | None = None,
    min_seconds: float = MIN_SECONDS,
) -> dict[str, float]:
    """Energy of inference in millijoules per image, by meter.

    The model goes over the batches once to warm up, and then again and again for `min_seconds`, in
    eval mode and without gradients; it is left as it was found. The batches are held in memory, so
    that loading them is not measured. Of GPU meters only those of the model's devices are read.

    Args:
        model: any module, on any device.
        batches: what `forward` takes, on the model's device.
        forward: runs the model on a batch; `model(batch)` by default.
        images: gives the images of a batch; as for `profile_operations`.
        min_seconds: how long to measure at least.

    Returns:
        `{}` where there is no meter; then the model is not run at all.

    Raises:
        TypeError: the number of images in a batch cannot be told.
        ValueError: there is no image, or `min_seconds` is negative or not finite.
    """
    devices = _devices(model)
    meters = [meter for meter in _readable() if _concerns(meter, devices)]
    if not meters:
        return {}
    batches = list(batches)
    count = sum(count_images(batch, images) for batch in batches)
    if count == 0:
        raise ValueError("there is no image to measure: the batches are empty")

    def work() -> None:
        for batch in batches:
            if forward is None:
                model(batch)
            else:
                forward(model, batch)

    with evaluating(model), torch.no_grad():
        work()
        measured = _measure(work, meters, devices, min_seconds)
    total = count * measured.repeats
    return {name: 1000 * joules / total for name, joules in measured.joules.items()}


def _measure(
    work: Callable[[], object],
    meters: Sequence[Meter],
    devices: Iterable[torch.device],
    min_seconds: float,
) -> Measurement:
    if not (isfinite(min_seconds) and min_seconds >= 0):
        raise ValueError(f"min_seconds is {min_seconds}; expected a number of seconds, 0 or more")
    devices = list(devices)
    repeats = 0
    _wait_for(devices)
    before = [meter.read() for meter in meters]
    start = perf_counter()
    while True:
        work()
        repeats += 1
        if perf_counter() - start >= min_seconds:
            break
    _wait_for(devices)
    seconds = perf_counter() - start
    joules = {
        meter.name: meter.spent(count, meter.read())
        for meter, count in zip(meters, before, strict=True)
    }
    for name in [name for name, spent in joules.items() if spent == 0]:
        log.warning("%s stood still for %.3g s: not measured", name, seconds)
        del joules[name]
    return Measurement(joules, seconds, repeats)


def _wait_for(devices: Iterable[torch.device]) -> None:
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def _devices(model: nn.Module) -> set[torch.device]:
    return {tensor.device for tensor in chain(model.parameters(), model.buffers())}


def _concerns(meter: Meter, devices: Iterable[torch.device]) -> bool:
    """Whether a meter reads one of these devices, or the host, which works for all of them."""
    kind, _, index = meter.name.partition(":")
    return kind != "nvml" or torch.device("cuda", int(index)) in devices


def _readable() -> list[Meter]:
    return [found for found in _meters().values() if isinstance(found, Meter)]


def _meters() -> dict[str, Meter | str]:
    """All meters, or in the place of one why it cannot be read."""
    if find_spec("zeus") is None:
        return {"nvml": _NOT_INSTALLED, "rapl": _NOT_INSTALLED}
    return {**_nvml(), **_rapl()}


def _nvml() -> dict[str, Meter | str]:
    from zeus.device.exception import ZeusBaseGPUError
    from zeus.device.gpu import nvidia

    try:
        if not nvidia.nvml_is_available():
            return {"nvml": "no NVIDIA GPU: NVML, a part of its driver, does not answer"}
        gpus = nvidia.NVIDIAGPUs()
    except (ImportError, ValueError, ZeusBaseGPUError) as error:  # what it says of a wrong set-up
        return {"nvml": _one_line(error)}
    found: dict[str, Meter | str] = {}
    for index in range(len(gpus)):

        def read(index: int = index) -> float:
            return gpus.get_total_energy_consumption(index) / 1000

        name = f"nvml:{index}"
        try:
            read()
        except ZeusBaseGPUError as error:
            found[name] = f"this GPU does not count energy, as those before Volta: {error}"
        else:
            found[name] = Meter(name, read)
    return found or {"nvml": "no NVIDIA GPU: NVML lists none"}


def _rapl() -> dict[str, Meter | str]:
    from zeus.device.cpu import rapl
    from zeus.device.cpu.common import ZeusCPUNoPermissionError
    from zeus.device.exception import ZeusBaseCPUError

    folders = [Path(folder) for folder in (rapl.RAPL_DIR, rapl.CONTAINER_RAPL_DIR)]
    folder = next((folder for folder in folders if folder.exists()), None)
    if folder is None:
        return {
            "rapl": f"no {folders[0]}: a CPU without RAPL, a virtual machine that hides it, or the "
            "kernel module is not loaded (sudo modprobe intel_rapl_msr)"
        }
    found: dict[str, Meter | str] = {}
    for zone in sorted(folder.glob("intel-rapl:*")):
        try:
            cpu = rapl.RAPLCPU(int(zone.name.partition(":")[2]), str(folder))
        except ZeusCPUNoPermissionError as error:
            path = getattr(error.__cause__, "filename", zone / "energy_uj")
            found[f"rapl:{zone.name}"] = (
                f"{path} is not readable: run as root, or sudo chmod -R a+r {folder} (until the "
                "next boot)"
            )
        except ZeusBaseCPUError as error:
            found[f"rapl:{zone.name}"] = f"{zone}: {_one_line(error)}"
        else:
            package = f"rapl:{cpu.rapl_file.name}"
            found[package] = _zone(package, cpu.rapl_file)
            if cpu.dram is not None:
                found[f"{package}/dram"] = _zone(f"{package}/dram", cpu.dram)
    return found or {"rapl": f"{folder} has no zone to read"}


def _zone(name: str, file: Any) -> Meter:
    """A meter of a RAPL file of Zeus, read directly.

    Its own `read` starts a process that polls the counter for when it starts again, and so would
    draw energy while we measure; our windows are far too short for that to happen twice.
    """
    path = Path(file.energy_uj_path)
    return Meter(name, lambda: int(path.read_text()) / 1e6, file.max_energy_range_uj / 1e6)


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
