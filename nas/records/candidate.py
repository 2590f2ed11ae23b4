"""``Candidate``: what is to be evaluated. ``Outcome``: what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from nas.core.estimate import Estimate, Score
from nas.core.names import printable
from nas.core.typed import require_int
from nas.core.versions import Versions
from nas.records.rungs import RungPoint
from nas.records.spent import Spent
from nas.training.config import Qat, Start
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture

Ending = Literal["complete", "stopped", "dropped", "failed"]
# Whether the quality is of weights trained for the architecture, or of a supernet's as they are.
Weights = Literal["own", "inherited"]
# Whether the joules are measured or predicted.
Joules = Literal["measured", "predicted"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An architecture to evaluate.

    ``prediction`` is of its joules per sample, made before it cost any training; ``None`` where
    there was no predictor. ``is_audit`` marks a candidate that the gate would have dropped and
    that is evaluated all the same. ``replica`` is above 0 where a trial is evaluated again from
    another seed (``nas.records.replicas``). In a search by a supernet (``nas.records.supernet``)
    ``weights`` and ``joules`` say how it is evaluated, ``finalist_of`` is the trial that is
    fine-tuned to make this one, and ``inherited_quality`` the quality of that trial.

    Raises:
        ValueError: ``number``, ``replica``, ``weights`` or ``joules`` is not allowed.
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

    def __post_init__(self) -> None:
        """Check what names folders, and the choices."""
        require_int("number", self.number, 0)
        require_int("replica", self.replica, 0)
        _check_choice("weights", self.weights, get_args(Weights))
        _check_choice("joules", self.joules, get_args(Joules))


@dataclass(frozen=True, slots=True)
class Training:
    """How a candidate was trained.

    ``curve`` contains fp32 qualities on the validation split while it trained for
    ``planned_epochs``. ``start`` is where the weights came from, ``qat`` the result of
    quantisation-aware training (``nas.training.fit``). ``versions`` are those of the libraries,
    more than one where training was interrupted and went on under others.
    """

    curve: tuple[RungPoint, ...] = ()
    planned_epochs: int | None = None
    start: Start = "random"
    qat: Qat = "not needed"
    versions: tuple[Versions, ...] = field(default=(), hash=False)


@dataclass(frozen=True, slots=True)
class Measurement:
    """Joules of a candidate on each device.

    ``reading`` is of the device whose joules are the search's objective. ``readings`` are of
    further devices by name (``nas.records.device_names``), and ``unmeasured`` gives the reason
    for each of those that has none. ``versions`` are of the libraries that made ``reading``.
    """

    reading: EnergyReading | None = None
    readings: Mapping[str, EnergyReading] = field(default_factory=dict, hash=False)
    unmeasured: Mapping[str, str] = field(default_factory=dict, hash=False)
    versions: Versions = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a candidate.

    ``quality`` is of the validation split and steers the search; ``test_quality`` is recorded
    beside it and chooses nothing. ``uncompressed_quality`` is of the trained weights in fp32 on
    the validation split. ``reason`` says why a candidate was dropped, stopped or failed.
    ``peak_memory_bytes`` is counted, not measured (``search_spaces.cost.memory``).
    ``n_evaluations`` is above 1 where figures are means over replicas.

    Raises:
        ValueError: the fields do not fit the state.
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
        """Check that the state has what it needs."""
        _check_choice("state", self.state, get_args(Ending))
        if self.state == "complete":
            quality = self.quality
            if quality is None or not math.isfinite(quality.standard_error):
                raise ValueError("a complete trial must have quality, quality_se and reading")
            if not 0 <= quality.value <= 1:
                raise ValueError(f"quality must be in [0, 1], got {quality.value!r}")
        elif not self.reason:
            raise ValueError(f"a {self.state} trial must have a reason")
        if self.state == "stopped" and not (self.training.curve and self.training.planned_epochs):
            raise ValueError("a stopped trial must have a curve and planned_epochs")
        if self.reason is not None:
            # Several verbs print it as it is.
            object.__setattr__(self, "reason", printable(self.reason))

    @classmethod
    def failed(cls, reason: str, spent: Spent = Spent()) -> Outcome:  # noqa: B008
        """A failure, for the first line of ``reason``.

        Where that line ends in a colon, the next is added: compilers name the error there.
        """
        lines = [line.strip() for line in reason.strip().splitlines() if line.strip()]
        n = next((n for n, line in enumerate(lines, 1) if not line.endswith(":")), len(lines))
        return cls("failed", " ".join(lines[:n]) or "no reason given", spent=spent)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
