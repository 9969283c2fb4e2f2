"""The energy of a chip of its own, by a rule of the suite."""

from spikebench.energy.estimators import Estimator

CHIP = Estimator(
    id="tiny-chip",
    title="tiny chip, 28 nm",
    rule="exact",
    constants={"mac_pj": 2.0, "ac_pj": 0.5},
    source="made up for a test",
)
