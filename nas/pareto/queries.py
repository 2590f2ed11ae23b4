"""Queries of a front: the best within a budget, the cheapest that is good enough, the knee."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.core.estimate import Estimate
from nas.core.names import TORCH
from nas.core.units import Quantity, format_joules, parse_joules
from nas.pareto.dominance import non_dominated_mask
from nas.pareto.spread import spread
from nas.pareto.uncertainty import front_probabilities
from nas.tasks.base.metric import ACCURACY, Metric, get_metric

# Least height of a knee above the line between the front's ends, as a share of its extent.
KNEE_HEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Figures:
    """The compared figures of a trial; units and meanings are those of ``FrontMember``."""

    trial: int
    quality: float
    quality_se: float
    energy_j: float
    energy_low_j: float
    energy_high_j: float
    params: int
    latency_s: float | None = None
    peak_memory_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class FrontMember:
    """One architecture of a front with its measurements.

    ``quality`` is that of the validation split, which chooses members; ``test_quality`` is shown
    beside it and never chooses. Energies are joules per ``unit``; the interval is 95%.
    ``latency_s`` is of one batch; ``peak_memory_bytes`` is counted, not measured.
    ``front_probability`` is P(Pareto), the probability that no trial dominates this one, given
    the standard errors of both (``nas.pareto.uncertainty``); filled in by ``Front.of``.
    Figures are means over ``n_evaluations`` trainings and measurements.
    ``baseline`` marks an architecture that the user named for comparison. ``weights`` are ``own``
    (trained for this trial) or ``inherited`` from a supernet; ``joules`` are ``measured`` or
    ``predicted``. A finalist has the number of its earlier trial (``finalist_of``) and the quality
    with inherited weights. ``train_energy_j`` excludes a teacher and a supernet; ``None`` if it
    was not measured. Qualities are in [0, 1], higher is better, for every metric; ``score`` is the
    validation quality in the unit of ``metric``, such as bits per byte. ``unit`` is a sample, or a
    token of a phase of decoding. ``measured_on`` is the search's name of ``device``, if it has
    one. ``flags`` name problems of the measurement (``predictors.meters.flags``). ``limits``
    describes the board's power limits and ``power_limit_w`` is the first of them, unknown if the
    board reports none. ``loadable`` states whether a stock class of ``transformers`` supports the
    architecture, ``None`` if the workload is not known. ``runtime`` ran the network for its
    joules; ``other_runtimes_j`` are those that it took in other runtimes of the search.
    """

    trial: int
    architecture: dict[str, Any]
    architecture_text: str
    quality: float
    quality_se: float
    test_quality: float | None
    energy_j: float
    energy_low_j: float
    energy_high_j: float
    meter: str
    source: str
    is_estimate: bool
    device: str
    workload: str
    params: int
    latency_s: float | None = None
    peak_memory_bytes: float | None = None
    front_probability: float | None = None
    n_evaluations: int = 1
    baseline: bool = False
    weights: str = "own"
    joules: str = "measured"
    finalist_of: int | None = None
    inherited_quality: float | None = None
    train_energy_j: float | None = None
    metric: str = "accuracy"
    score: float | None = None
    score_se: float | None = None
    unit: str = "sample"
    measured_on: str | None = None
    flags: tuple[str, ...] = ()
    limits: str = ""
    power_limit_w: float | None = None
    loadable: bool | None = None
    runtime: str = TORCH
    other_runtimes_j: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def energy(self) -> Estimate:
        """Joules per ``unit`` with their interval."""
        return Estimate(self.energy_j, self.energy_low_j, self.energy_high_j, self.source)


@dataclass(frozen=True, slots=True)
class Front:
    """Members that no other dominates, from the fewest joules to the most.

    ``costs`` name what is minimised beside joules. Made by ``Front.of``, which leaves the
    dominated out.
    """

    members: tuple[FrontMember, ...]
    costs: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        candidates: Iterable[Figures | FrontMember],
        costs: Sequence[str] = (),
        member: Callable[[int], FrontMember] | None = None,
    ) -> Front:
        """Return the front of ``candidates``: quality maximised, joules and ``costs`` minimised.

        For candidates that are ``Figures``, ``member`` returns the member at a position. It is
        called for positions on the front only.

        Raises:
            ValueError: a cost is not one of latency, params, memory, or a candidate lacks it.
        """
        rows: list[Figures | FrontMember] = list(candidates)
        mask = non_dominated_mask(
            [[c.quality, c.energy_j, *(_cost(c, name) for name in costs)] for c in rows],
            (True, *[False] * (1 + len(costs))),
        )
        probabilities = chances(rows, costs)
        members = []
        for i in map(int, np.flatnonzero(mask)):
            row = rows[i]
            if not isinstance(row, FrontMember):
                if member is None:
                    raise ValueError("member must be set for candidates that are figures")
                row = member(i)
            members.append(replace(row, front_probability=float(probabilities[i])))
        return cls(tuple(sorted(members, key=lambda m: (m.energy_j, m.trial))), tuple(costs))

    def __iter__(self) -> Iterator[FrontMember]:
        """Members from the fewest joules to the most."""
        return iter(self.members)

    def __len__(self) -> int:
        """Number of members."""
        return len(self.members)

    def within(
        self, *, max_joules: Quantity | None = None, min_quality: Quantity | None = None
    ) -> Front:
        """Return the members within a budget per unit and a minimum quality; may be empty.

        Either may be a text as tables print it: ``"100 uJ"``, and ``"84%"`` or the score in the
        metric's own unit, such as ``"2.7 bits"`` (at most) or ``"21 BLEU"``. A number is joules,
        or a quality in [0, 1].

        Raises:
            ValueError: a value is not a number in such a unit.
        """
        most_j, least = self._read(max_joules, min_quality)
        return Front(
            tuple(
                m
                for m in self.members
                if (most_j is None or m.energy_j <= most_j)
                and (least is None or m.quality >= least)
            ),
            self.costs,
        )

    def best(
        self, *, max_joules: Quantity | None = None, min_quality: Quantity | None = None
    ) -> FrontMember:
        """Return the best member within a budget, or the cheapest with a minimum quality.

        With ``min_quality`` alone it has the fewest joules, otherwise the highest quality. Both
        are written as for ``within``.

        Raises:
            ValueError: no member qualifies; the message has the extent of the front.
        """
        fit = self.within(max_joules=max_joules, min_quality=min_quality).members
        if not self.members:
            raise ValueError(
                "the front is empty: no trial is complete that satisfies every constraint"
            )
        if not fit:
            least, most = self.members[0], max(self.members, key=lambda m: m.quality)
            most_j, share = self._read(max_joules, min_quality)
            quality = self._metric.text
            requested = [] if most_j is None else [f"max_joules {format_joules(most_j)}"]
            requested += (
                [] if share is None else [f"min_quality {quality(share)} ({self._metric.name})"]
            )
            raise ValueError(
                f"no member of the front keeps {' and '.join(requested)}: it spans "
                f"{quality(least.quality)} at {format_joules(least.energy_j)} to "
                f"{quality(most.quality)} at {format_joules(most.energy_j)}"
            )
        if min_quality is not None and max_joules is None:
            return min(fit, key=lambda m: (m.energy_j, m.trial))
        return max(fit, key=lambda m: (m.quality, -m.energy_j))

    def _read(
        self, max_joules: Quantity | None, min_quality: Quantity | None
    ) -> tuple[float | None, float | None]:
        """Return joules and a quality in [0, 1]; both may be texts."""
        most_j = None if max_joules is None else parse_joules(max_joules, "max_joules")
        if isinstance(min_quality, str):
            return most_j, self._metric.parse(min_quality, "min_quality")
        # A number is in [0, 1] for every metric.
        share = None if min_quality is None else ACCURACY.parse(min_quality, "min_quality")
        return most_j, share

    @property
    def _metric(self) -> Metric:
        return get_metric(self.members[0].metric) if self.members else ACCURACY

    def recommended(self) -> FrontMember:
        """Return the cheapest member within one standard error of the best quality.

        The one-standard-error rule (Breiman et al. 1984): qualities that differ by less than the
        best member's error are not distinguishable, so fewer joules decide. Without a known error
        (0, or NaN) it is the best member itself. Further objectives are not considered.

        Raises:
            ValueError: the front is empty.
        """
        best = self.best()
        error = best.quality_se
        least = best.quality - (error if error is not None and error > 0 else 0.0)
        near = [m for m in self.members if m.quality >= least]
        return min(near, key=lambda m: (m.energy_j, -m.quality, m.trial))

    def knee(self) -> FrontMember | None:
        """Return the member after which more joules add little quality, ``None`` without a knee.

        The knee is the member farthest above the straight line between the two ends of the front,
        with quality in the metric's own unit and the logarithm of joules each scaled to [0, 1]
        (Das 1999, "On characterizing the knee of the Pareto curve"). It must lie above that line
        by more than ``KNEE_HEIGHT`` of the front's extent, and by more than its own standard
        error. A front of one or two members, or a straight or convex one, has none. With further
        objectives it is the knee of the front of quality and joules alone.
        """
        if self.costs:
            return Front.of(self.members).knee()
        if len(self.members) < 3:
            return None
        energy = np.log([m.energy_j for m in self.members])
        quality = np.array([_score(m) for m in self.members])
        extent = float(quality[-1] - quality[0])
        if not (np.isfinite(quality).all() and extent and energy[-1] > energy[0]):
            return None
        across = (energy - energy[0]) / (energy[-1] - energy[0])
        height = (quality - quality[0]) / extent - across
        highest = int(np.argmax(height))
        member = self.members[highest]
        error = (member.quality_se if member.score is None else member.score_se) or 0.0
        noise = error / abs(extent) if error > 0 else 0.0
        return member if height[highest] > max(KNEE_HEIGHT, noise) else None

    def diverse(self, k: int) -> Front:
        """Return ``k`` members spread over the front (``nas.pareto.spread``), or all if fewer.

        With ``k`` 1 it is the recommended member. Quality and the logarithms of joules and costs
        have equal weights.

        Raises:
            ValueError: ``k`` is below 1.
        """
        if k < 1:
            raise ValueError(f"top must be >= 1, got {k!r}")
        if k == 1 and self.members:
            return Front((self.recommended(),), self.costs)
        chosen = spread(self.losses(), k) if self.members else []
        return Front(tuple(self.members[i] for i in chosen), self.costs)

    def losses(self) -> NDArray[np.float64]:
        """Return error rate and decades of joules and each cost, ``(N, M)``, to be minimised."""
        rows = [
            [1 - m.quality, *np.log10([m.energy_j, *(_cost(m, name) for name in self.costs)])]
            for m in self.members
        ]
        return np.array(rows, dtype=np.float64).reshape(-1, 2 + len(self.costs))

    def to_rows(self) -> list[dict[str, Any]]:
        """Return plain data for JSON or CSV, one row a member."""
        return [asdict(member) for member in self.members]


def chances(
    members: Sequence[Figures | FrontMember], costs: Sequence[str] = ()
) -> NDArray[np.float64]:
    """Return P(Pareto) of each among all of them, shape ``(N,)``; see ``Front.of``."""
    # By columns: calls for each of a hundred thousand members would dominate the time.
    energies = np.array([[m.energy_j, m.energy_low_j, m.energy_high_j] for m in members])
    energy_j, low_j, high_j = energies.reshape(-1, 3).T
    # Standard deviation of the logarithm of the joules, from their 95% interval.
    log_sd = np.log(high_j / low_j) / (2 * 1.96)
    values = [np.array([m.quality for m in members]), np.log(energy_j)]
    deviations = [np.array([m.quality_se for m in members]), log_sd]
    for name in costs:
        values.append(np.log(np.array([_cost(m, name) for m in members], dtype=np.float64)))
        # Latency is measured in the same windows as joules; counts have no error.
        deviations.append(log_sd * (name == "latency"))
    return front_probabilities(
        np.column_stack(values),
        np.column_stack(deviations),
        (True, *[False] * (1 + len(costs))),
    )


_FIELDS = {"latency": "latency_s", "params": "params", "memory": "peak_memory_bytes"}


def _score(member: FrontMember) -> float:
    """Return the quality in the metric's own unit if it is known, else in [0, 1]."""
    return member.quality if member.score is None else member.score


def _cost(member: Figures | FrontMember, name: str) -> float:
    if name not in _FIELDS:
        raise ValueError(f"costs must be of {', '.join(_FIELDS)}, got {name!r}")
    value: float | None = getattr(member, _FIELDS[name])
    if value is None:
        raise ValueError(f"trial {member.trial} must have {_FIELDS[name]}, and does not")
    return value
