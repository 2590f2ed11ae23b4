"""Joules of a closed form in the shape of a reading, for benchmarks of what is not the meter."""

from __future__ import annotations

from predictors.meters.base import EnergyReading
from search_spaces.workload import Workload


def formula_reading(
    energy_j: float, workload: Workload, *, protocol_hash: str = "0" * 12
) -> EnergyReading:
    """``energy_j`` a sample as if it had been measured within 2%; it says that it was not."""
    return EnergyReading(
        energy_j=energy_j,
        low_j=energy_j * 0.98,
        high_j=energy_j * 1.02,
        n_repeats=6,
        converged=True,
        meter="formula",
        source="formula",
        is_estimate=True,
        device="none",
        workload=workload.key,
        batch_size=workload.batch_size,
        latency_s=1e-3,
        power_w=1.0,
        duration_s=1.0,
        protocol_hash=protocol_hash,
    )
