"""Runtimes of one candidate in a search that measures in several.

A candidate is trained once. Its quality is that of the trained network, whatever runs it, so that
among its runtimes the one of fewest joules dominates the others. A runtime is left out if even the
optimistic end of its predicted joules is no less than what another runtime took, or if a member of
the front then dominates the candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.core.estimate import Estimate, Score
from nas.core.units import format_joules
from predictors.meters.base import EnergyReading


@dataclass(frozen=True, slots=True)
class RuntimePlan:
    """One runtime in which a candidate may be measured.

    ``prediction`` is the predicted joules per sample there. ``measure_above`` is the validation
    quality up to which a member of the front dominates the candidate even at their optimistic
    end. With ``is_required`` it is measured there whatever is predicted. ``refusal`` is why the
    runtime cannot run the candidate, or is not asked to.
    """

    name: str
    prediction: Estimate | None = None
    measure_above: float | None = None
    is_required: bool = False
    refusal: str | None = None

    def ruled_out(self, quality: Score, measured: Mapping[str, EnergyReading]) -> str | None:
        """Return why a candidate of ``quality`` is not measured here, ``None`` if it is.

        ``measured`` are its readings in other runtimes so far.
        """
        if self.refusal is not None:
            return self.refusal
        if self.is_required or self.prediction is None:
            return None
        low_j = self.prediction.low
        upper = quality.value + 1.96 * quality.standard_error
        predicted = f"not measured: at least {format_joules(low_j)} predicted"
        if self.measure_above is not None and upper < self.measure_above:
            return f"{predicted}, for which a member of the front has a higher quality"
        cheapest = min(measured, key=lambda name: measured[name].energy_j, default=None)
        if cheapest is not None and measured[cheapest].energy_j <= low_j:
            return f"{predicted}, {cheapest} takes {format_joules(measured[cheapest].energy_j)}"
        return None


def least_predicted(plans: Sequence[RuntimePlan]) -> RuntimePlan | None:
    """Return the plan of fewest predicted joules, ``None`` without a prediction."""
    predicted = [p for p in plans if p.prediction is not None and p.refusal is None]
    return min(predicted, key=lambda p: p.prediction.mean, default=None)  # type: ignore[union-attr]
