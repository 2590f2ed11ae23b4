"""Searches whose candidates are sub-networks of one supernet: what is asked, and by whom joules.

1. The supernet is trained once (``nas.evaluation.supernet_weights``).
2. Each candidate is a sub-network of it, judged with the weights that it inherits. The first ones
   are measured, so that joules can be predicted, later ones now and then and where the prediction
   is wide; others keep the predicted figure, marked so.
3. The best and some controls become *finalists*: trials of their own, fine-tuned from what they
   inherit, evaluated and measured. The front of a finished search is made of these alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nas.core.typed import require_int
from nas.pareto.dominance import non_dominated_mask
from nas.records.candidate import Joules
from nas.records.trial import Trial
from nas.training.config import SupernetRecipe
from search_spaces.architecture import require_positive_int

# Between two that are measured because their interval is wide.
_LEAST_APART = 4


@dataclass(frozen=True, slots=True)
class SupernetConfig:
    """A search by a supernet.

    The first ``measure_first`` sub-networks are measured, then one of ``measure_each``, and those
    whose predicted joules have ends ``measure_width`` times apart. ``finalists`` is how many of
    the best are fine-tuned, for ``finish_share`` of a stand-alone network's epochs; ``controls``
    are more of them, evenly spread over all ranks of quality, by which the search judges how well
    inherited qualities rank.

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
        """How the next sub-network gets its joules.

        ``records`` are those before it, by number, ``width`` is how far the ends of its predicted
        interval are apart, as their ratio.
        """
        tried = [record for record in records if record.state in ("complete", "running")]
        measured = [index for index, r in enumerate(tried) if r.joules == "measured"]
        if len(measured) < self.measure_first:
            return "measured"
        apart = len(tried) - measured[-1]
        wide = width > self.measure_width and apart >= _LEAST_APART
        return "measured" if wide or apart >= self.measure_each else "predicted"


def choose_finalists(
    records: Sequence[Trial], energies_j: Sequence[float], config: SupernetConfig
) -> list[int]:
    """Numbers of the complete ``records`` to fine-tune, the baselines first.

    ``energies_j`` are their joules as known now. The front is taken first, then the front of what
    is left, and so on; of one that is too large, members evenly spread along it. Controls are
    evenly spread over the qualities of the rest.
    """
    points = np.array([[r.objectives[0], e] for r, e in zip(records, energies_j, strict=True)])
    chosen = [index for index, record in enumerate(records) if record.baseline]
    left = np.array([i for i in range(len(records)) if i not in chosen], dtype=np.int64)
    n_best = 0
    while n_best < config.finalists and len(left):
        on_front = non_dominated_mask(points[left], (True, False))
        layer = left[on_front]
        layer = _spread(layer[np.argsort(points[layer, 1])], config.finalists - n_best)
        chosen += layer.tolist()
        n_best += len(layer)
        left = left[~np.isin(left, layer)] if len(layer) < on_front.sum() else left[~on_front]
    by_quality = left[np.argsort(points[left, 0], kind="stable")] if len(left) else left
    chosen += _spread(by_quality, config.controls).tolist()
    return [records[index].number for index in chosen]


def _spread(values: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """``most`` of ``values`` at even distances, both ends among them."""
    if len(values) <= most:
        return values
    kept = np.unique(np.round(np.linspace(0, len(values) - 1, most)).astype(np.int64))
    found: NDArray[np.int64] = values[kept]
    return found
