"""Which item of a plan is measured next, when some of them fail.

Items come in the plan's order. A failure puts items of the same kind (precision and sparsity of
their blocks) and those of the same workload behind the others, by as many seconds as it cost: one
broken kernel, or one workload that does not fit, costs a slice one measurement and not all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from predictors.campaign.failures import (
    compression_choices,
    read_failures,
    set_aside_choices,
)
from predictors.campaign.plan import Plan, PlanItem
from predictors.measurement.records import EnergyRecord, read_records


class PendingItems:
    """The items of one slice that are still to be measured."""

    def __init__(self, items: Sequence[PlanItem]) -> None:
        """Queue ``items`` in order of priority."""
        self._items = list(items)
        self._lost_s: Counter[str] = Counter()
        self._is_retried: set[PlanItem] = set()

    def __iter__(self) -> Iterator[PlanItem]:
        """Items that may still be taken."""
        return iter(self._items)

    def any(self, fits: Callable[[PlanItem], bool]) -> bool:
        """Whether ``take`` would return an item."""
        return any(map(fits, self._items))

    def take(self, fits: Callable[[PlanItem], bool]) -> PlanItem | None:
        """Remove and return the item to measure next, of those that ``fits`` accepts."""
        fitting = [index for index, item in enumerate(self._items) if fits(item)]
        if not fitting:
            return None
        return self._items.pop(min(fitting, key=lambda i: self._seconds_lost(self._items[i])))

    def put_back(self, item: PlanItem) -> bool:
        """Queue ``item`` once more, last; ``False`` where that was done before."""
        if item in self._is_retried:
            return False
        self._is_retried.add(item)
        self._items.append(item)
        return True

    def on_failure(self, item: PlanItem, seconds: float) -> None:
        """Put what is like ``item``, which failed and took ``seconds``, behind the rest."""
        # Failures that cost nothing count too.
        self._lost_s.update(dict.fromkeys(_likeness(item), max(1, round(seconds))))

    def on_success(self, item: PlanItem) -> None:
        """Forget failures of what is like ``item``: it works."""
        for name in _likeness(item):
            del self._lost_s[name]

    def leave_out(self, choices: Collection[str]) -> int:
        """Drop items with one of these compression choices, and return how many."""
        before = len(self._items)
        self._items = [i for i in self._items if not uses(i, choices)]
        return before - len(self._items)

    def _seconds_lost(self, item: PlanItem) -> int:
        return sum(self._lost_s[name] for name in _likeness(item))


def pending_items(
    plan: Plan, path: Path, *, retry_failed: bool = False, sets_aside: bool = False
) -> list[PlanItem]:
    """What of ``plan`` is not in the records at ``path`` yet, in order of priority.

    With ``sets_aside`` items of kernels that failed are left out (``campaign.failures``).

    Raises:
        ValueError: the file holds what is no record; names file and line.
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
    """Compression choices that some record shows to work."""
    return {choice for r in records for choice in compression_choices(r.architecture)}


def is_reference_of(plan: Plan, record: EnergyRecord) -> bool:
    """Whether ``record`` is a reading of the plan's reference by its protocol."""
    reference = plan.reference
    return (
        reference is not None
        and record.role == "reference"
        and record.architecture == reference.architecture
        and record.workload == reference.workload
        and record.reading.protocol_hash == plan.protocol.hash
    )


def uses(item: PlanItem, choices: Collection[str]) -> bool:
    """Whether a block of ``item`` has one of these compression choices."""
    return not frozenset(choices).isdisjoint(compression_choices(item.architecture))


def _likeness(item: PlanItem) -> tuple[str, str]:
    """Names of the item's kind and workload."""
    kinds = {
        f"{b.compression.precision} {b.compression.sparsity}" for b in item.architecture.blocks
    }
    return " + ".join(sorted(kinds)), item.workload.key
