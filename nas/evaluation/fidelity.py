"""Rank correlation of qualities before and after training: Kendall's tau with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from nas.core.estimate import Estimate
from nas.records.trial import Trial

# Below these, reports advise against a search with a supernet, and against short trainings.
LEAST_TAU, LEAST_TAU_OF_RECOVERIES = 0.5, 0.6
# Fewer pairs give no useful interval.
LEAST_PAIRS = 5
_RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Kendall's tau-b of ``n`` pairs of qualities, with its bootstrap 95% interval."""

    tau: Estimate
    n: int

    @classmethod
    def of(cls, inherited: Sequence[float], own: Sequence[float]) -> Fidelity | None:
        """Compute tau; ``None`` below ``LEAST_PAIRS`` pairs or if either side is constant."""
        pairs = np.column_stack([inherited, own])
        tau = _tau(pairs)
        if len(pairs) < LEAST_PAIRS or tau is None:
            return None
        rng = np.random.default_rng(0)
        taus = (_tau(pairs[rng.integers(len(pairs), size=len(pairs))]) for _ in range(_RESAMPLES))
        low, high = np.quantile([t for t in taus if t is not None], [0.025, 0.975])
        interval = Estimate(tau, min(tau, float(low)), max(tau, float(high)), "bootstrap")
        return cls(interval, len(pairs))


def fidelity_of(records: Sequence[Trial]) -> Fidelity | None:
    """Compute the fidelity of a search's finalists; ``None`` if there are too few."""
    pairs = [
        (record.inherited_quality, record.quality)
        for record in records
        if record.state == "complete"
        and record.inherited_quality is not None
        and record.quality is not None
    ]
    return Fidelity.of([a for a, _ in pairs], [b for _, b in pairs])


def _tau(pairs: NDArray[np.float64]) -> float | None:
    if len(pairs) < 2:
        return None
    tau = float(kendalltau(pairs[:, 0], pairs[:, 1]).statistic)
    return tau if np.isfinite(tau) else None
