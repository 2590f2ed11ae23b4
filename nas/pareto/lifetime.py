"""Lifetime joules of a model: its training, then every inference."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from nas.pareto.queries import FrontMember

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Joules and grams of CO2 equivalent of one member over ``inferences`` samples.

    With joules per token, ``inferences`` are tokens. ``training_energy_j`` includes a shared
    teacher or supernet. After ``inferences_to_break_even``, the joules of the whole search are
    saved against the baseline; ``None`` without a baseline or a saving.
    """

    trial: int
    inferences: float
    training_energy_j: float
    use_energy_j: float
    carbon_g: float
    inferences_to_break_even: float | None

    @property
    def energy_j(self) -> float:
        """Joules of training and use."""
        return self.training_energy_j + self.use_energy_j


def lifetimes(
    members: Iterable[FrontMember],
    *,
    inferences: float,
    carbon_g_per_kwh: float,
    search_energy_j: float,
    shared_energy_j: float = 0.0,
    baseline_energy_j: float | None = None,
) -> list[Lifetime]:
    """Return the lifetimes of ``members``, the fewest joules first.

    The joules of the search are the same for every member, so lifetimes exclude them.

    Args:
        members: Members with known training joules.
        inferences: Samples (or tokens) over the whole life.
        carbon_g_per_kwh: Carbon intensity of the electricity.
        search_energy_j: All joules of the search.
        shared_energy_j: Joules of the teacher or supernet that every member depends on.
        baseline_energy_j: Joules per unit of the baseline.

    Raises:
        ValueError: ``inferences`` is not above 0, or a member's training joules are unknown.
    """
    if not (math.isfinite(inferences) and inferences > 0):
        raise ValueError(f"inferences must be finite and > 0, got {inferences!r}")
    lives = []
    for member in members:
        if member.train_energy_j is None:
            raise ValueError(
                f"inferences: trial {member.trial} must have training joules, which its meter "
                f"did not measure"
            )
        training_j = member.train_energy_j + shared_energy_j
        use_j = inferences * member.energy_j
        saved_j = 0.0 if baseline_energy_j is None else baseline_energy_j - member.energy_j
        lives.append(
            Lifetime(
                trial=member.trial,
                inferences=inferences,
                training_energy_j=training_j,
                use_energy_j=use_j,
                carbon_g=(training_j + use_j) / JOULES_PER_KWH * carbon_g_per_kwh,
                inferences_to_break_even=search_energy_j / saved_j if saved_j > 0 else None,
            )
        )
    return sorted(lives, key=lambda lifetime: (lifetime.energy_j, lifetime.trial))
