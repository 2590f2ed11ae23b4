"""``Trial``: a candidate of a search with its outcome, stored as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar, overload

from nas.core.estimate import Estimate
from nas.core.files import as_written
from nas.core.plain import from_plain, to_plain
from nas.core.versions import Versions
from nas.records.candidate import Candidate, Joules, Measurement, Outcome, Weights
from nas.records.rungs import RungPoint
from nas.records.runtime_plan import RuntimePlan, least_predicted
from nas.records.spent import Spent
from nas.training.config import Qat, Start
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture

State = Literal["running", "complete", "stopped", "dropped", "failed"]
T = TypeVar("T")


class _Field(Generic[T]):
    """Descriptor for a value of a trial's candidate or outcome, by a dotted path.

    The value is ``default`` if an attribute on the path is ``None``: a running trial has no
    outcome.
    """

    def __init__(self, path: str, default: Any = None) -> None:
        self.path, self._names, self._default = path, path.split("."), default

    @overload
    def __get__(self, trial: None, owner: type) -> _Field[T]: ...
    @overload
    def __get__(self, trial: object, owner: type) -> T: ...
    def __get__(self, trial: object, owner: type) -> Any:
        if trial is None:
            return self
        value: Any = trial
        for name in self._names:
            value = getattr(value, name)
            if value is None:
                return self._default
        return value


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate of a search and its outcome, ``None`` while it is evaluated.

    ``so_far`` is the cost of all attempts at an unfinished trial.

    Raises:
        ValueError: a complete trial has neither measured nor predicted joules.
    """

    candidate: Candidate
    outcome: Outcome | None = None
    so_far: Spent | None = None

    number = _Field[int]("candidate.number")
    architecture = _Field[Architecture]("candidate.architecture")
    prediction = _Field[Estimate | None]("candidate.prediction")
    audit = _Field[bool]("candidate.is_audit")
    baseline = _Field[bool]("candidate.is_baseline")
    replica = _Field[int]("candidate.replica")
    weights = _Field[Weights]("candidate.weights")
    finalist_of = _Field[int | None]("candidate.finalist_of")
    inherited_quality = _Field[float | None]("candidate.inherited_quality.value")

    state = _Field[State]("outcome.state", "running")
    reason = _Field[str | None]("outcome.reason")
    quality = _Field[float | None]("outcome.quality.value")
    quality_se = _Field[float | None]("outcome.quality.standard_error")
    test_quality = _Field[float | None]("outcome.test_quality.value")
    test_quality_se = _Field[float | None]("outcome.test_quality.standard_error")
    uncompressed_quality = _Field[float | None]("outcome.uncompressed_quality")
    params = _Field[int | None]("outcome.params")
    peak_memory_bytes = _Field[float | None]("outcome.peak_memory_bytes")
    n_evaluations = _Field[int]("outcome.n_evaluations", 1)

    curve = _Field[tuple[RungPoint, ...]]("outcome.training.curve", ())
    planned_epochs = _Field[int | None]("outcome.training.planned_epochs")
    start = _Field[Start]("outcome.training.start", "random")
    qat = _Field[Qat]("outcome.training.qat", "not needed")
    trained_by = _Field[tuple[Versions, ...]]("outcome.training.versions", ())

    reading = _Field[EnergyReading | None]("outcome.measurement.reading")
    readings = _Field[Mapping[str, EnergyReading]]("outcome.measurement.readings", {})
    unmeasured = _Field[Mapping[str, str]]("outcome.measurement.unmeasured", {})
    measured_by = _Field[Versions]("outcome.measurement.versions", {})
    left_out_runtimes = _Field[Mapping[str, str]]("outcome.measurement.left_out_runtimes", {})

    duration_s = _Field[float | None]("spent.duration_s")
    train_energy_j = _Field[float | None]("spent.train_energy_j")
    measure_energy_j = _Field[float | None]("spent.measure_energy_j")

    def __post_init__(self) -> None:
        """Check that a complete trial has joules."""
        if self.state == "complete" and self.energy is None:
            raise ValueError("a complete trial must have quality, quality_se and reading")

    @property
    def spent(self) -> Spent:
        """Cost of the trial."""
        return (self.so_far or Spent()) if self.outcome is None else self.outcome.spent

    @property
    def energy(self) -> Estimate | None:
        """Joules per sample: measured, or predicted if the search does not measure the trial."""
        if self.reading is not None:
            return self.reading.estimate
        return self.prediction if self.state == "complete" and self._may_be_predicted else None

    @property
    def joules(self) -> Joules:
        """Whether the joules are measured or predicted."""
        is_unmeasured = self.state == "complete" and self.reading is None
        return "predicted" if is_unmeasured else self.candidate.joules

    @property
    def _may_be_predicted(self) -> bool:
        return self.candidate.joules == "predicted" or self.candidate.measure_above is not None

    @property
    def energy_j(self) -> float | None:
        """Joules per sample, ``None`` if neither measured nor predicted."""
        if self.reading is not None:
            return self.reading.energy_j
        return None if self.energy is None else self.energy.mean

    @property
    def runtime(self) -> str | None:
        """The runtime of the trial's joules; ``None`` if unmeasured in a search of one runtime."""
        if self.reading is not None:
            return self.reading.runtime
        plan = least_predicted(self.candidate.runtimes)
        return None if plan is None else plan.name

    @property
    def in_runtimes(self) -> dict[str, EnergyReading]:
        """The readings by runtime, the fewest joules first."""
        return {} if self.outcome is None else self.outcome.measurement.in_runtimes()

    @property
    def replica_runtimes(self) -> tuple[RuntimePlan, ...]:
        """The runtime in which replicas are measured: that of the trial's joules."""
        if not self.candidate.runtimes or self.runtime is None:
            return ()
        return (RuntimePlan(self.runtime, is_required=True),)

    @property
    def epochs(self) -> int | None:
        """Last epoch of the learning curve, ``None`` without a curve."""
        return self.curve[-1].epoch if self.curve else None

    @property
    def objectives(self) -> tuple[float, float]:
        """Validation quality and joules per sample of a complete trial.

        Raises:
            ValueError: the trial is not complete.
        """
        energy_j = self.energy_j
        if self.quality is None or energy_j is None:
            raise ValueError(f"trial {self.number} must be complete, got {self.state}")
        return self.quality, energy_j

    def on(self, device: str) -> Trial:
        """Return this trial with the joules of a further device, failed without a reading.

        The prediction is removed: it refers to another device.
        """
        candidate, outcome = replace(self.candidate, prediction=None), self.outcome
        if outcome is None:
            return replace(self, candidate=candidate)
        measurement = Measurement(self.readings.get(device), versions=outcome.measurement.versions)
        outcome = replace(outcome, measurement=measurement)
        if outcome.state == "complete" and measurement.reading is None:
            why = self.unmeasured.get(device, "no measurement was requested there")
            outcome = replace(outcome, state="failed", reason=f"not measured on {device}: {why}")
        return Trial(candidate, outcome)

    def finalist(self, number: int) -> Candidate:
        """Return the candidate that fine-tunes this complete trial from inherited weights."""
        assert self.outcome is not None
        return Candidate(
            number,
            self.architecture,
            self.prediction,
            is_baseline=self.baseline,
            finalist_of=self.number,
            inherited_quality=self.outcome.quality,
            # What dominates it there is known from a shorter training only.
            runtimes=tuple(replace(p, measure_above=None) for p in self.candidate.runtimes),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, the inverse of ``from_dict``."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Any) -> Trial:
        """Parse the result of ``to_dict``.

        Raises:
            ValueError: a key is unknown or a value is not allowed.
        """
        with as_written("trial record"):
            return from_plain(cls, data, "trial record")


def judged(trials: Sequence[Trial]) -> list[Trial]:
    """Return the complete trials that a front may contain.

    These are the trials with own weights, or if there are none, those with inherited weights.
    The two kinds are never compared with each other.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    return [trial for trial in complete if trial.weights == "own"] or complete
