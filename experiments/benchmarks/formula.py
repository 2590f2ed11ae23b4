"""Joules of a closed form in the shape of a reading, for benchmarks of what is not the meter."""

from __future__ import annotations

from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture
from search_spaces.cost.counting import count
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


def formula_joules(architecture: Architecture, workload: Workload) -> float:
    """Joules of a sample by a closed form: 0.1 nJ a MAC, 60% of it in bf16, and 2 uJ a layer."""
    blocks = count(architecture, workload).blocks
    macs = sum(b.macs * (0.6 if b.precision == "bf16" else 1.0) for b in blocks)
    return 1e-10 * macs + 2e-6 * (1 + architecture.depth)
