"""``Candidate``, an architecture to evaluate, and ``Outcome``, the result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from nas.core.estimate import Estimate, Score
from nas.core.names import printable
from nas.core.plain import require_int
from nas.core.versions import Versions
from nas.records.rungs import RungPoint
from nas.records.runtime_plan import RuntimePlan
from nas.records.spent import Spent
from nas.training.config import Qat, Start
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture

Ending = Literal["complete", "stopped", "dropped", "failed"]
# Weights that the quality refers to: trained for this architecture, or a supernet's.
Weights = Literal["own", "inherited"]
# Whether the joules are measured or predicted.
Joules = Literal["measured", "predicted"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An architecture to evaluate.

    ``prediction`` is the predicted joules per sample from before training, ``None`` without a
    predictor. ``is_audit`` marks a candidate that is evaluated although the gate would have
    dropped it. ``replica`` is above 0 if a trial is evaluated again from another seed
    (``nas.records.replicas``). In a search with a supernet (``nas.records.supernet``),
    ``weights`` and ``joules`` define the evaluation, ``finalist_of`` is the trial from which a
    finalist is fine-tuned, and ``inherited_quality`` the quality of that trial.

    ``measure_above`` is the validation quality up to which a member of the front dominates the
    candidate even at the optimistic end of its prediction: then it is not measured, and keeps its
    prediction.

    In a search with several ``runtimes`` they are those of the search, from the fewest predicted
    joules to the most, and ``prediction`` is the fewest. Else there are none.

    Raises:
        ValueError: ``number``, ``replica``, ``weights`` or ``joules`` is out of range.
    """

    number: int
    architecture: Architecture
    prediction: Estimate | None = None
    is_audit: bool = False
    is_baseline: bool = False
    replica: int = 0
    weights: Weights = "own"
    joules: Joules = "measured"
    finalist_of: int | None = None
    inherited_quality: Score | None = None
    measure_above: float | None = None
    runtimes: tuple[RuntimePlan, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers, which become folder names, and the choices."""
        require_int("number", self.number, 0)
        require_int("replica", self.replica, 0)
        _check_choice("weights", self.weights, get_args(Weights))
        _check_choice("joules", self.joules, get_args(Joules))

    def is_worth_measuring(self, quality: Score) -> bool:
        """Return whether a trained candidate of this validation quality must be measured.

        It need not be if its quality is below ``measure_above`` even at the upper end of its 95%
        interval.
        """
        if self.measure_above is None or self.prediction is None:
            return True
        return quality.value + 1.96 * quality.standard_error >= self.measure_above


@dataclass(frozen=True, slots=True)
class Training:
    """Training history of a candidate.

    ``curve`` contains fp32 validation qualities at rungs of a training of ``planned_epochs``.
    ``start`` is the source of the first weights, ``qat`` the result of quantisation-aware training
    (``nas.training.fit``). ``versions`` contains one entry of library versions, or several if
    training resumed with others.
    """

    curve: tuple[RungPoint, ...] = ()
    planned_epochs: int | None = None
    start: Start = "random"
    qat: Qat = "not needed"
    versions: tuple[Versions, ...] = field(default=(), hash=False)


@dataclass(frozen=True, slots=True)
class Measurement:
    """Joules of a candidate on each device.

    ``reading`` is from the device whose joules are the search's objective. ``readings`` are from
    further devices by name (``nas.records.device_names``), and ``unmeasured`` contains the reason
    for each device without a reading. ``versions`` are the library versions of ``reading``.

    In a search with several runtimes ``reading`` is that of fewest joules, ``other_runtimes`` are
    the readings in the others by name, and ``left_out_runtimes`` the reason for each runtime
    without a reading.
    """

    reading: EnergyReading | None = None
    readings: Mapping[str, EnergyReading] = field(default_factory=dict, hash=False)
    unmeasured: Mapping[str, str] = field(default_factory=dict, hash=False)
    versions: Versions = field(default_factory=dict, hash=False)
    other_runtimes: Mapping[str, EnergyReading] = field(default_factory=dict, hash=False)
    left_out_runtimes: Mapping[str, str] = field(default_factory=dict, hash=False)

    def in_runtimes(self) -> dict[str, EnergyReading]:
        """Return the readings in all runtimes, the fewest joules first."""
        own = {} if self.reading is None else {self.reading.runtime: self.reading}
        readings = {**own, **self.other_runtimes}
        return dict(sorted(readings.items(), key=lambda item: item[1].energy_j))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a candidate.

    ``quality`` is measured on the validation split and guides the search; ``test_quality``
    influences no choice. ``uncompressed_quality`` is that of the trained fp32 weights on the
    validation split. ``reason`` explains why a candidate was dropped, was stopped or failed.
    ``peak_memory_bytes`` is an estimate in closed form (``search_spaces.cost.memory``).
    ``n_evaluations`` is above 1 if the values are means over replicas.

    Raises:
        ValueError: the fields do not fit the state, or a value is out of range.
    """

    state: Ending
    reason: str | None = None
    quality: Score | None = None
    test_quality: Score | None = None
    uncompressed_quality: float | None = None
    params: int | None = None
    peak_memory_bytes: float | None = None
    n_evaluations: int = 1
    training: Training = Training()
    measurement: Measurement = Measurement()
    spent: Spent = Spent()

    def __post_init__(self) -> None:
        """Check that the fields required by the state are set."""
        _check_choice("state", self.state, get_args(Ending))
        if self.state == "complete":
            quality = self.quality
            if quality is None or not math.isfinite(quality.standard_error):
                raise ValueError("a complete trial must have quality, quality_se and reading")
        elif not self.reason:
            raise ValueError(f"a {self.state} trial must have a reason")
        if self.state == "stopped" and not (self.training.curve and self.training.planned_epochs):
            raise ValueError("a stopped trial must have a curve and planned_epochs")
        self._check_ranges()
        if self.reason is not None:
            # Commands print it without escaping.
            object.__setattr__(self, "reason", printable(self.reason))

    def _check_ranges(self) -> None:
        require_int("n_evaluations", self.n_evaluations, 1)
        scores = {"quality": self.quality, "test_quality": self.test_quality}
        qualities = {name: score.value for name, score in scores.items() if score is not None}
        if self.uncompressed_quality is not None:
            qualities["uncompressed_quality"] = self.uncompressed_quality
        for name, quality in qualities.items():
            if not 0 <= quality <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {quality!r}")
        sizes = {"params": self.params, "peak_memory_bytes": self.peak_memory_bytes}
        for name, size in sizes.items():
            if size is not None and not size >= 0:
                raise ValueError(f"{name} must be >= 0, got {size!r}")

    @classmethod
    def failed(cls, reason: str, spent: Spent = Spent()) -> Outcome:  # noqa: B008
        """Return a failed outcome with the first line of ``reason``.

        If that line ends in a colon, the next is added: compilers put the error there.
        """
        lines = [line.strip() for line in reason.strip().splitlines() if line.strip()]
        n = next((n for n, line in enumerate(lines, 1) if not line.endswith(":")), len(lines))
        return cls("failed", " ".join(lines[:n]) or "no reason given", spent=spent)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
