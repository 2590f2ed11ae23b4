"""Correct the drift of a device over a campaign by a fixed reference model.

A board draws a few per cent more when it is hot or when another job heats its air: on H100s up to
21% between blocks of one table. The reference is measured before each block of candidates and
after the last. A candidate's joules are divided by the ratio of the reference, interpolated in
time between its two neighbours, to the reference's median over all sessions.

A noisy reference would add its noise to every label. So the correction is applied only if it
helps: if inner references are predicted better by their neighbours than by the median, or, with
too few of them, if the reference moved by more than its own intervals.
"""

from __future__ import annotations

import datetime
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from predictors.measurement.records import EnergyRecord

# Flags of records: corrected; not corrected, since the reference moved without a trend; not
# corrected, since the session has no reference.
CORRECTED = "drift_corrected"
IRREGULAR = "drift_irregular"
UNCORRECTED = "no_reference"

# Relative movement of the reference that is negligible.
_NEGLIGIBLE = 0.001

_Group = tuple[str, str, str, str]
# A group's sessions with one reference, since another one has another level.
_Series = tuple[_Group, str, str]


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Drift of a device under one protocol, by a reference on ``workload``.

    ``limits`` describes the board limits; it is empty if the board reports none. ``span`` is the
    reference's largest reading less its smallest, relative to its median. ``deviation`` is the
    median relative distance of references from their median, the error without correction;
    ``residual`` that of inner ones from the interpolation between their neighbours, the error with
    it. Both are ``None`` with fewer than three references in every session. ``is_applied`` is true
    if records are corrected, ``is_irregular`` if the reference moved by more than its intervals
    and correction would not help.
    """

    device: str
    source: str
    protocol_hash: str
    limits: str
    workload: str
    n_sessions: int
    n_references: int
    reference_j: float
    span: float
    deviation: float | None
    residual: float | None
    is_applied: bool
    is_irregular: bool


def correct_drift(
    records: Sequence[EnergyRecord],
) -> tuple[list[EnergyRecord], list[DriftReport]]:
    """Correct the joules of candidates; return them in order, and a report per device.

    Devices, sources, protocols, limits of the board and references are treated separately. A
    corrected interval is wider by the reference's own (half-widths added in quadrature). Other
    records are unchanged, with the flag ``drift_irregular`` or ``no_reference`` if there may have
    been drift.
    """
    series: dict[_Series, dict[str, list[EnergyRecord]]] = defaultdict(lambda: defaultdict(list))
    series_of: dict[tuple[_Group, str], _Series] = {}
    for record in records:
        if record.role == "reference":
            key = _group(record), record.architecture.hash, record.workload.key
            series[key][record.session].append(record)
            series_of[_group(record), record.session] = key
    reports = {key: _report(key[0], sessions) for key, sessions in series.items()}
    corrected = []
    for record in records:
        if record.role == "reference":
            continue
        key_of_record = series_of.get((_group(record), record.session))
        if key_of_record is None:
            corrected.append(replace(record, drift=(*record.drift, UNCORRECTED)))
        elif reports[key_of_record].is_applied:
            references = series[key_of_record][record.session]
            log_j, width = _log_reference(references, _time_s(record))
            factor = reports[key_of_record].reference_j / math.exp(log_j)
            corrected.append(_scaled(record, factor, width))
        elif reports[key_of_record].is_irregular:
            corrected.append(replace(record, drift=(*record.drift, IRREGULAR)))
        else:
            corrected.append(record)
    return corrected, list(reports.values())


def _report(group: _Group, sessions: Mapping[str, list[EnergyRecord]]) -> DriftReport:
    for references in sessions.values():
        references.sort(key=_time_s)
    every = [r for references in sessions.values() for r in references]
    energies = [r.reading.energy_j for r in every]
    level_j = median(energies)
    triples = [
        triple
        for references in sessions.values()
        for triple in zip(references, references[1:], references[2:], strict=False)
    ]
    residual = deviation = None
    if triples:
        residual = median(
            abs(math.expm1(_log_reference([before, after], _time_s(middle))[0] - _log_j(middle)))
            for before, middle, after in triples
        )
        deviation = median(abs(energy_j / level_j - 1) for energy_j in energies)
    span = (max(energies) - min(energies)) / level_j
    has_moved = span > max(_NEGLIGIBLE, 2 * median(r.reading.half_width_in_process for r in every))
    helps = has_moved if residual is None or deviation is None else residual < deviation
    return DriftReport(
        *group,
        workload=every[0].workload.key,
        n_sessions=len(sessions),
        n_references=len(energies),
        reference_j=level_j,
        span=span,
        deviation=deviation,
        residual=residual,
        is_applied=has_moved and helps,
        is_irregular=has_moved and not helps,
    )


def _group(record: EnergyRecord) -> _Group:
    reading = record.reading
    limits = reading.limits_text
    return reading.place, reading.source, reading.protocol_hash, limits


def _time_s(record: EnergyRecord) -> float:
    return datetime.datetime.fromisoformat(record.date).timestamp()


def _log_j(record: EnergyRecord) -> float:
    return math.log(record.reading.energy_j)


def _log_reference(references: Sequence[EnergyRecord], time_s: float) -> tuple[float, float]:
    """Return log joules of the reference at a time, and their relative half-width."""
    before = [r for r in references if _time_s(r) <= time_s]
    after = [r for r in references if _time_s(r) > time_s]
    if not before or not after:
        near = before[-1] if before else after[0]
        return _log_j(near), near.reading.half_width_in_process
    first, second = before[-1], after[0]
    share = (time_s - _time_s(first)) / (_time_s(second) - _time_s(first))
    return (
        (1 - share) * _log_j(first) + share * _log_j(second),
        math.hypot(
            (1 - share) * first.reading.half_width_in_process,
            share * second.reading.half_width_in_process,
        ),
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
            # A half-width of 100% or more must not give joules below zero.
            low_j=max(energy_j - below, energy_j * 1e-3),
            high_j=energy_j + above,
            net_energy_j=None if net_j is None else net_j * factor,
        ),
        repeats_j=tuple(repeat_j * factor for repeat_j in record.repeats_j),
        drift=(*record.drift, CORRECTED),
    )
