"""Drift of a device over a campaign, seen by a fixed reference model and corrected for.

A board draws a few per cent more when it is hot or when another job shares its air: on H100s up to
21% between blocks of one table. The reference is measured before each block of candidates and
after the last; a candidate's joules are divided by how far the reference, interpolated in time
between its two neighbours, lies from its own median over all sessions.
"""

from __future__ import annotations

import datetime
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from predictors.campaign.records import EnergyRecord

# Flags of corrected records, and of those that no reference of their session could correct.
CORRECTED = "drift_corrected"
UNCORRECTED = "no_reference"

_Group = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class DriftReport:
    """How a device drifted under one protocol.

    ``span`` is the reference's largest reading less its smallest, relative to its median.
    ``residual`` is the median relative error with which each inner reference follows from its
    two neighbours, what the correction leaves; ``None`` with fewer than three in any session.
    """

    device: str
    source: str
    protocol_hash: str
    n_sessions: int
    n_references: int
    reference_j: float
    span: float
    residual: float | None


def correct_drift(
    records: Sequence[EnergyRecord],
) -> tuple[list[EnergyRecord], list[DriftReport]]:
    """Candidates with their joules corrected, in the order given, and a report per device.

    Readings of different devices, sources or protocols are kept apart. A corrected interval is
    wider by the reference's own (half-widths added in quadrature). Records with no reference in
    their session stay as they are, with the flag ``no_reference``.
    """
    references: dict[_Group, dict[str, list[EnergyRecord]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for record in records:
        if record.role == "reference":
            references[_group(record)][record.session].append(record)
    levels: dict[_Group, float] = {}
    reports = []
    for group, sessions in references.items():
        for found in sessions.values():
            found.sort(key=_time_s)
        energies = [r.reading.energy_j for found in sessions.values() for r in found]
        levels[group] = median(energies)
        residuals = [
            abs(math.expm1(_log_reference([before, after], _time_s(middle))[0] - _log_j(middle)))
            for found in sessions.values()
            for before, middle, after in zip(found, found[1:], found[2:], strict=False)
        ]
        reports.append(
            DriftReport(
                *group,
                n_sessions=len(sessions),
                n_references=len(energies),
                reference_j=levels[group],
                span=(max(energies) - min(energies)) / levels[group],
                residual=median(residuals) if residuals else None,
            )
        )
    corrected = []
    for record in records:
        if record.role == "reference":
            continue
        group = _group(record)
        near = references[group][record.session] if group in references else []
        if near:
            log_j, width = _log_reference(near, _time_s(record))
            corrected.append(_scaled(record, levels[group] / math.exp(log_j), width))
        else:
            corrected.append(replace(record, flags=(*record.flags, UNCORRECTED)))
    return corrected, reports


def _group(record: EnergyRecord) -> _Group:
    reading = record.reading
    return reading.device, reading.source, reading.protocol_hash


def _time_s(record: EnergyRecord) -> float:
    return datetime.datetime.fromisoformat(record.date).timestamp()


def _log_j(record: EnergyRecord) -> float:
    return math.log(record.reading.energy_j)


def _log_reference(found: Sequence[EnergyRecord], time_s: float) -> tuple[float, float]:
    """Log joules of the reference at a time and the relative half-width of that figure."""
    before = [r for r in found if _time_s(r) <= time_s]
    after = [r for r in found if _time_s(r) > time_s]
    if not before or not after:
        near = before[-1] if before else after[0]
        return _log_j(near), near.reading.half_width
    first, second = before[-1], after[0]
    share = (time_s - _time_s(first)) / (_time_s(second) - _time_s(first))
    return (
        (1 - share) * _log_j(first) + share * _log_j(second),
        math.hypot((1 - share) * first.reading.half_width, share * second.reading.half_width),
    )


def _scaled(record: EnergyRecord, factor: float, width: float) -> EnergyRecord:
    reading = record.reading
    energy_j = reading.energy_j * factor
    below = math.hypot((reading.energy_j - reading.low_j) * factor, width * energy_j)
    above = math.hypot((reading.high_j - reading.energy_j) * factor, width * energy_j)
    net_j = reading.net_energy_j
    return replace(
        record,
        reading=replace(
            reading,
            energy_j=energy_j,
            # A half-width of 100% or more would be below zero, which no joules are.
            low_j=max(energy_j - below, energy_j * 1e-3),
            high_j=energy_j + above,
            net_energy_j=None if net_j is None else net_j * factor,
        ),
        repeats_j=tuple(repeat_j * factor for repeat_j in record.repeats_j),
        flags=(*record.flags, CORRECTED),
    )
