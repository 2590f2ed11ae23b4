"""Search with a supernet: settings, choice of measured candidates and of finalists.

1. The supernet is trained once (``nas.evaluation.supernet_weights``).
2. Each candidate is a sub-network, evaluated with inherited weights. The first ones are measured,
   to train a predictor of joules. Later ones are measured at intervals and where the prediction
   interval is wide; all others have predicted joules and are marked as such.
3. The best candidates and some controls become *finalists*: new trials, fine-tuned from inherited
   weights, evaluated and measured. The front of a finished search contains only finalists.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nas.core.plain import require_int
from nas.pareto.dominance import non_dominated_mask
from nas.records.candidate import Joules
from nas.records.trial import Trial
from nas.training.config import SupernetRecipe
from search_spaces.architecture import require_positive_int

# Least distance, in candidates, between two measurements because of wide intervals.
_LEAST_APART = 4


@dataclass(frozen=True, slots=True)
class SupernetConfig:
    """Settings of a search with a supernet.

    The first ``measure_first`` sub-networks are measured, then one of ``measure_each``, and those
    whose prediction interval has a ratio of ends above ``measure_width``. The ``finalists`` best
    ones are fine-tuned for ``finish_share`` of a stand-alone network's epochs, together with
    ``controls`` others. Controls are evenly spread over the ranks of quality; they show how well
    inherited qualities rank architectures.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    recipe: SupernetRecipe = field(default_factory=SupernetRecipe)
    measure_first: int = 16
    measure_each: int = 40
    measure_width: float = 3.0
    finalists: int = 12
    controls: int = 4
    finish_share: float = 0.25

    def __post_init__(self) -> None:
        for name in ("measure_first", "measure_each", "finalists"):
            require_positive_int(f"supernet {name}", getattr(self, name))
        require_int("supernet controls", self.controls, 0)
        if not (math.isfinite(self.measure_width) and self.measure_width > 1):
            raise ValueError(f"supernet measure_width must be > 1, got {self.measure_width!r}")
        if not 0 < self.finish_share <= 1:
            raise ValueError(f"supernet finish_share must be in (0, 1], got {self.finish_share!r}")

    def joules_of(self, records: Sequence[Trial], width: float) -> Joules:
        """Return whether the next sub-network's joules are measured or predicted.

        ``records`` are the earlier trials by number, ``width`` is the ratio of the ends of its
        prediction interval.
        """
        trials = [record for record in records if record.state in ("complete", "running")]
        measured = [index for index, r in enumerate(trials) if r.joules == "measured"]
        if len(measured) < self.measure_first:
            return "measured"
        apart = len(trials) - measured[-1]
        wide = width > self.measure_width and apart >= _LEAST_APART
        return "measured" if wide or apart >= self.measure_each else "predicted"


def choose_finalists(
    records: Sequence[Trial], energies_j: Sequence[float], config: SupernetConfig
) -> list[int]:
    """Return the numbers of the complete ``records`` to fine-tune, baselines first.

    ``energies_j`` are their current joules. Finalists come from the successive non-dominated
    fronts; the last front may contribute only some members, evenly spread along it. Controls are
    evenly spread over the qualities of the rest.
    """
    chosen = [index for index, record in enumerate(records) if record.baseline]
    others = [index for index in range(len(records)) if index not in chosen]
    best = best_of(
        [records[index] for index in others],
        [energies_j[index] for index in others],
        config.finalists,
    )
    chosen += [others[index] for index in best]
    left = np.array([i for i in others if i not in chosen], dtype=np.int64)
    qualities = np.array([records[index].objectives[0] for index in left])
    by_quality = left[np.argsort(qualities, kind="stable")] if len(left) else left
    chosen += _spread(by_quality, config.controls).tolist()
    return [records[index].number for index in chosen]


def best_of(records: Sequence[Trial], energies_j: Sequence[float], most: int) -> list[int]:
    """Return the positions of at most ``most`` of ``records``, from successive fronts.

    The last front may contribute only some members, evenly spread along it.
    """
    points = np.array([[r.objectives[0], e] for r, e in zip(records, energies_j, strict=True)])
    left = np.arange(len(records), dtype=np.int64)
    chosen: list[int] = []
    while len(chosen) < most and len(left):
        on_front = non_dominated_mask(points[left], (True, False))
        layer = left[on_front]
        layer = _spread(layer[np.argsort(points[layer, 1])], most - len(chosen))
        chosen += layer.tolist()
        left = left[~np.isin(left, layer)] if len(layer) < on_front.sum() else left[~on_front]
    return chosen


def _spread(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return ``most`` of ``values`` at even distances, including both ends."""
    if len(values) <= most:
        return values
    indices = np.unique(np.round(np.linspace(0, len(values) - 1, most)).astype(np.int64))
    spread: NDArray[np.int64] = values[indices]
    return spread
