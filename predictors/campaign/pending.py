"""The queue of a plan's pending items, in which failures lower the priority of similar ones.

Items come in the plan's order. A failure adds its seconds to the penalty of items of the same kind
(precision and sparsity of their blocks) and of the same workload, and the least penalty goes
first. One broken kernel, or one workload that does not fit, costs a slice one measurement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from nas.core.names import TORCH
from predictors.campaign.failures import (
    compression_choices,
    read_failures,
    set_aside_choices,
)
from predictors.campaign.plan import Plan, PlanItem
from predictors.measurement.records import EnergyRecord, read_records


class PendingItems:
    """Queue of the items that one slice has not measured yet."""

    def __init__(self, items: Sequence[PlanItem]) -> None:
        """Queue ``items`` in order of priority."""
        self._items = list(items)
        self._penalty_s: Counter[str] = Counter()
        self._retried: set[PlanItem] = set()

    def __iter__(self) -> Iterator[PlanItem]:
        """Iterate over the queued items."""
        return iter(self._items)

    def any(self, fits: Callable[[PlanItem], bool]) -> bool:
        """Return whether ``take`` would return an item."""
        return any(map(fits, self._items))

    def take(self, fits: Callable[[PlanItem], bool]) -> PlanItem | None:
        """Remove and return the next item among those that ``fits`` accepts, if any."""
        fitting = [index for index, item in enumerate(self._items) if fits(item)]
        if not fitting:
            return None
        return self._items.pop(min(fitting, key=lambda i: self._penalty(self._items[i])))

    def put_back(self, item: PlanItem) -> bool:
        """Append ``item`` for one retry; return false if it was retried before."""
        if item in self._retried:
            return False
        self._retried.add(item)
        self._items.append(item)
        return True

    def on_failure(self, item: PlanItem, seconds: float) -> None:
        """Add ``seconds`` to the penalty of items similar to ``item``, which failed."""
        # A failure that took no time counts as one second.
        self._penalty_s.update(dict.fromkeys(_penalty_keys(item), max(1, round(seconds))))

    def on_success(self, item: PlanItem) -> None:
        """Clear the penalty of items similar to ``item``, which was measured."""
        for name in _penalty_keys(item):
            del self._penalty_s[name]

    def leave_out(self, choices: Collection[str]) -> int:
        """Remove items with one of these compression choices; return their number."""
        before = len(self._items)
        self._items = [i for i in self._items if not uses(i, choices)]
        return before - len(self._items)

    def _penalty(self, item: PlanItem) -> int:
        return sum(self._penalty_s[name] for name in _penalty_keys(item))


def pending_items(
    plan: Plan, path: Path, *, retry_failed: bool = False, sets_aside: bool = False
) -> list[PlanItem]:
    """Return the items of ``plan`` without a record at ``path``, in order of priority.

    With ``sets_aside``, items of kernels that failed are omitted (``campaign.failures``).

    Raises:
        ValueError: a line of the file is not a record; the message has file and line.
    """
    records = read_records(path).records if path.exists() else ()
    done = {record.item for record in records}
    choices: frozenset[str] = frozenset()
    if not retry_failed:
        failures = read_failures(path)
        done |= failures.keys()
        if sets_aside:
            choices = set_aside_choices(failures.values(), working_choices(records))
    return [item for item in plan.items if plan.key(item) not in done and not uses(item, choices)]


def working_choices(records: Iterable[EnergyRecord]) -> set[str]:
    """Return the compression choices that occur in a record, and therefore work."""
    return {
        choice
        for r in records
        if r.reading.runtime == TORCH
        for choice in compression_choices(r.architecture)
    }


def is_reference_of(plan: Plan, record: EnergyRecord) -> bool:
    """Return whether ``record`` is a reading of the plan's reference by its protocol."""
    reference = plan.reference
    return (
        reference is not None
        and record.role == "reference"
        and record.architecture == reference.architecture
        and record.workload == reference.workload
        and record.reading.protocol_hash == plan.protocol.hash
    )


def uses(item: PlanItem, choices: Collection[str]) -> bool:
    """Return whether a block of ``item`` has one of these compression choices."""
    return not frozenset(choices).isdisjoint(compression_choices(item.architecture))


def _penalty_keys(item: PlanItem) -> tuple[str, str]:
    """Return the names of the item's kind and workload."""
    kinds = {
        f"{b.compression.precision} {b.compression.sparsity}" for b in item.architecture.blocks
    }
    return " + ".join(sorted(kinds)), item.workload.key
