"""What a model costs over its life: training it once, then every inference."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from nas.pareto.queries import FrontMember

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Joules and grams of CO2 equivalent of one member over ``inferences`` samples.

    Of tokens, where joules are per token.
    ``training_energy_j`` is what its own weights took, a shared teacher or supernet included;
    ``inferences_to_break_even`` after how many of them it has paid back the whole search against
    the baseline, ``None`` without a baseline or where it needs no fewer joules than that one.
    """

    trial: int
    inferences: float
    training_energy_j: float
    use_energy_j: float
    carbon_g: float
    inferences_to_break_even: float | None

    @property
    def energy_j(self) -> float:
        """Training and use."""
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
    """The lifetimes of ``members``, the fewest joules first.

    The search's own joules are the same whichever member is used, so they are no part of a
    lifetime; they are what ``inferences_to_break_even`` pays back.

    Args:
        members: Those to compare; each must know what its training took.
        inferences: Samples (or tokens) over the whole life.
        carbon_g_per_kwh: Carbon intensity of the electricity.
        search_energy_j: All that the search spent.
        shared_energy_j: What a teacher or supernet took that each member's weights came of.
        baseline_energy_j: Joules per unit of what is used otherwise.

    Raises:
        ValueError: ``inferences`` is not above 0, or a member's training was not accounted for.
    """
    if not (math.isfinite(inferences) and inferences > 0):
        raise ValueError(f"inferences must be finite and > 0, got {inferences!r}")
    found = []
    for member in members:
        if member.train_energy_j is None:
            raise ValueError(
                f"inferences: trial {member.trial} must have training joules, which its meter "
                f"did not see"
            )
        training_j = member.train_energy_j + shared_energy_j
        use_j = inferences * member.energy_j
        saved_j = 0.0 if baseline_energy_j is None else baseline_energy_j - member.energy_j
        found.append(
            Lifetime(
                trial=member.trial,
                inferences=inferences,
                training_energy_j=training_j,
                use_energy_j=use_j,
                carbon_g=(training_j + use_j) / JOULES_PER_KWH * carbon_g_per_kwh,
                inferences_to_break_even=search_energy_j / saved_j if saved_j > 0 else None,
            )
        )
    return sorted(found, key=lambda lifetime: (lifetime.energy_j, lifetime.trial))
