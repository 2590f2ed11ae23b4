"""How rows are divided into training and test, so that nothing of a test row was seen.

A split is a list of folds. Whatever it holds out, rows of an architecture in the test part are
left out of training too, on whichever workload and in whichever session they were measured.
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
# Rows that a fold must train on: with fewer, the predictor only scales stated costs.
LEAST_TRAINING = 10
# Rows that all folds together must test: fewer give no figure worth the name.
LEAST_TEST = 10
_CHEAP_SHARE = 0.7


class SplitRefusedError(Exception):
    """The records do not allow a split; the message is a sentence that says why."""


@dataclass(frozen=True)
class Fold:
    """Positions of rows to train on and to test."""

    train: Ints
    test: Ints


@dataclass(frozen=True)
class SplitRows:
    """What splits go by, one entry a row.

    ``architecture`` names the architecture, ``session`` the measuring session (empty where none
    is known), ``family`` the workload and width.
    """

    architecture: Sequence[str]
    session: Sequence[str]
    family: Sequence[str]
    flops: NDArray[np.float64]


def make_folds(kind: SplitKind, rows: SplitRows, *, n_folds: int, seed: int) -> list[Fold]:
    """The folds of one kind.

    Raises:
        SplitRefusedError: the rows do not allow it.
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
    fold_of = _dealt(unit, n_folds, np.random.default_rng(seed))
    return _checked([_fold(fold_of == fold, architecture) for fold in np.unique(fold_of)])


def _fold(test: NDArray[np.bool_], architecture: Ints) -> Fold:
    """Training is what is not tested, less every row of an architecture that is."""
    seen = np.isin(architecture, architecture[test])
    return Fold(np.flatnonzero(~test & ~seen), np.flatnonzero(test))


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


def _dealt(unit: Ints, n_folds: int, rng: np.random.Generator) -> Ints:
    """A fold for each row: whole units, the largest first to the emptiest fold."""
    sizes = np.bincount(unit)
    fold_of_unit = np.zeros(len(sizes), dtype=np.int64)
    filled = np.zeros(min(n_folds, len(sizes)))
    for one in sorted(rng.permutation(len(sizes)), key=lambda u: -int(sizes[u])):
        fold_of_unit[one] = int(filled.argmin())
        filled[fold_of_unit[one]] += sizes[one]
    found: Ints = fold_of_unit[unit]
    return found


def _numbered(names: Sequence[str]) -> Ints:
    found: Ints = np.unique(list(names), return_inverse=True)[1]
    return found
