"""Which compression is real on a device, by choice and shape: what ran, and what it gained.

A choice at a shape is

* *real*: a kernel of its own ran, and was no slower than the plain products it replaces;
* *harmful*: its kernel ran and was slower; or, for the weight-only precisions, which cost accuracy
  and save no arithmetic, was not faster;
* *simulated*: it runs, by a kernel that gains nothing from it
(``search_spaces.architecture.simulated``);
* *absent*: it cannot run here.

Presets offer what is real at one of their shapes. ``probing`` runs the choices.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

from search_spaces.architecture import PRECISIONS, SPARSITIES, Precision, Sparsity

Status = Literal["real", "harmful", "simulated", "absent"]
STATUSES: tuple[Status, ...] = get_args(Status)

# Joules of one call, by a real meter.
Joules = Callable[[Callable[[], object]], float]

# A choice that takes longer than its plain reference by more than this only harms; one is the
# line, the rest is timing noise.
HARMFUL = 1.05
# A choice that saves no arithmetic must be faster by more than noise.
_HELPFUL = 0.95
# The dense plain precision that a choice would otherwise run in: what its products read.
REFERENCE: dict[str, Precision] = {
    "bf16": "fp32",
    "int8": "fp32",
    "fp8": "bf16",
    "int8wo": "bf16",
    "int4wo": "bf16",
    "2:4": "bf16",
}
_WEIGHT_ONLY = ("int8wo", "int4wo")


@dataclass(frozen=True, slots=True, order=True)
class Shape:
    """Width of the model and rows that its products read; see ``probing`` for the rest of it.

    Rows are the tokens of a batch: ``batch_size`` of them in a step of generating.
    """

    d_model: int
    rows: int

    def __str__(self) -> str:
        """Such as ``d512/r2048``."""
        return f"d{self.d_model}/r{self.rows}"


@dataclass(frozen=True, slots=True)
class Row:
    """One choice at one shape on one device.

    Ratios are medians over turns, below 1 is faster or fewer joules, ``None`` where nothing ran
    or, for joules, where no real meter was at hand. Where the choice is compiled they are to the
    faster of fp32 (bf16) as it is measured and fp32 (bf16) compiled. ``kernel`` is the product
    that took the most time, by torch's profiler, of those that fp32 does not run where there are
    such. ``reason`` explains why a choice is not real.
    """

    choice: str
    shape: Shape
    status: Status
    time_to_fp32: float | None = None
    time_to_bf16: float | None = None
    joules_to_bf16: float | None = None
    kernel: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RealnessReport:
    """The verdict on every requested choice at every shape, on one device."""

    device: str
    device_name: str
    versions: dict[str, str]
    rows: tuple[Row, ...]

    def choices(self, statuses: Collection[str]) -> tuple[str, ...]:
        """Choices that have one of ``statuses`` at some shape, in their canonical order."""
        matching = {row.choice for row in self.rows if row.status in statuses}
        return tuple(c for c in (*PRECISIONS, *SPARSITIES) if c in matching)

    def reason(self, choice: str) -> str:
        """Reason why ``choice`` is not real, from the first shape that has one."""
        said = [row.reason for row in self.rows if row.choice == choice and row.reason]
        return said[0] if said else "it was not probed"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with what is offered by default."""
        precisions, sparsities = real_choices(self)
        return asdict(self) | {
            "offered": {"precisions": list(precisions), "sparsities": list(sparsities)}
        }


def real_choices(report: RealnessReport) -> tuple[tuple[Precision, ...], tuple[Sparsity, ...]]:
    """What may be offered by default: the choices that are real at some shape of the report."""
    return _by_kind(report.choices(("real",)))


def runnable_choices(
    report: RealnessReport,
) -> tuple[tuple[Precision, ...], tuple[Sparsity, ...]]:
    """Return the choices that a user may name: all that run, whether or not they gain."""
    return _by_kind(report.choices(("real", "harmful", "simulated")))


def _by_kind(names: tuple[str, ...]) -> tuple[tuple[Precision, ...], tuple[Sparsity, ...]]:
    return (
        tuple(p for p in PRECISIONS if p in names),
        tuple(s for s in SPARSITIES if s in names),
    )


def judge(choice: str, to_reference: float) -> tuple[Status, str | None]:
    """Status of a choice that ran in ``to_reference`` times its reference's time, and why."""
    reference = REFERENCE[choice]
    if to_reference > HARMFUL:
        return "harmful", f"runs {to_reference:.2f}x as long as {reference}"
    if choice in _WEIGHT_ONLY and to_reference > _HELPFUL:
        return "harmful", f"gains no time ({to_reference:.2f}x that of {reference})"
    return "real", None


def nearest_shapes(
    grid: Iterable[Shape], d_models: Iterable[int], rows: Iterable[int]
) -> tuple[Shape, ...]:
    """The shapes of ``grid`` that stand for models of ``d_models`` that read ``rows``."""
    known = sorted(grid)

    def nearest(d_model: int, n_rows: int) -> Shape:
        return min(
            known,
            key=lambda s: math.hypot(math.log(s.d_model / d_model), math.log(s.rows / n_rows)),
        )

    return tuple(sorted({nearest(*pair) for pair in product(d_models, rows)}))


def read_cache(path: Path) -> tuple[Row, ...]:
    """Return the rows of ``write_cache``; none if the file is missing, corrupt or of old form."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(**row | {"shape": Shape(**row["shape"])}) for row in data]
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return ()
    return tuple(row for row in rows if row.status in STATUSES)


def write_cache(path: Path, rows: Iterable[Row]) -> None:
    """Write rows; an unwritable cache only costs the seconds of the next probe."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
        temporary.replace(path)
    except OSError:
        return
