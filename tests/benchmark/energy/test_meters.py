"""Meters on a machine that has none: below the real Zeus, a powercap tree and a driver of ours."""

from __future__ import annotations

import logging
import sys
from math import inf
from pathlib import Path

import pytest
import torch
from torch import nn

from spikebench.energy import meters
from spikebench.energy.meters import (
    Measurement,
    available_meters,
    measured_mj_per_image,
)
from tests import forkserver

SPAN = 262_143_328_850  # microjoules, of an Intel Xeon


def measure(work, min_seconds: float = meters.MIN_SECONDS) -> Measurement:
    """What all meters read while some work is done, the current CUDA device waited for."""
    devices = [torch.device("cuda")] if torch.cuda.is_initialized() else []
    return meters._measure(work, meters._readable(), devices, min_seconds)


class Machine:
    """Time and energy pass only while something works; each meter draws a power of its own."""

    def __init__(self, powercap: Path) -> None:
        self.powercap = powercap
        self.now = 100.0
        self.gpus: dict[int, float] = {}  # watts
        self.zones: dict[Path, float] = {}
        self.driver_works = True

    def add_zone(self, path: str, name: str, watts: float, start: int = 7_000_000) -> None:
        folder = self.powercap / path
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "energy_uj").write_text(f"{start}\n")
        (folder / "max_energy_range_uj").write_text(f"{SPAN}\n")
        self.zones[folder / "energy_uj"] = watts

    def work(self, seconds: float) -> None:
        self.now += seconds
        for counter, watts in self.zones.items():
            count = int(counter.read_text()) + round(1e6 * watts * seconds)
            counter.write_text(f"{count % SPAN}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine without meters, to which a test adds some."""
    pynvml = pytest.importorskip("pynvml")
    nvidia = pytest.importorskip("zeus.device.gpu.nvidia")
    rapl = pytest.importorskip("zeus.device.cpu.rapl")
    machine = Machine(tmp_path / "powercap" / "intel-rapl")

    def nvml_init() -> None:
        if not machine.gpus:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    def energy(index: int) -> int:
        if machine.gpus[index] < 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return round(1000 * machine.gpus[index] * machine.now)

    def handle(index: int) -> int:
        if index not in machine.gpus:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return index

    def not_supported(_: int) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    driver = {
        "nvmlInit": nvml_init,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(machine.gpus),
        "nvmlDeviceGetHandleByIndex": handle,
        "nvmlDeviceGetC2cModeInfoV": not_supported,
        "nvmlDeviceGetTotalEnergyConsumption": energy,
    }
    for name, function in driver.items():
        monkeypatch.setattr(pynvml, name, function)
    monkeypatch.setattr(rapl, "RAPL_DIR", str(machine.powercap))
    monkeypatch.setattr(rapl, "CONTAINER_RAPL_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(meters, "perf_counter", lambda: machine.now)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for remembered in (nvidia.nvml_is_available, rapl.rapl_is_available):
        remembered.cache_clear()
    yield machine
    for remembered in (nvidia.nvml_is_available, rapl.rapl_is_available):
        remembered.cache_clear()


def add_package(machine: Machine) -> None:
    machine.add_zone("intel-rapl:0", "package-0", watts=40)
    machine.add_zone("intel-rapl:0/intel-rapl:0:0", "core", watts=30)
    machine.add_zone("intel-rapl:0/intel-rapl:0:1", "dram", watts=5)


class Model(nn.Module):
    """Takes a second an image, and notes what it ran on and how."""

    def __init__(self, machine: Machine | None = None) -> None:
        super().__init__()
        self.machine = machine
        self.frozen = nn.BatchNorm1d(3).eval()
        self.calls: list[tuple[int, bool, bool]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.append((len(x), self.training, torch.is_grad_enabled()))
        if self.machine is not None:
            self.machine.work(len(x))
        return self.frozen(x)


def test_work_is_repeated_until_the_window_is_long_enough(machine: Machine):
    add_package(machine)
    machine.gpus = {0: 250, 1: 60}
    measured = measure(lambda: machine.work(0.3))
    assert measured.repeats == 7
    assert measured.seconds == pytest.approx(2.1)
    assert measured.joules == pytest.approx(
        {"nvml:0": 525, "nvml:1": 126, "rapl:package-0": 84, "rapl:package-0/dram": 10.5}
    )


def test_the_window_may_be_as_long_as_one_likes(machine: Machine):
    add_package(machine)
    assert measure(lambda: machine.work(3), min_seconds=0).repeats == 1
    assert measure(lambda: machine.work(3), min_seconds=10).repeats == 4


@pytest.mark.parametrize("seconds", [-1.0, inf, float("nan")])
def test_a_window_of_no_length_is_refused(machine: Machine, seconds: float):
    with pytest.raises(ValueError, match=str(seconds)):
        measure(lambda: None, min_seconds=seconds)


def test_a_counter_that_starts_again_loses_nothing(machine: Machine):
    machine.add_zone("intel-rapl:0", "package-0", watts=40, start=SPAN - 50_000_000)
    measured = measure(lambda: machine.work(2))
    assert int((machine.powercap / "intel-rapl:0" / "energy_uj").read_text()) == 30_000_000
    assert measured.joules == pytest.approx({"rapl:package-0": 80})


def test_a_driver_loaded_again_is_an_error_and_no_number(machine: Machine):
    machine.gpus = {0: 250}

    def work() -> None:
        machine.work(2)
        machine.gpus[0] = 1

    with pytest.raises(RuntimeError, match="nvml:0.*25000.*102"):
        measure(work)


def test_all_packages_and_the_platform_are_meters_of_their_own(machine: Machine):
    machine.add_zone("intel-rapl:1", "package-1", watts=20)
    machine.add_zone("intel-rapl:0", "package-0", watts=10)
    machine.add_zone("intel-rapl:2", "psys", watts=99)
    assert available_meters() == {
        "nvml": "no NVIDIA GPU: NVML, a part of its driver, does not answer",
        "rapl:package-0": None,
        "rapl:package-1": None,
        "rapl:psys": None,
    }
    joules = measure(lambda: machine.work(2)).joules
    assert joules == pytest.approx({"rapl:package-0": 20, "rapl:package-1": 40, "rapl:psys": 198})


def test_a_meter_that_stands_still_is_absent(machine: Machine, caplog: pytest.LogCaptureFixture):
    machine.add_zone("intel-rapl:0", "package-0", watts=10)
    machine.add_zone("intel-rapl:1", "psys", watts=0)
    with caplog.at_level(logging.WARNING, "spikebench"):
        assert measure(lambda: machine.work(2)).joules == pytest.approx({"rapl:package-0": 20})
    assert caplog.messages == ["rapl:psys stood still for 2 s: not measured"]


def test_no_process_polls_while_we_measure(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    from zeus.device.cpu import rapl

    add_package(machine)
    monkeypatch.setattr(rapl, "RaplWraparoundTracker", lambda *_: pytest.fail("started a process"))
    assert measure(lambda: machine.work(2)).joules


def test_an_error_of_the_work_is_raised(machine: Machine):
    add_package(machine)
    with pytest.raises(ZeroDivisionError):
        measure(lambda: 1 / 0)


def test_without_the_library_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "zeus", None)
    reason = "Zeus is not installed: pip install 'spikebench[energy]'"
    assert available_meters() == {"nvml": reason, "rapl": reason}
    assert measure(lambda: None, min_seconds=0).joules == {}


def test_without_powercap_it_names_the_folder(machine: Machine):
    reason = available_meters()["rapl"]
    assert reason is not None
    assert reason.startswith(f"no {machine.powercap}: ")
    machine.powercap.mkdir(parents=True)
    assert available_meters()["rapl"] == f"{machine.powercap} has no zone to read"


def test_a_counter_for_root_only_is_named_with_its_remedy(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    from zeus.device.cpu import rapl

    def open_as_a_user(path: str, mode: str = "r"):
        if path.endswith("energy_uj"):
            raise PermissionError(13, "Permission denied", path)
        return Path(path).open(mode)

    add_package(machine)
    monkeypatch.setattr(rapl, "open", open_as_a_user, raising=False)
    assert available_meters()["rapl:intel-rapl:0"] == (
        f"{machine.powercap}/intel-rapl:0/energy_uj is not readable: run as root, or "
        f"sudo chmod -R a+r {machine.powercap} (until the next boot)"
    )
    assert measure(lambda: machine.work(2)).joules == {}


def test_a_broken_zone_is_named(machine: Machine):
    add_package(machine)
    (machine.powercap / "intel-rapl:0" / "max_energy_range_uj").unlink()
    reason = available_meters()["rapl:intel-rapl:0"]
    assert reason is not None
    assert reason.startswith(f"{machine.powercap}/intel-rapl:0: ZeusRAPLFileInitError: ")


def test_a_gpu_without_the_counter_is_named_and_the_others_are_read(machine: Machine):
    machine.gpus = {0: -1, 1: 60}
    found = available_meters()
    assert found["nvml:1"] is None
    assert found["nvml:0"] == (
        "this GPU does not count energy, as those before Volta: Not Supported"
    )
    assert measure(lambda: machine.work(2)).joules == pytest.approx({"nvml:1": 120})


def test_gpus_are_numbered_as_torch_numbers_them(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    machine.gpus = {0: 250, 1: 60}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert measure(lambda: machine.work(2)).joules == pytest.approx({"nvml:0": 120})


@pytest.mark.parametrize(
    ("visible", "reason"),
    [
        ("GPU-8932f937", "ValueError: invalid literal for int() with base 10: 'GPU-8932f937'"),
        ("MIG-0a1b", "ZeusGPUInitError: CUDA_VISIBLE_DEVICES contains MIG devices."),
        ("7", "ZeusGPUInvalidArgError: Invalid Argument"),
    ],
)
def test_devices_that_cannot_be_metered_are_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, visible: str, reason: str
):
    machine.gpus = {0: 250}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = available_meters()["nvml"]
    assert found is not None
    assert found.startswith(reason)


def test_millijoules_per_image(machine: Machine):
    add_package(machine)
    model = Model(machine)
    batches = [torch.zeros(2, 3), torch.zeros(1, 3)]
    measured = measured_mj_per_image(model, iter(batches), min_seconds=5)
    assert measured == pytest.approx({"rapl:package-0": 40_000, "rapl:package-0/dram": 5_000})
    assert [images for images, *_ in model.calls] == [2, 1] * 3  # once to warm up


def test_images_are_those_of_the_batches_and_forward_is_the_callers(machine: Machine):
    add_package(machine)

    def forward(model: nn.Module, batch: dict[str, torch.Tensor]) -> None:
        model(batch["inputs"])
        machine.work(1)

    batch = {"inputs": torch.zeros(4, 3)}
    measured = measured_mj_per_image(Model(machine), [batch], forward, images=lambda x: x["inputs"])
    assert measured["rapl:package-0"] == pytest.approx(1000 * 40 * 5 / 4)


def test_the_model_runs_in_eval_mode_without_gradients_and_is_left_as_it_was(machine: Machine):
    add_package(machine)
    model = Model(machine)
    measured_mj_per_image(model, [torch.zeros(2, 3)])
    assert {(training, grad) for _, training, grad in model.calls} == {(False, False)}
    assert model.training
    assert not model.frozen.training


def test_only_the_gpus_that_hold_the_model_are_read(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    machine.gpus = {0: 250, 1: 60}
    machine.add_zone("intel-rapl:0", "package-0", watts=40)
    batch = torch.zeros(2, 3)
    assert measured_mj_per_image(Model(machine), [batch]).keys() == {"rapl:package-0"}

    waited: list[torch.device] = []
    monkeypatch.setattr(meters, "_devices", lambda model: {torch.device("cuda:1")})
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    measured = measured_mj_per_image(Model(machine), [batch])
    assert measured == pytest.approx({"nvml:1": 60_000, "rapl:package-0": 40_000})
    assert waited == [torch.device("cuda:1")] * 2


def test_what_still_runs_on_the_gpu_is_waited_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    add_package(machine)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: machine.work(1))
    measured = measure(lambda: machine.work(2))
    assert measured.seconds == 3
    assert measured.joules["rapl:package-0"] == pytest.approx(120)


def test_no_images_is_an_error(machine: Machine):
    add_package(machine)
    with pytest.raises(ValueError, match="no image"):
        measured_mj_per_image(Model(), [])


def test_a_machine_without_meters_reports_no_number_and_runs_nothing():
    if None in available_meters().values():
        pytest.skip("this machine has a meter")
    assert all(available_meters().values())
    measured = measure(lambda: None, min_seconds=0)
    assert measured == Measurement({}, measured.seconds, 1)
    model = Model()
    assert measured_mj_per_image(model, (pytest.fail("loaded a batch") for _ in range(1))) == {}
    assert model.calls == []
    assert model.training


def test_the_library_is_not_imported_before_it_is_asked_for():
    code = "import sys, spikebench.energy.meters; sys.exit('zeus' in sys.modules)"
    assert forkserver.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpu_draws_power():
    pytest.importorskip("zeus")
    model = nn.Linear(4096, 4096, device="cuda")
    batch = torch.rand(4096, 4096, device="cuda")
    measured = measured_mj_per_image(model, [batch])
    index = torch.cuda.current_device()
    assert 0 < measured[f"nvml:{index}"] < 1000
