"""A trial evaluated again from other seeds: its replicas, and what they say together.

A replica is a whole evaluation (training from another seed, compression, measuring in a fresh
process), kept as a record beside the trial, in ``trials/N/replica-K``. The study keeps what the
trial itself said; fronts are drawn from means over a trial and its replicas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.core.files import Place, as_local, copy_file, read_array, read_json, write_atomic
from nas.records.spent import Spent, spent_in
from nas.records.trial import TrialRecord
from predictors.meters.base import EnergyReading
from predictors.meters.flags import BOARDS_DIFFER

RESULT, SCORES = "result.json", "scores.npy"
_PREFIX = "replica-"
_Z = 1.96


def replica_folder(trial_folder: Place, replica: int) -> Place:
    """Where replica number ``replica`` (from 1) keeps its files; 0 is the trial itself."""
    return trial_folder if replica == 0 else trial_folder / f"{_PREFIX}{replica}"


def save_scores(folder: Place, scores_N: NDArray[np.float32]) -> None:
    """Keep the score of each validation sample, in the split's order."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as handle:
            np.save(handle, scores_N, allow_pickle=False)

    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / SCORES, write)


def replicas_of(trial_folder: Path) -> list[TrialRecord]:
    """Every replica that has ended, failed ones included, by number."""
    if not trial_folder.is_dir():
        return []
    found = (result_in(folder) for folder in trial_folder.glob(f"{_PREFIX}*"))
    return sorted((r for r in found if r is not None), key=lambda record: record.replica)


def bring_replicas(kept: Place, trial_folder: Path) -> None:
    """Copy what ``pooled`` reads from where workers keep it, unless that is ``trial_folder``.

    So that fronts are drawn from the run folder alone; weights stay where they are.
    """
    if kept == trial_folder:
        return
    for replica in kept.glob(f"{_PREFIX}*"):
        own = trial_folder / replica.name
        if (own / RESULT).is_file() or not (replica / RESULT).is_file():
            continue
        for source, target in ((kept, trial_folder), (replica, own)):
            target.mkdir(parents=True, exist_ok=True)
            if not (target / SCORES).is_file() and (source / SCORES).is_file():
                copy_file(source / SCORES, target / SCORES)
        # Last: it says that all of it is here.
        copy_file(replica / RESULT, own / RESULT)


def result_in(folder: Place) -> TrialRecord | None:
    """What a worker wrote of its trial, ``None`` where it did not or that cannot be read."""
    try:
        return TrialRecord.from_dict(read_json(folder / RESULT))
    except (ValueError, TypeError, LookupError):
        return None


def pooled(record: TrialRecord, trial_folder: Path) -> TrialRecord:
    """``record`` as the mean of itself and its complete replicas; itself where it has none.

    Quality is the mean over seeds. Its variance is that of the share of seeds right (of the mean
    score, where samples are not right or wrong), sample by sample, since all seeds are judged by
    the same samples, and that of seeds over their number. Joules are the geometric mean; their
    variance is the larger of what each interval says and of what the measurements differ by, over
    their number; those under other limits of the board are left out and flagged. What all of it
    cost is summed.
    """
    if record.state != "complete":
        return record
    every = replicas_of(trial_folder)
    begun = _begun(trial_folder)
    if begun:
        # Interrupted ones cost something as well.
        record = replace(
            record,
            train_energy_j=_total([record.train_energy_j, *(s.train_energy_j for s in begun)]),
            duration_s=_total([record.duration_s, *(s.duration_s for s in begun)]),
        )
    done = [record, *(r for r in every if r.state == "complete")]
    if not every:
        return record
    qualities = np.array([r.objectives[0] for r in done])
    tests = [r.test_quality for r in done]
    known = [t for t in tests if t is not None]
    return replace(
        record,
        quality=float(qualities.mean()),
        quality_se=_standard_error(done, trial_folder),
        test_quality=float(np.mean(known)) if len(known) == len(tests) else record.test_quality,
        reading=_reading([r.reading for r in done if r.reading is not None]),
        readings={name: _reading(found) for name, found in _by_device(done).items()},
        n_evaluations=len(done),
        # Failed replicas cost something as well.
        train_energy_j=_total([r.train_energy_j for r in (record, *every)]),
        measure_energy_j=_total([r.measure_energy_j for r in (record, *every)]),
        duration_s=_total([r.duration_s for r in (record, *every)]),
    )


def _begun(trial_folder: Path) -> list[Spent]:
    """What replicas have spent that have not ended."""
    folders = trial_folder.glob(f"{_PREFIX}*") if trial_folder.is_dir() else ()
    found = (spent_in(folder) for folder in folders if not (folder / RESULT).is_file())
    return [spent for spent in found if spent is not None]


def _standard_error(done: Sequence[TrialRecord], trial_folder: Path) -> float:
    """Of the mean quality over ``done``; see ``pooled``."""
    single = float(np.mean([(r.quality_se or 0.0) ** 2 for r in done]))
    scores = [_scores(replica_folder(trial_folder, r.replica)) for r in done]
    share = 1.0
    if all(r is not None for r in scores):
        scores_KN = np.array(scores, dtype=float)
        alone = float(scores_KN.var(axis=1).mean())
        # Seeds that are wrong on the same samples tell no more of those than one does.
        share = float(scores_KN.mean(axis=0).var()) / alone if alone > 0 else 1.0
    seeds = 0.0
    if len(done) > 1:
        seeds = float(np.var([r.objectives[0] for r in done], ddof=1)) / len(done)
    return math.sqrt(single * share + seeds)


def _scores(folder: Place) -> NDArray[np.float32] | None:
    path = folder / SCORES
    if not path.is_file():
        return None
    with as_local(path) as local:
        scores_N: NDArray[np.float32] = read_array(local)
    return scores_N


def _reading(readings: Sequence[EnergyReading]) -> EnergyReading:
    first = readings[0]
    if len(readings) == 1:
        return first
    flags = {flag for r in readings for flag in r.flags}
    if len({(r.limits, r.board and r.board.uuid) for r in readings}) > 1:
        flags.add(BOARDS_DIFFER)
    # Joules under other limits of the board are those of another device.
    readings = [r for r in readings if r.limits == first.limits]
    if len(readings) == 1:
        return replace(first, flags=tuple(sorted(flags)))
    n = len(readings)
    logs = np.log([r.energy_j for r in readings])
    widths = np.log([r.high_j / r.low_j for r in readings]) / (2 * _Z)
    sd = math.sqrt(max(float(np.mean(widths**2)), float(logs.var(ddof=1))) / n)
    energy_j = float(np.exp(logs.mean()))
    return replace(
        first,
        energy_j=energy_j,
        low_j=energy_j * math.exp(-_Z * sd),
        high_j=energy_j * math.exp(_Z * sd),
        n_repeats=sum(r.n_repeats for r in readings),
        converged=all(r.converged for r in readings),
        latency_s=float(np.exp(np.log([r.latency_s for r in readings]).mean())),
        power_w=float(np.mean([r.power_w for r in readings])),
        duration_s=sum(r.duration_s for r in readings),
        net_energy_j=None,
        flags=tuple(sorted(flags)),
        n_rejected=sum(r.n_rejected for r in readings),
    )


def _by_device(done: Sequence[TrialRecord]) -> dict[str, list[EnergyReading]]:
    """What each further device has measured of ``done``."""
    found: dict[str, list[EnergyReading]] = {}
    for record in done:
        for name, reading in record.readings.items():
            found.setdefault(name, []).append(reading)
    return found


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
