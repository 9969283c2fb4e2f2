"""With the neurons that users get: other tests run the reference form, for its short start."""

from __future__ import annotations

import pytest

from spikebench.neurons.backends import available_backends
from spikebench.results import find_records

compiled = pytest.mark.skipif(
    available_backends()["compiled"] is not None, reason="no C++ compiler to compile neurons with"
)


@compiled
def test_a_run_trains_scores_and_counts_with_compiled_neurons(spikebench, helpers):
    spikebench.env["SPIKEBENCH_NEURONS"] = "auto"
    suite = spikebench.suite("classification")
    done = spikebench("run", suite, *helpers.few("classification", images=64, epochs=2))
    assert done.returncode == 0, done.stderr
    ((path, record),) = find_records(spikebench.folder / "work_dirs")
    assert record.status == "finished"
    assert record.dataset.test_samples == 64
    assert 0 < record.metrics["top1"].value <= 1
    assert record.operations is not None
    assert record.operations.firing_rates
    assert record.energy_mj["rate-45nm"] > 0
    said = done.stderr + (path.parent / "run.log").read_text()
    assert "neurons run slower" not in said
