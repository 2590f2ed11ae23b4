"""Measure a trained candidate in the runtimes of its search.

Each measurement is written to the trial's folder before the next one begins, so that a trial that
is resumed repeats none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from nas.core.estimate import Score
from nas.core.files import Place, read_json, write_json
from nas.core.names import first_line
from nas.records.candidate import Candidate, Measurement
from predictors.measurement.process import MeasureError
from predictors.measurement.records import EnergyRecord
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

# Measurements of an unfinished trial.
MEASURED = "runtimes.json"


class Measure(Protocol):
    """Measurement of one architecture with exclusive use of the device."""

    def __call__(
        self,
        architecture: Architecture,
        workload: Workload,
        weights: Place | None,
        inputs: Place,
        runtime: str | None = None,
    ) -> EnergyRecord:
        """Return the measured record; without ``weights`` they are random.

        ``runtime`` is by default that of the search, which has one.

        Raises:
            MeasureError: no reading was reliable.
        """


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured of a candidate: its network for a workload, with its weights."""

    workload: Workload
    weights: Place | None
    inputs: Place


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurement of a candidate, and the joules that it cost."""

    measurement: Measurement = Measurement()
    spent_j: float = 0.0


def measure_in_runtimes(
    candidate: Candidate,
    quality: Score,
    subject: Subject,
    measure: Measure,
    folder: Place,
    *,
    max_latency_s: float | None = None,
) -> Measured:
    """Measure ``candidate``, unless its predictions rule it out at this ``quality``.

    In a search with several runtimes each of them is measured or ruled out in turn. A runtime that
    fails is left out with its error. ``folder`` is the trial's. The reading is that of fewest
    joules, of those within ``max_latency_s`` where there is one.

    Raises:
        MeasureError: no reading was reliable, in no runtime.
    """
    parts = (candidate.architecture, subject.workload, subject.weights, subject.inputs)
    if not candidate.replica and not candidate.is_worth_measuring(quality):
        return Measured(Measurement(left_out_runtimes=_reasons(candidate, quality)))
    if not candidate.runtimes:
        record = measure(*parts)
        measurement = Measurement(record.reading, versions=record.versions)
        return Measured(measurement, record.spent_energy_j)
    state = _State.read(folder / MEASURED)
    left_out = {}
    for plan in candidate.runtimes:
        if plan.name in state.records or plan.name in state.failures:
            continue
        readings = {name: record.reading for name, record in state.records.items()}
        reason = plan.ruled_out(quality, readings)
        if reason is not None:
            left_out[plan.name] = reason
            continue
        try:
            state.records[plan.name] = measure(*parts, runtime=plan.name)
        except MeasureError as error:
            # Another runtime may hold the network.
            state.failures[plan.name] = first_line(error)
        state.write(folder / MEASURED)
    if not state.records:
        reasons = {**state.failures, **left_out}
        name = next(iter(reasons))
        raise MeasureError(f"{name}: {reasons[name]}")
    measurement = _measurement(state.records, {**left_out, **state.failures}, max_latency_s)
    return Measured(measurement, sum(r.spent_energy_j for r in state.records.values()))


def _measurement(
    records: dict[str, EnergyRecord], left_out: dict[str, str], max_latency_s: float | None
) -> Measurement:
    within = {
        name: record
        for name, record in records.items()
        if max_latency_s is None or record.reading.latency_s <= max_latency_s
    }
    least = min((within or records).items(), key=lambda item: item[1].reading.energy_j)[0]
    return Measurement(
        records[least].reading,
        versions=records[least].versions,
        other_runtimes={name: r.reading for name, r in records.items() if name != least},
        left_out_runtimes=left_out,
    )


def _reasons(candidate: Candidate, quality: Score) -> dict[str, str]:
    reasons = {plan.name: plan.ruled_out(quality, {}) for plan in candidate.runtimes}
    return {name: reason for name, reason in reasons.items() if reason is not None}


@dataclass(frozen=True, slots=True)
class _State:
    """The measurements of an unfinished trial, and the errors of those that failed."""

    records: dict[str, EnergyRecord]
    failures: dict[str, str]

    @classmethod
    def read(cls, path: Place) -> _State:
        """Read what ``write`` wrote; a file that is missing or damaged contains nothing."""
        try:
            data: Any = read_json(path)
            records = {str(k): EnergyRecord.from_dict(v) for k, v in data["records"].items()}
            failures = {str(k): str(v) for k, v in data["failures"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls({}, {})
        return cls(records, failures)

    def write(self, path: Place) -> None:
        records = {name: record.to_dict() for name, record in self.records.items()}
        write_json(path, {"records": records, "failures": self.failures})
