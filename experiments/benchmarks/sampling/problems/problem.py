"""What a sampler is judged on: two losses over a space, with the best front that is known."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.benchmarks.sampling.problems.architectures import Architectures
from experiments.benchmarks.sampling.problems.space import Config, Parameter
from nas.pareto.hypervolume import hypervolume

Array = NDArray[np.float64]
MINIMISED = (False, False)


@dataclass(frozen=True)
class Problem:
    """Two losses, both minimised.

    ``truth`` gives noise-free losses ``(N, 2)``; samplers see the first with Gaussian noise of
    ``noise_sd``, and are judged by the truth of all that they evaluated. ``best`` finds the
    largest known hypervolume, which may take a while. ``milestone`` is a share of it that others
    have reported. ``architectures`` are those of its configurations, where they have any. ``row``
    maps a configuration to the row of a table that answers for it; without it each is its own.
    ``canonical_rows`` maps rows of choices' positions, whose parameters are named, to canonical
    ones, for samplers that can be told of equivalent candidates.
    """

    name: str
    about: str
    parameters: tuple[Parameter, ...]
    truth: Callable[[Sequence[Config]], Array]
    reference: tuple[float, float]
    best: Callable[[], float]
    noise_sd: float = 0.0
    milestone: float | None = None
    architectures: Architectures | None = None
    row: Callable[[Config], Hashable] | None = None
    canonical_rows: Callable[[Array, Sequence[str]], Array] | None = None

    def row_of(self, config: Config) -> Hashable:
        """Return what is evaluated: equal for configurations that are one row of a table."""
        return tuple(sorted(config.items())) if self.row is None else self.row(config)

    def volume(self, losses_N2: Array) -> float:
        """Hypervolume from the problem's reference point."""
        return hypervolume(losses_N2, self.reference, MINIMISED)
