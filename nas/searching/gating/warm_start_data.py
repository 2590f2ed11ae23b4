"""Prior data of a search's gate: labels and a predictor from before its first trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from predictors.energy.models import CostPredictor, Observation
from predictors.energy.update import updated
from search_spaces.architecture import Architecture


@dataclass(frozen=True, slots=True)
class QualityLabel:
    """A validation quality under the search's own recipe, with its standard error."""

    architecture: Architecture
    quality: float
    standard_error: float


@dataclass(frozen=True)
class WarmStartData:
    """Labels that are comparable with the search's own, and a predictor of joules.

    ``observations`` are joules measured under the search's conditions. ``source`` is a predictor
    fitted before; ``is_same`` if its device, meter, protocol and workload are the search's own.
    ``device`` is the search's, whose type has a prior of its own.
    Prior trials inform predictions only. They are not on the search's front, so a candidate that
    only they dominate is not dropped for it.
    """

    observations: tuple[Observation, ...] = ()
    qualities: tuple[QualityLabel, ...] = ()
    source: CostPredictor | None = None
    is_same: bool = False
    device: str = "cpu"

    @property
    def n_energy(self) -> int:
        """Number of measurements that joules can be predicted from."""
        own = self.source.n_records if self.source is not None and self.is_same else 0
        return len(self.observations) + own

    @property
    def n_both(self) -> int:
        """Number of trials that both joules and qualities can be predicted from."""
        return min(self.n_energy, len(self.qualities))

    def predictor(self, own: Sequence[Observation], *, seed: int) -> CostPredictor:
        """The predictor of joules after the search has measured ``own``."""
        measured = [*self.observations, *own]
        if self.source is None:
            return CostPredictor.fit(measured, seed=seed, device=self.device)
        return updated(self.source, measured, is_same=self.is_same, seed=seed)
