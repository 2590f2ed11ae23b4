"""Split rows into training and test folds without leakage.

Every kind of split also removes from training all rows of the architectures under test, on any
workload and from any session.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
SplitKind = Literal["random", "by-job", "by-family", "extrapolation"]
SPLITS: tuple[SplitKind, ...] = get_args(SplitKind)
DESCRIPTIONS: dict[SplitKind, str] = {
    "random": "architectures dealt to folds at random",
    "by-job": "whole measuring sessions held out",
    "by-family": "whole families held out; a family is one width (d_model) on one workload",
    "extrapolation": "trained on the 70% of least FLOPs, tested on the costliest",
}
# Least training rows of a fold; with fewer, the predictor only scales stated costs.
LEAST_TRAINING = 10
# Least test rows of all folds together; fewer give no useful figure.
LEAST_TEST = 10
_CHEAP_SHARE = 0.7


class SplitRefusedError(Exception):
    """The records do not allow a split; the message gives the reason."""


@dataclass(frozen=True)
class Fold:
    """Positions of rows to train on and to test."""

    train: Ints
    test: Ints


@dataclass(frozen=True)
class SplitRows:
    """Keys by which splits group rows, one entry per row.

    ``architecture`` names the architecture, ``session`` the measuring session (empty if unknown)
    and ``family`` the workload and width.
    """

    architecture: Sequence[str]
    session: Sequence[str]
    family: Sequence[str]
    flops: NDArray[np.float64]


def make_folds(kind: SplitKind, rows: SplitRows, *, n_folds: int, seed: int) -> list[Fold]:
    """Return the folds of one kind of split.

    Raises:
        SplitRefusedError: the rows do not allow this kind.
    """
    architecture = _numbered(rows.architecture)
    if kind == "extrapolation":
        test = rows.flops > np.quantile(rows.flops, _CHEAP_SHARE)
        return _checked([_fold(test, architecture)])
    if kind == "by-job":
        if not all(rows.session):
            raise SplitRefusedError(
                "some records name no measuring session, so none can be held out"
            )
        unit, name = _numbered(rows.session), "measuring session"
    elif kind == "by-family":
        unit, name = _numbered(rows.family), "family (a width on a workload)"
    else:
        unit, name = architecture, "architecture"
    if unit.max() == 0:
        raise SplitRefusedError(f"the records hold one {name} only, so none can be held out")
    fold_of = deal(unit, n_folds, np.random.default_rng(seed))
    return _checked([_fold(fold_of == fold, architecture) for fold in np.unique(fold_of)])


def _fold(test: NDArray[np.bool_], architecture: Ints) -> Fold:
    """Return a fold without training rows of architectures under test."""
    is_tested = np.isin(architecture, architecture[test])
    return Fold(np.flatnonzero(~test & ~is_tested), np.flatnonzero(test))


def _checked(folds: list[Fold]) -> list[Fold]:
    fewest = min(len(fold.train) for fold in folds)
    if fewest < LEAST_TRAINING:
        raise SplitRefusedError(
            f"a fold would train on {fewest} rows that share no architecture with its test, "
            f"and {LEAST_TRAINING} are needed"
        )
    n_test = sum(len(fold.test) for fold in folds)
    if n_test < LEAST_TEST:
        raise SplitRefusedError(f"only {n_test} rows would be tested, and {LEAST_TEST} are needed")
    return folds


def deal(unit: Ints, n_folds: int, rng: np.random.Generator) -> Ints:
    """Assign whole units to folds, in descending order of size, each to the smallest fold."""
    sizes = np.bincount(unit)
    fold_of_unit = np.zeros(len(sizes), dtype=np.int64)
    filled = np.zeros(min(n_folds, len(sizes)))
    for one in sorted(rng.permutation(len(sizes)), key=lambda u: -int(sizes[u])):
        fold_of_unit[one] = int(filled.argmin())
        filled[fold_of_unit[one]] += sizes[one]
    result: Ints = fold_of_unit[unit]
    return result


def _numbered(names: Sequence[str]) -> Ints:
    result: Ints = np.unique(list(names), return_inverse=True)[1]
    return result
