"""What became of one candidate: a frozen ``TrialRecord``, durable as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from nas.core.files import as_written
from nas.core.names import printable
from nas.core.typed import check_plain_fields
from nas.core.versions import Versions, check_versions
from nas.records.rungs import RungPoint
from nas.training.config import Qat, Start
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture

State = Literal["running", "complete", "stopped", "dropped", "failed"]
STATES: tuple[State, ...] = get_args(State)
# Whether an quality is of weights trained for the architecture, or of a supernet's as they are.
Weights = Literal["own", "inherited"]
# Whether joules are a meter's, or what the gate's predictor said.
Joules = Literal["measured", "predicted"]


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One candidate of a search.

    ``quality`` and ``quality_se`` are of the validation split and steer the search;
    ``test_quality`` is recorded beside them and never chosen by. ``predicted_energy_j`` with
    its interval is what the predictor said before the candidate cost any training, ``None``
    where it was not asked. ``audit`` marks a candidate that the gate would have dropped and
    that was evaluated all the same; ``uncompressed_quality`` is of the trained weights in fp32 on
    the validation split, ``start`` where the weights came from, ``qat`` what became of
    quantisation-aware training (see ``nas.training.fit``). ``reason`` says why a candidate was
    dropped, stopped or failed. ``curve`` is what a candidate was compared by while it trained for
    ``planned_epochs``: fp32 qualities on the validation split; a stopped trial ended with the
    last of them.
    ``reading`` is of the device that the search is after; ``readings`` are of each further one
    that it measures on, by name (``nas.records.device_names``), and ``unmeasured`` says of which
    there is none, and why.
    ``peak_memory_bytes`` is counted, not measured (``search_spaces.cost.memory``).
    ``replica`` is above 0 in a record of the same candidate from another seed, and
    ``n_evaluations`` above 1 where figures are means over such (``nas.records.replicas``).
    In a search by a supernet (``nas.records.supernet``) ``weights`` and ``joules`` say what
    quality and joules are of; where joules are ``predicted`` a complete trial has no ``reading``.
    ``finalist_of`` is the trial that was fine-tuned to make this one, ``inherited_quality`` what
    that one had.
    ``train_energy_j`` and ``measure_energy_j`` are what the search itself spent on it.
    ``trained_by`` are the versions of libraries that trained it, more than one where it was
    interrupted and went on under others; ``measured_by`` are those that made its ``reading``.

    Raises:
        ValueError: the fields do not fit the state.
    """

    number: int
    state: State
    architecture: Architecture
    quality: float | None = None
    quality_se: float | None = None
    uncompressed_quality: float | None = None
    start: Start = "random"
    qat: Qat = "not needed"
    test_quality: float | None = None
    test_quality_se: float | None = None
    reading: EnergyReading | None = None
    params: int | None = None
    peak_memory_bytes: float | None = None
    predicted_energy_j: float | None = None
    predicted_low_j: float | None = None
    predicted_high_j: float | None = None
    reason: str | None = None
    audit: bool = False
    baseline: bool = False
    replica: int = 0
    n_evaluations: int = 1
    curve: tuple[RungPoint, ...] = ()
    planned_epochs: int | None = None
    duration_s: float | None = None
    train_energy_j: float | None = None
    measure_energy_j: float | None = None
    weights: Weights = "own"
    joules: Joules = "measured"
    finalist_of: int | None = None
    inherited_quality: float | None = None
    inherited_quality_se: float | None = None
    readings: Mapping[str, EnergyReading] = field(default_factory=dict, hash=False)
    unmeasured: Mapping[str, str] = field(default_factory=dict, hash=False)
    trained_by: tuple[Versions, ...] = field(default=(), hash=False)
    measured_by: Versions = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        """Check that the state has what it needs."""
        # Folders are named by these.
        for name in ("number", "replica"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be an integer >= 0, got {value!r}")
        if self.state not in STATES:
            raise ValueError(f"state must be one of {', '.join(STATES)}, got {self.state!r}")
        if self.state == "complete":
            if self.energy_j is None or self.quality is None or self.quality_se is None:
                raise ValueError("a complete trial must have quality, quality_se and reading")
            if not 0 <= self.quality <= 1 or not math.isfinite(self.quality_se):
                raise ValueError(f"quality must be in [0, 1], got {self.quality!r}")
        for name, value, allowed in (
            ("weights", self.weights, get_args(Weights)),
            ("joules", self.joules, get_args(Joules)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        if self.state == "stopped" and not (self.curve and self.planned_epochs):
            raise ValueError("a stopped trial must have a curve and planned_epochs")
        if not all(isinstance(n, str) and isinstance(w, str) for n, w in self.unmeasured.items()):
            raise ValueError(f"unmeasured must be texts by device, got {self.unmeasured!r}")
        for name, versions in (
            *(("trained_by", one) for one in self.trained_by),
            ("measured_by", self.measured_by),
        ):
            check_versions(name, versions)
        if self.state in ("dropped", "stopped", "failed") and not self.reason:
            raise ValueError(f"a {self.state} trial must have a reason")

    @property
    def energy_j(self) -> float | None:
        """Joules per sample: measured, or predicted where they are; ``None`` before that."""
        if self.reading is not None:
            return self.reading.energy_j
        is_predicted = self.joules == "predicted" and self.state == "complete"
        return self.predicted_energy_j if is_predicted else None

    @property
    def epochs(self) -> int | None:
        """Epochs that a trial is known to have trained for, ``None`` where it was not watched."""
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

    def on(self, device: str) -> TrialRecord:
        """This trial by the joules of a further device; failed, where it was not measured there.

        What was predicted is of another device and left out.
        """
        changes: dict[str, Any] = {
            "reading": self.readings.get(device),
            "predicted_energy_j": None,
            "predicted_low_j": None,
            "predicted_high_j": None,
            "readings": {},
            "unmeasured": {},
        }
        if self.state == "complete" and changes["reading"] is None:
            why = self.unmeasured.get(device, "its joules there were not asked for")
            changes |= {"state": "failed", "reason": f"not measured on {device}: {why}"}
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` reads it back."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        data["readings"] = {name: one.to_dict() for name, one in self.readings.items()}
        data["unmeasured"] = dict(self.unmeasured)
        data["trained_by"] = [dict(one) for one in self.trained_by]
        data["measured_by"] = dict(self.measured_by)
        data["architecture"] = self.architecture.to_dict()
        data["curve"] = [point.to_dict() for point in self.curve]
        data["reading"] = None if self.reading is None else self.reading.to_dict()
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialRecord:
        """Read ``to_dict``'s form.

        Raises:
            ValueError: a key is unknown or a value not allowed.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"trial record must be a mapping, got {type(data).__name__}")
        unknown = data.keys() - _NAMES
        if unknown:
            raise ValueError(f"trial record has unknown key {', '.join(sorted(unknown))}")
        values = dict(data)
        with as_written("trial record"):
            values["architecture"] = Architecture.from_dict(values["architecture"])
            values["curve"] = tuple(RungPoint(**point) for point in values.get("curve", ()))
            if values.get("reading") is not None:
                values["reading"] = EnergyReading.from_dict(values["reading"])
            values["trained_by"] = tuple(values.get("trained_by", ()))
            values["readings"] = {
                name: EnergyReading.from_dict(one)
                for name, one in values.get("readings", {}).items()
            }
            if isinstance(values.get("reason"), str):
                # Printed as it is by several verbs.
                values["reason"] = printable(values["reason"])
            record = cls(**values)
        check_plain_fields(record)
        for point in record.curve:
            check_plain_fields(point)
        return record


_NAMES = frozenset(f.name for f in fields(TrialRecord))


def judged(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The complete trials that a front is made of.

    Those with weights of their own; where there are none yet, those of inherited ones. The two are
    never compared with each other.
    """
    complete = [record for record in records if record.state == "complete"]
    return [record for record in complete if record.weights == "own"] or complete
