"""Measure variants of one network in rounds, and summarise their joules and ratios.

In a round each variant has a fresh process, and the variants of one workload are measured side by
side (``measurement.side_by_side``). A process's own interval holds for that process only: how its
memory is placed changes the joules of the next. So intervals are over rounds.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any
from typing import Protocol as Interface

from nas.core.estimate import Estimate
from predictors.campaign.failures import (
    Failure,
    append_failure,
    compression_choices,
    read_failures,
    reason_of,
)
from predictors.campaign.plan import Plan, PlanItem
from predictors.measurement.process import MeasureError, MeasureInterrupted, MeasureTimeout
from predictors.measurement.records import EnergyRecord, append_records, read_records
from predictors.measurement.side_by_side import Result, measure_side_by_side

# Makes the job of ``runner.make_job("serve", ...)`` for an item.
MakeJob = Callable[[PlanItem], Mapping[str, Any]]


class RoundListener(Interface):
    """Callbacks of the progress of rounds."""

    def on_turn(self, done: int, total: int) -> None:
        """Handle the end of a turn of windows within a round."""

    def on_round(self, done: int, total: int, results: Sequence[tuple[PlanItem, Result]]) -> None:
        """Handle the results of a round of one workload; ``total`` counts all of them."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """``n_rounds`` rounds of every group: the variants on one workload, the baseline first.

    At most ``most_beside`` variants of a group, 2 or more, are measured side by side; the
    baseline is one of them each time. ``None`` is all of them.
    """

    groups: tuple[tuple[PlanItem, ...], ...]
    n_rounds: int
    plan: Plan
    most_beside: int | None = None

    def items(self, group: Sequence[PlanItem], index: int) -> list[PlanItem]:
        """Return the items of round ``index``."""
        return [replace(item, repeat=index) for item in group]

    def parts(self, items: Sequence[PlanItem], baseline: PlanItem) -> list[list[PlanItem]]:
        """Return the parts of a round of ``items`` that are measured one after the other.

        ``baseline`` is in each of them, if it is among ``items``.
        """
        if self.most_beside is None or len(items) <= self.most_beside:
            return [list(items)] if items else []
        anchor = [item for item in items if item == baseline]
        others = [item for item in items if item != baseline]
        n = self.most_beside - len(anchor)
        return [[*anchor, *others[at : at + n]] for at in range(0, len(others), n)]

    def keys(self, item: PlanItem) -> list[str]:
        """Return the keys of an item's rounds."""
        return [self.plan.key(replace(item, repeat=i)) for i in range(self.n_rounds)]


def measure_rounds(
    rounds: Rounds,
    path: Path,
    make_job: MakeJob,
    device: str,
    *,
    budget_s: float | None = None,
    retry_failed: bool = False,
    listener: RoundListener | None = None,
) -> None:
    """Measure the rounds that the records at ``path`` lack, and append each round to it.

    A round that lacks a variant measures the baseline again beside it, and so does each further
    part of a round (``Rounds.most_beside``). A variant that failed is not measured again, unless
    with ``retry_failed``; its cause is beside the records. No part is started that would not end
    within ``budget_s``, by the parts so far.

    Raises:
        OSError: a record could not be written.
        ValueError: a line of the file is not a record.
    """
    deadline_s = None if budget_s is None else time.monotonic() + budget_s
    session, order, longest_s = uuid.uuid4().hex[:12], 0, 0.0
    # Variants that fail in this call are not tried again, whatever the cause.
    failed = set() if retry_failed else _failed(rounds, path)
    total = rounds.n_rounds * len(rounds.groups)
    for index in range(rounds.n_rounds):
        for place, group in enumerate(rounds.groups):
            missing = _missing(rounds, path, group, index, failed)
            done: list[tuple[PlanItem, Result]] = []
            is_out_of_time = False
            for number, part in enumerate(rounds.parts(missing, replace(group[0], repeat=index))):
                # The baseline may have failed in an earlier part.
                items = [item for item in part if replace(item, repeat=0) not in failed]
                started_s = time.monotonic()
                left_s = None if deadline_s is None else deadline_s - started_s
                is_out_of_time = left_s is not None and left_s <= longest_s
                if is_out_of_time:
                    break
                results = measure_side_by_side(
                    [make_job(item) for item in items],
                    rounds.plan.protocol,
                    device,
                    seed=index,
                    total_timeout_s=math.inf if left_s is None else left_s,
                    on_turn=None if listener is None else listener.on_turn,
                )
                longest_s = max(longest_s, time.monotonic() - started_s)
                is_over = deadline_s is not None and time.monotonic() >= deadline_s
                # A ratio is of two records of one session, so each part has its own.
                own = f"{session}-{number}" if number else session
                for item, result in zip(items, results, strict=True):
                    if isinstance(result, EnergyRecord):
                        key = rounds.plan.key(item)
                        record = replace(result, item=key, session=own, order=order)
                        append_records(path, [record])
                        order += 1
                        continue
                    failed.add(replace(item, repeat=0))
                    # A lost sensor or an ended budget is not the variant's fault.
                    is_cut = isinstance(result, MeasureTimeout) and is_over
                    if not isinstance(result, MeasureInterrupted) and not is_cut:
                        _write_failure(rounds.plan, path, replace(item, repeat=0), result)
                done += zip(items, results, strict=True)
            if done and listener is not None:
                n_done = index * len(rounds.groups) + place + (not is_out_of_time)
                listener.on_round(n_done, total, done)
            if is_out_of_time:
                return


