"""How well inherited qualities rank architectures: Kendall's tau with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from nas.core.estimate import Estimate
from nas.records.trial import Trial

# Below this a search by inherited qualities is advised against.
LEAST_TAU = 0.5
# Fewer pairs than this say next to nothing.
LEAST_PAIRS = 5
_RESAMPLES = 500


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Kendall's tau-b of ``n`` pairs of qualities, with its bootstrap 95% interval."""

    tau: Estimate
    n: int

    @classmethod
    def of(cls, inherited: Sequence[float], own: Sequence[float]) -> Fidelity | None:
        """``None`` with fewer than ``LEAST_PAIRS``, or where all of either are equal."""
        pairs = np.column_stack([inherited, own])
        tau = _tau(pairs)
        if len(pairs) < LEAST_PAIRS or tau is None:
            return None
        rng = np.random.default_rng(0)
        drawn = (_tau(pairs[rng.integers(len(pairs), size=len(pairs))]) for _ in range(_RESAMPLES))
        low, high = np.quantile([t for t in drawn if t is not None], [0.025, 0.975])
        interval = Estimate(tau, min(tau, float(low)), max(tau, float(high)), "bootstrap")
        return cls(interval, len(pairs))

    @property
    def is_poor(self) -> bool:
        """Whether the search should have trained its candidates from scratch."""
        return self.tau.mean < LEAST_TAU


def fidelity_of(records: Sequence[Trial]) -> Fidelity | None:
    """That of a search's finalists; ``None`` where there are too few of them."""
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
