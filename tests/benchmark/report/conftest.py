import shutil
from pathlib import Path

import pytest

from spikebench.energy.operations import NeuronRow, OperationReport, OperationRow
from spikebench.results import BackboneInfo, DatasetInfo, Metric, Record, ResultStore

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
UNITS = {"latency": ("ms", False)}


def neuron_row(name, rate):
    return NeuronRow(
        name=name, kind="LIF", neurons=8, updates=32, state_bytes=32, rate=rate, spikes=32 * rate
    )


def build_record(
    key="k0",
    backbone="spikeformer",
    task="classification",
    metrics=None,
    *,
    seed=0,
    time_steps=4,
    arguments=None,
    parameters=15_080_000,
    dataset="digits",
    protocol="digits_small",
    macs=2.5e9,
    rate=0.25,
    energy=None,
    error=None,
    **changes,
):
    """A record of a finished run, or of a failed one where `error` is given."""
    figures = {} if error else {"top1": 0.9} if metrics is None else metrics
    row = OperationRow(
        name="stem",
        kind="conv2d",
        dense_macs=macs,
        dense_macs_unpadded=macs,
        value_kind="binary",
        rate=rate,
        exact_synaptic_operations=macs * rate * time_steps,
    )
    report = OperationReport(
        images=64,
        time_steps=time_steps,
        rows=[row],
        neurons=[neuron_row("a", rate), neuron_row("b", rate / 2)],
    )
    fields = {
        "key": key,
        "suite": "demo",
        "status": "failed" if error else "finished",
        "error": error,
        "backbone": BackboneInfo(
            name=backbone, arguments=arguments or {}, time_steps=time_steps, parameters=parameters
        ),
        "backbone_name": backbone,
        "task": task,
        "protocol": protocol,
        "dataset": DatasetInfo(name=dataset, split="test", train_samples=1437, test_samples=360),
        "seed": seed,
        "metrics": {
            name: Metric(
                value=value,
                unit=UNITS.get(name, ("fraction", True))[0],
                higher_is_better=UNITS.get(name, ("fraction", True))[1],
            )
            for name, value in figures.items()
        },
        "parameters": None if error else parameters,
        "operations": None if error else report,
        "energy_mj": {} if error else {"rate-45nm": 5.5} if energy is None else energy,
        "config": {"optimizer": {"lr": 0.001}, "seed": seed},
        "device": "cpu",
        "started": "2025-01-01T00:00:00+00:00",
    }
    return Record(**{**fields, **changes})


@pytest.fixture
def make_record():
    return build_record


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "work")


@pytest.fixture
def pairs():
    """Records with the paths that a work folder would give them."""

    def pair(*records):
        return [(Path("work") / record.key / "record.json", record) for record in records]

    return pair


@pytest.fixture
def browser(tmp_path):
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={tmp_path / 'profile'}",
        "window-size=1280,1000",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(CHROMEDRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()
