"""Readings of further devices: all but the first, whose joules are the objective."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from nas.core.names import first_line
from nas.records.candidate import Outcome
from nas.records.spent import Spent
from predictors.measurement.records import EnergyRecord
from predictors.meters.base import EnergyReading


@dataclass(slots=True)
class FurtherReadings:
    """Readings of one trial by device name, and the reason for each device without one.

    ``spent_j`` is the joules that these measurements cost.
    """

    readings: dict[str, EnergyReading] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    spent_j: float = 0.0

    def add(self, name: str, record: EnergyRecord) -> None:
        """Add the reading and cost of ``record``, measured on the device ``name``."""
        self.readings[name] = record.reading
        self.spent_j += record.spent_energy_j

    def add_failure(self, name: str, error: BaseException) -> None:
        """Record the first line of ``error``; the trial itself does not fail."""
        self.unmeasured[name] = first_line(error)

    def added_to(self, outcome: Outcome) -> Outcome:
        """Return ``outcome`` with these readings and their cost."""
        measurement = outcome.measurement
        if measurement.reading is None or not (self.readings or self.unmeasured):
            return outcome
        return replace(
            outcome,
            measurement=replace(measurement, readings=self.readings, unmeasured=self.unmeasured),
            spent=Spent.total([outcome.spent, Spent(measure_energy_j=self.spent_j)]),
        )
