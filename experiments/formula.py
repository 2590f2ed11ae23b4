"""Joules by a formula in the shape of a measurement, where the meter is not the subject."""

from __future__ import annotations

from predictors.measurement.protocol import Protocol
from predictors.measurement.records import EnergyRecord
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture
from search_spaces.cost.counting import count
from search_spaces.workload import Workload


def formula_reading(
    energy_j: float, workload: Workload, *, protocol_hash: str = "0" * 12
) -> EnergyReading:
    """Return ``energy_j`` per sample with an interval of 2%, marked as an estimate."""
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


def formula_record(
    architecture: Architecture, workload: Workload, energy_j: float, protocol: Protocol
) -> EnergyRecord:
    """Return a record of ``energy_j`` per sample, marked as an estimate; it cost 1 J."""
    reading = formula_reading(energy_j, workload, protocol_hash=protocol.hash)
    return EnergyRecord(
        architecture=architecture,
        workload=workload,
        reading=reading,
        repeats_j=(energy_j,) * reading.n_repeats,
        job="formula",
        mode="formula",
        date="2000-01-01T00:00:00.000+00:00",
        versions={},
        protocol=protocol.to_dict(),
        spent_energy_j=1.0,
    )


def formula_joules(architecture: Architecture, workload: Workload) -> float:
    """Return joules per sample: 0.1 nJ a MAC, 60% of it in bf16, and 2 uJ a layer."""
    blocks = count(architecture, workload).blocks
    macs = sum(b.macs * (0.6 if b.precision == "bf16" else 1.0) for b in blocks)
    return 1e-10 * macs + 2e-6 * (1 + architecture.depth)
