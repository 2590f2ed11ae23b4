"""Compare joules of the same models under different limits of one board."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from nas.core.estimate import Estimate
from predictors.measurement.records import EnergyRecord


@dataclass(frozen=True, slots=True)
class LimitsCompared:
    """Comparison of two sets of limits on the models measured under both.

    ``ratio`` is the median over models of joules under the ``second`` limits over those under the
    ``first``, with the smallest and the largest ratio as its bounds.
    """

    device: str
    first: str
    second: str
    n_models: int
    ratio: Estimate
    latency_ratio: float


def compare_limits(groups: Sequence[Sequence[EnergyRecord]]) -> list[LimitsCompared]:
    """Compare all pairs of ``groups`` that differ only in limits and share a model.

    Each group is of one device, source, protocol and limits (``evaluation.by_device``).
    """
    comparisons = []
    for first, second in combinations(groups, 2):
        if _board(first[0]) != _board(second[0]):
            continue
        before, after = _by_model(first), _by_model(second)
        shared = before.keys() & after.keys()
        if not shared:
            continue
        ratios = [after[key][0] / before[key][0] for key in shared]
        comparisons.append(
            LimitsCompared(
                device=first[0].reading.place,
                first=first[0].reading.limits_text,
                second=second[0].reading.limits_text,
                n_models=len(shared),
                ratio=Estimate(median(ratios), min(ratios), max(ratios), "models"),
                latency_ratio=median(after[key][1] / before[key][1] for key in shared),
            )
        )
    return comparisons


def _board(record: EnergyRecord) -> tuple[str, str, str]:
    reading = record.reading
    return reading.place, reading.source, reading.protocol_hash


def _by_model(records: Sequence[EnergyRecord]) -> dict[tuple[str, str], tuple[float, float]]:
    """Return median joules and seconds of each model on each workload."""
    every: dict[tuple[str, str], list[EnergyRecord]] = defaultdict(list)
    for record in records:
        every[record.architecture.hash, record.workload.key].append(record)
    return {
        key: (
            median(r.reading.energy_j for r in repeats),
            median(r.reading.latency_s for r in repeats),
        )
        for key, repeats in every.items()
    }
