"""What a sampler is judged on: losses over a space, with the best front that is known."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.benchmarks.sampling.problems.architectures import Architectures
from experiments.benchmarks.sampling.problems.noise import Measured, Noise
from experiments.benchmarks.sampling.problems.space import Config, Parameter
from nas.pareto.hypervolume import hypervolume

Array = NDArray[np.float64]
MINIMISED = (False, False)


def volume_of(losses_NM: Array, reference: Sequence[float]) -> float:
    """Return the hypervolume of losses, all minimised, from a reference point."""
    return hypervolume(losses_NM, reference, (False,) * len(reference))


@dataclass(frozen=True)
class Problem:
    """Two losses or more, all minimised.

    ``truth`` gives noise-free losses ``(N, M)``; samplers see them with ``noise``. They are judged
    by the truth of all that they evaluated, with ``is_scored_by_front`` by the truth of what has
    the best measured values. ``best`` finds the largest known hypervolume, which may take a while.
    ``milestone`` is a share of it that others have reported. ``measured`` states how a rate and a
    cost became the losses. ``architectures`` are those of its configurations, where they have any.
    ``row`` maps a configuration to the row of a table that answers for it; without it each is its
    own. Without ``has_own_values`` a row may answer for several configurations.
    ``canonical_rows`` maps rows of choices' positions, whose parameters are named, to canonical
    ones, for samplers that can be told of equivalent candidates.
    """

    name: str
    about: str
    parameters: tuple[Parameter, ...]
    truth: Callable[[Sequence[Config]], Array]
    reference: tuple[float, ...]
    best: Callable[[], float]
    noise: Noise | None = None
    is_scored_by_front: bool = False
    milestone: float | None = None
    measured: Measured | None = None
    architectures: Architectures | None = None
    row: Callable[[Config], Hashable] | None = None
    has_own_values: bool = True
    canonical_rows: Callable[[Array, Sequence[str]], Array] | None = None

    def row_of(self, config: Config) -> Hashable:
        """Return what is evaluated: equal for configurations that are one row of a table."""
        return tuple(sorted(config.items())) if self.row is None else self.row(config)

    def volume(self, losses_NM: Array) -> float:
        """Hypervolume from the problem's reference point."""
        return volume_of(losses_NM, self.reference)
