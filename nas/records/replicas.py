"""Replicas: repeated evaluations of a trial from other seeds, and their pooled values.

A replica is a whole evaluation (training from another seed, compression, measurement in a fresh
process), stored in ``trials/N/replica-K``. The study contains the trial's own values; fronts use
means over a trial and its replicas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.core.estimate import Score
from nas.core.files import (
    Place,
    as_local,
    copy_file,
    read_array,
    read_json,
    write_array,
    write_json,
)
from nas.records.spent import Spent, spent_in
from nas.records.trial import Trial
from predictors.meters.base import EnergyReading
from predictors.meters.flags import BOARDS_DIFFER

RESULT, SCORES = "result.json", "scores.npy"
_PREFIX = "replica-"
_Z = 1.96


def replica_folder(trial_folder: Place, replica: int) -> Place:
    """Return the folder of replica number ``replica`` (from 1); 0 is the trial itself."""
    return trial_folder if replica == 0 else trial_folder / f"{_PREFIX}{replica}"


def save_scores(folder: Place, scores_N: NDArray[np.float32]) -> None:
    """Write the score of each validation sample, in the split's order."""
    folder.mkdir(parents=True, exist_ok=True)
    write_array(folder / SCORES, scores_N)


def replicas_of(trial_folder: Path) -> list[Trial]:
    """Return all ended replicas, including failed ones, by number."""
    if not trial_folder.is_dir():
        return []
    results = (result_in(folder) for folder in trial_folder.glob(f"{_PREFIX}*"))
    return sorted((r for r in results if r is not None), key=lambda record: record.replica)


def bring_replicas(storage: Place, trial_folder: Path) -> None:
    """Copy the results and scores that ``pooled`` reads from ``storage`` to ``trial_folder``.

    Fronts then depend on the run directory alone. Weights are not copied.
    """
    if storage == trial_folder:
        return
    for replica in storage.glob(f"{_PREFIX}*"):
        local = trial_folder / replica.name
        if (local / RESULT).is_file() or not (replica / RESULT).is_file():
            continue
        for source, target in ((storage, trial_folder), (replica, local)):
            target.mkdir(parents=True, exist_ok=True)
            if not (target / SCORES).is_file() and (source / SCORES).is_file():
                copy_file(source / SCORES, target / SCORES)
        # Copied last: its presence marks the copy as complete.
        copy_file(replica / RESULT, local / RESULT)


def result_in(folder: Place) -> Trial | None:
    """Return the trial that a worker wrote to ``folder``, ``None`` if missing or unreadable."""
    try:
        return Trial.from_dict(read_json(folder / RESULT))
    except ValueError:
        return None


def write_result(folder: Place, trial: Trial) -> None:
    """Write an ended trial to its folder."""
    write_json(folder / RESULT, trial.to_dict())


def pooled(record: Trial, trial_folder: Path) -> Trial:
    """Return ``record`` with means over itself and its complete replicas, if there are any.

    * Quality is the mean over seeds. Its variance has two parts: that of the mean score of each
      sample, since all seeds share the validation samples, and that between seeds over their
      number.
    * Joules are the geometric mean. Their variance is the larger of the mean variance of the
      readings and the variance between them, over their number. The interval is that of a repeat
      of all of them. Readings under other limits of the board are excluded and flagged.
    * Costs are sums, including those of failed and interrupted replicas.
    """
    outcome = record.outcome
    if outcome is None or outcome.state != "complete":
        return record
    replicas = replicas_of(trial_folder)
    replica_costs = [*_begun(trial_folder), *(r.spent for r in replicas)]
    if not replica_costs:
        return record
    spent = Spent.total([outcome.spent, *replica_costs])
    if not replicas:
        return replace(record, outcome=replace(outcome, spent=spent))
    done = [record, *(r for r in replicas if r.state == "complete")]
    tests = [r.test_quality for r in done if r.test_quality is not None]
    test_quality = outcome.test_quality
    if test_quality is not None and len(tests) == len(done):
        test_quality = replace(test_quality, value=float(np.mean(tests)))
    measurement = replace(
        outcome.measurement,
        reading=_reading([r.reading for r in done if r.reading is not None]),
        readings={name: _reading(readings) for name, readings in _by_device(done).items()},
    )
    pooled_outcome = replace(
        outcome,
        quality=Score(
            float(np.mean([r.objectives[0] for r in done])), _standard_error(done, trial_folder)
        ),
        test_quality=test_quality,
        measurement=measurement,
        n_evaluations=len(done),
        spent=spent,
    )
    return replace(record, outcome=pooled_outcome)


def _begun(trial_folder: Path) -> list[Spent]:
    """Return the costs of replicas that have not ended."""
    folders = trial_folder.glob(f"{_PREFIX}*") if trial_folder.is_dir() else ()
    entries = (spent_in(folder) for folder in folders if not (folder / RESULT).is_file())
    return [spent for spent in entries if spent is not None]


def _standard_error(done: Sequence[Trial], trial_folder: Path) -> float:
    """Return the standard error of the mean quality over ``done``; see ``pooled``."""
    single = float(np.mean([(r.quality_se or 0.0) ** 2 for r in done]))
    scores = [_scores(replica_folder(trial_folder, r.replica)) for r in done]
    share = 1.0
    if all(r is not None for r in scores):
        scores_KN = np.array(scores, dtype=float)
        alone = float(scores_KN.var(axis=1).mean())
        # Errors of seeds on the same samples are correlated and do not average out.
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
    # Joules under other limits of the board are not comparable.
    readings = [r for r in readings if r.limits == first.limits]
    if len(readings) == 1:
        return replace(first, flags=tuple(sorted(flags)))
    n = len(readings)
    logs = np.log([r.energy_j for r in readings])
    single = float(np.mean([r.relative_sd**2 for r in readings]))
    sd = math.sqrt(max(single, float(logs.var(ddof=1))) / n)
    between_sd = math.sqrt(float(np.mean([r.between_sd**2 for r in readings])) / n)
    energy_j = float(np.exp(logs.mean()))
    factor = math.exp(_Z * sd * (math.sqrt(2) if between_sd else 1.0))
    return replace(
        first,
        energy_j=energy_j,
        low_j=energy_j / factor,
        high_j=energy_j * factor,
        between_sd=between_sd,
        n_repeats=sum(r.n_repeats for r in readings),
        converged=all(r.converged for r in readings),
        latency_s=float(np.exp(np.log([r.latency_s for r in readings]).mean())),
        power_w=float(np.mean([r.power_w for r in readings])),
        duration_s=sum(r.duration_s for r in readings),
        net_energy_j=None,
        flags=tuple(sorted(flags)),
        n_rejected=sum(r.n_rejected for r in readings),
    )


def _by_device(done: Sequence[Trial]) -> dict[str, list[EnergyReading]]:
    """Return the readings of ``done`` by further device."""
    readings: dict[str, list[EnergyReading]] = {}
    for record in done:
        for name, reading in record.readings.items():
            readings.setdefault(name, []).append(reading)
    return readings
