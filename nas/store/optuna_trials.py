"""Convert our trials to Optuna's: state, values, attributes and distributions."""

from __future__ import annotations

import datetime
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.records.goals import Goals
from nas.records.trial import Trial
from nas.store.records_file import StoredTrial
from search_spaces.space import SearchSpace

#: The user attribute of a trial that contains its record.
RECORD = "joulenas"
#: User attributes that ``StudyStore.save_attempts`` and ``StudyStore.enqueue`` store.
ATTEMPTS, QUEUED = "joulenas_attempts", "joulenas_queued"


class Shared:
    """Immutable record that all copies of an Optuna trial share."""

    def __init__(self, record: Trial) -> None:
        """Hold ``record``."""
        self.record = record

    def __deepcopy__(self, memo: object) -> Shared:
        """Return this object."""
        return self


class _SharedChoices(CategoricalDistribution):
    """Distribution that all trials of a study in memory share, for speed with many trials."""

    def __deepcopy__(self, memo: object) -> _SharedChoices:
        return self


def record_of(frozen: FrozenTrial) -> Trial | None:
    """Return the record of one of our trials, ``None`` if it has none."""
    data = frozen.user_attrs.get(RECORD)
    if isinstance(data, Shared):
        return data.record
    return None if data is None else Trial.from_dict(data)


def distributions_of(space: SearchSpace, *, is_in_memory: bool) -> dict[str, BaseDistribution]:
    """Return the distribution of each gene; trials of a study in memory share them."""
    # A database stores the name of the class.
    kind = _SharedChoices if is_in_memory else CategoricalDistribution
    return {name: kind(tuple(domain.values)) for name, domain in space.genes().items()}


def state_of(record: Trial) -> TrialState:
    """Return Optuna's state of a trial that has ended."""
    if record.state == "failed":
        return TrialState.FAIL
    is_compared = record.state == "complete" and record.finalist_of is None
    return TrialState.COMPLETE if is_compared else TrialState.PRUNED


def values_of(record: Trial, goals: Goals) -> list[float] | None:
    """Return objective values, ``None`` if samplers must not compare them with other trials'.

    A finalist's weights are its own, those of other trials inherited.
    """
    return list(goals.values(record)) if state_of(record) == TrialState.COMPLETE else None


def user_attrs_of(trial: StoredTrial) -> dict[str, Any]:
    """Return the attributes that ``StudyStore`` would have stored."""
    attrs: dict[str, Any] = {}
    if trial.queued is not None:
        attrs[QUEUED] = {"genes": trial.queued, "baseline": trial.baseline}
    if trial.attempts:
        attrs[ATTEMPTS] = trial.attempts
    if trial.record is not None:
        attrs[RECORD] = Shared(trial.record)
    return attrs


def frozen_of(
    trial: StoredTrial, distributions: dict[str, BaseDistribution], goals: Goals
) -> FrozenTrial:
    """Return a proposed trial as an Optuna trial."""
    record, values, state = trial.record, None, TrialState.RUNNING
    constraints: dict[str, float] = {}
    if trial.is_discarded:
        state = TrialState.FAIL
    elif record is not None and record.state != "running":
        state, values = state_of(record), values_of(record, goals)
        constraints = {} if values is None else goals.excess(record)
    frozen = create_trial(
        state=state,
        values=values,
        params=trial.genes,
        distributions=distributions,
        user_attrs=user_attrs_of(trial),
        system_attrs=trial.sampler,
        constraints=constraints,
    )
    frozen.datetime_start = datetime.datetime.fromtimestamp(trial.proposed_at_s)
    if trial.ended_at_s is not None:
        frozen.datetime_complete = datetime.datetime.fromtimestamp(trial.ended_at_s)
    return frozen