def failures_of(rounds: Rounds, path: Path) -> dict[PlanItem, str]:
    """Return the causes of the items that failed and have no record."""
    failures, measured = read_failures(path), _measured(path)
    return {
        item: failures[key].cause
        for group in rounds.groups
        for item in group
        if (key := rounds.plan.key(item)) in failures and not measured & set(rounds.keys(item))
    }


def _failed(rounds: Rounds, path: Path) -> set[PlanItem]:
    return set(failures_of(rounds, path))


def _write_failure(plan: Plan, path: Path, item: PlanItem, error: MeasureError) -> None:
    choices = compression_choices(item.architecture)
    failure = Failure(plan.key(item), str(error), reason_of(error), choices)
    append_failure(path, item, failure)


def _measured(path: Path) -> set[str]:
    return {record.item for record in read_records(path).records} if path.exists() else set()


def _missing(
    rounds: Rounds, path: Path, group: Sequence[PlanItem], index: int, failed: set[PlanItem]
) -> list[PlanItem]:
    """Return the items of a round without a record, and the baseline beside them.

    ``failed`` ones are left out, the baseline included.
    """
    measured = _measured(path)
    items = rounds.items([item for item in group if item not in failed], index)
    missing = [item for item in items if rounds.plan.key(item) not in measured]
    if missing and missing[0] != items[0] and group[0] not in failed:
        missing.insert(0, items[0])
    return missing


@dataclass(frozen=True, slots=True)
class VariantEnergy:
    """Joules per unit of one variant over rounds, and its ratio to the baseline.

    ``energy`` is the geometric mean over processes, one a round (of a baseline one a part), with
    Student's 95% interval of its logarithm; of a single process it is the median of its windows,
    and the interval holds for that process only.
    ``ratio`` is the same of the ratios within rounds, ``None`` without a baseline in the same
    round. ``latency_s`` is the median over rounds of the seconds a batch.
    """

    item: PlanItem
    energy: Estimate
    ratio: Estimate | None
    latency_s: float
    n_rounds: int
    records: tuple[EnergyRecord, ...]


def summarise(rounds: Rounds, path: Path) -> list[VariantEnergy]:
    """Return the variants that have records at ``path``, in the order of the groups."""
    records = read_records(path).records if path.exists() else ()
    by_item: dict[str, list[EnergyRecord]] = {}
    for record in records:
        by_item.setdefault(record.item, []).append(record)
    rows = []
    for group in rounds.groups:
        for item in group:
            runs = [run for key in rounds.keys(item) for run in by_item.get(key, [])]
            if not runs:
                continue
            pairs = _pairs(rounds, by_item, group[0], item)
            rows.append(
                VariantEnergy(
                    item=item,
                    energy=_over_rounds([run.reading.energy_j for run in runs])
                    or runs[0].reading.estimate,
                    ratio=None if item == group[0] else _ratio(pairs),
                    latency_s=median(run.reading.latency_s for run in runs),
                    # A baseline has a record of each part of a round.
                    n_rounds=sum(key in by_item for key in rounds.keys(item)),
                    records=tuple(runs),
                )
            )
    return rows


def _pairs(
    rounds: Rounds,
    by_item: Mapping[str, Sequence[EnergyRecord]],
    baseline: PlanItem,
    item: PlanItem,
) -> list[tuple[EnergyRecord, EnergyRecord]]:
    """Return the records of an item and of the baseline that were measured side by side."""
    return [
        (one, other)
        for key, base in zip(rounds.keys(item), rounds.keys(baseline), strict=True)
        for one in by_item.get(key, ())
        for other in by_item.get(base, ())
        if one.session == other.session
    ]


def _ratio(pairs: Sequence[tuple[EnergyRecord, EnergyRecord]]) -> Estimate | None:
    if not pairs:
        return None
    several = _over_rounds([a.reading.energy_j / b.reading.energy_j for a, b in pairs])
    if several is not None:
        return several
    (one, baseline) = pairs[0]
    # Windows of one turn are neighbours in time.
    turns = zip(one.repeats_j, baseline.repeats_j, strict=False)
    return Estimate.of_median([a / b for a, b in turns])


def _over_rounds(values: Sequence[float]) -> Estimate | None:
    """Return the geometric mean with Student's 95% interval, ``None`` for a single value."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    logs = [math.log(value) for value in values]
    half = float(t.ppf(0.975, len(logs) - 1)) * stdev(logs) / math.sqrt(len(logs))
    middle = fmean(logs)
    return Estimate(math.exp(middle), math.exp(middle - half), math.exp(middle + half), "measured")
