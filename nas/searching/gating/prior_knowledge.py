"""What a search knows before its first trial, in the gate's terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from predictors.energy.models import EnergyPredictor, Observation
from predictors.energy.update import updated
from search_spaces.architecture import Architecture


@dataclass(frozen=True, slots=True)
class KnownAccuracy:
    """A validation accuracy under the search's own recipe, with its standard error."""

    architecture: Architecture
    accuracy: float
    standard_error: float


@dataclass(frozen=True)
class Knowledge:
    """Figures that compare with those the search will make, and a predictor of joules.

    ``observations`` are joules measured as the search measures. ``rivals`` are accuracy and joules
    of members of its space, each a deviation or more worse than measured. ``source`` is a
    predictor fitted elsewhere, or earlier; ``is_same`` says whether that was the search's own
    device, meter, protocol and workload.
    """

    observations: tuple[Observation, ...] = ()
    accuracies: tuple[KnownAccuracy, ...] = ()
    rivals: tuple[tuple[float, float], ...] = ()
    source: EnergyPredictor | None = None
    is_same: bool = False

    @property
    def n_energy(self) -> int:
        """Measurements that joules of this search can be predicted from."""
        own = self.source.n_records if self.source is not None and self.is_same else 0
        return len(self.observations) + own

    @property
    def n_both(self) -> int:
        """Trials that a candidate's place at the front can be predicted from."""
        return min(self.n_energy, len(self.accuracies))

    def predictor(self, own: Sequence[Observation], *, seed: int) -> EnergyPredictor:
        """Of joules, after the search has measured ``own``."""
        measured = [*self.observations, *own]
        if self.source is None:
            return EnergyPredictor.fit(measured, seed=seed)
        return updated(self.source, measured, is_same=self.is_same, seed=seed)
