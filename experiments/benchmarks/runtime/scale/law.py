"""A made-up device and task whose quality, joules and seconds are formulas of counts.

For what a search costs, not for what it finds: no figure of it is one of a real model.
"""

from __future__ import annotations

import numpy as np

from nas.core.estimate import Score
from nas.records.candidate import Candidate, Measurement, Outcome
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture
from search_spaces.cost.counting import count
from search_spaces.workload import Workload

_J_PER_MAC, _J_PER_BYTE, _J_PER_LAYER = 1e-11, 1e-10, 2e-6
_POWER_W = 50.0
_QUALITY_SE, _RELATIVE_SD = 2e-3, 0.01
# Seconds that a training of the smallest model takes, and how much more larger ones do.
_LEAST_TRAINING_S, _TRAINING_S_PER_MAC = 60.0, 2e-6
_CHEAP = {"fp32": 1.0, "bf16": 0.5, "int8": 0.35, "fp8": 0.35}


def evaluated(candidate: Candidate, workload: Workload, device: str = "made up") -> Outcome:
    """Return a complete outcome, with noise that follows from the architecture."""
    architecture = candidate.architecture
    counts = count(architecture, workload)
    rng = np.random.default_rng(int(architecture.hash, 16))
    macs = sum(b.macs * _CHEAP[b.precision] for b in counts.blocks)
    moved = counts.activation_bytes + counts.weight_bytes / workload.batch_size
    energy_j = _J_PER_MAC * macs + _J_PER_BYTE * moved + _J_PER_LAYER * architecture.depth
    energy_j *= float(np.exp(_RELATIVE_SD * rng.standard_normal()))
    quality = 1 - 0.03 - 4 / counts.params**0.45 + _QUALITY_SE * rng.standard_normal()
    reading = EnergyReading(
        energy_j=energy_j,
        low_j=energy_j * (1 - 1.96 * _RELATIVE_SD),
        high_j=energy_j * (1 + 1.96 * _RELATIVE_SD),
        n_repeats=5,
        converged=True,
        meter="formula",
        source="formula",
        is_estimate=True,
        device=device,
        workload=workload.key,
        batch_size=workload.batch_size,
        latency_s=energy_j * workload.batch_size / _POWER_W,
        power_w=_POWER_W,
        duration_s=10.0,
        protocol_hash="0" * 12,
    )
    return Outcome(
        "complete",
        quality=Score(float(np.clip(quality, 0, 1)), _QUALITY_SE),
        params=counts.params,
        measurement=Measurement(reading),
    )


def training_s(architecture: Architecture, workload: Workload) -> float:
    """Seconds that a worker is busy with ``architecture``, by the simulated clock."""
    rng = np.random.default_rng([int(architecture.hash, 16), 1])
    macs = count(architecture, workload).macs
    length = _LEAST_TRAINING_S + _TRAINING_S_PER_MAC * macs
    return float(length * np.exp(0.3 * rng.standard_normal()))
