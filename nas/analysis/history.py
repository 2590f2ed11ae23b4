"""The history of a search: hypervolume by evaluations and joules, in the order trials ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nas.analysis.summary import volume_of
from nas.pareto.dominance import extended_front
from nas.pareto.hypervolume import hypervolume, volume_losses
from nas.records.trial import judged
from nas.store.run import Run


@dataclass(frozen=True, slots=True)
class Step:
    """The state of a search at the end of a trial.

    ``evaluations`` counts trained trials. ``spent_energy_j`` is all joules until then, those of a
    teacher and a supernet included. ``elapsed_s`` counts from the end of the first trial.
    """

    trial: int
    evaluations: int
    spent_energy_j: float
    hypervolume: float
    elapsed_s: float | None


@dataclass(frozen=True, slots=True)
class History:
    """Hypervolume (quality times decades) from ``reference``, a value for each objective."""

    steps: tuple[Step, ...]
    objectives: tuple[str, ...]
    reference: tuple[float, ...]


def history_of(run: Run) -> History | None:
    """Return the history of ``run``, ``None`` before there is a front.

    All steps have the reference point of the search, or else that of its last front. Trials with
    inherited weights, beside fine-tuned ones, cost joules and add no volume.
    """
    records, goals = run.trials(), run.config.goals
    volume = volume_of(records, goals)
    if volume is None:
        return None
    (reference,) = volume_losses([volume.reference])
    compared = {r.number for r in judged(records) if goals.meets_limits(r)}
    ended = run.ended_at_s()
    first_s = min(ended.values(), default=0.0)
    teacher, supernet = run.teacher(), run.supernet()
    spent_j = sum(each.energy_j or 0.0 for each in (teacher, supernet) if each is not None)
    minimize = (False,) * len(reference)
    front = np.empty((0, len(reference)))
    reached, steps = 0.0, []
    trained = [r for r in records if r.state in ("complete", "stopped", "failed")]
    trained.sort(key=lambda r: _order(r.number, ended))
    for evaluations, record in enumerate(trained, 1):
        spent_j += (record.train_energy_j or 0.0) + (record.measure_energy_j or 0.0)
        if record.number in compared:
            extended = extended_front(front, volume_losses([goals.values(record)]))
            if not np.array_equal(extended, front):
                front, reached = extended, hypervolume(extended, reference, minimize)
        at_s = ended.get(record.number)
        steps.append(
            Step(
                trial=record.number,
                evaluations=evaluations,
                spent_energy_j=spent_j,
                hypervolume=reached,
                elapsed_s=None if at_s is None else at_s - first_s,
            )
        )
    return History(tuple(steps), volume.objectives, volume.reference)


def _order(number: int, ended: Mapping[int, float]) -> tuple[float, int]:
    return ended.get(number, float("inf")), number
