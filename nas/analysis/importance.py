"""Importance of genes for joules and quality in a run: grouped permutation importance.

A forest of extremely randomised trees (Geurts et al. 2006) predicts the logarithm of joules, or
quality, from genes. Predictions are out-of-fold, in five folds; then the values of one gene, those
of all layers together, are shuffled among the held-out trials
(Breiman 2001; for groups Gregorutti et al. 2015). A gene's importance is the loss of explained
variance. A search does not draw genes independently: correlated genes share their
importance, and a gene that hardly varies has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.model_selection import KFold

from nas.records.trial import Trial, judged
from search_spaces.architecture.stacks import split_gene_name
from search_spaces.space import SearchSpace
from search_spaces.space.encoding import encode

Array = NDArray[np.float64]

# Importances of fewer trials are not reliable.
LEAST_TRIALS = 10
# More would take minutes with the same result.
_MOST_TRIALS = 2000
_FOLDS = 5
_SHUFFLES = 10
_TREES = 100


@dataclass(frozen=True, slots=True)
class GeneImportance:
    """One gene: the share of variance that it explains, and its deviation over shuffles."""

    gene: str
    joules: float
    joules_sd: float
    quality: float
    quality_sd: float


@dataclass(frozen=True, slots=True)
class Importance:
    """Genes by their importance for joules, the most important first.

    ``joules_r2`` and ``quality_r2`` are shares of variance explained in held-out trials. Near 0 or
    below, the importances for that target mean nothing.
    """

    genes: tuple[GeneImportance, ...]
    joules_r2: float
    quality_r2: float
    n_trials: int


def importance_of(records: Sequence[Trial], space: SearchSpace, *, seed: int = 0) -> Importance:
    """Return importances by the complete trials among ``records``, of genes that varied.

    Raises:
        ValueError: there are too few trials, or no gene varied.
    """
    complete = judged(records)
    if len(complete) < LEAST_TRIALS:
        raise ValueError(
            f"importance must have at least {LEAST_TRIALS} complete trials, got {len(complete)}"
        )
    rng = np.random.default_rng(seed)
    if len(complete) > _MOST_TRIALS:
        complete = [complete[i] for i in rng.choice(len(complete), _MOST_TRIALS, replace=False)]
    columns = _columns(complete, space)
    if not columns:
        raise ValueError("importance must have trials that differ in a gene, and none do")
    genes = list(columns)
    features = np.column_stack([columns[gene] for gene in genes])
    ends = np.cumsum([columns[gene].shape[1] for gene in genes])
    groups = [
        np.arange(end - columns[g].shape[1], end) for g, end in zip(genes, ends, strict=True)
    ]
    values = np.array([r.objectives for r in complete])
    r2_j, joules = _permuted(features, groups, np.log(values[:, 1]), seed)
    r2_a, quality = _permuted(features, groups, values[:, 0], seed)
    importances = [
        GeneImportance(
            gene=gene,
            joules=float(joules[i].mean()),
            joules_sd=float(joules[i].std(ddof=1)),
            quality=float(quality[i].mean()),
            quality_sd=float(quality[i].std(ddof=1)),
        )
        for i, gene in enumerate(genes)
    ]
    importances.sort(key=lambda g: (-g.joules, g.gene))
    return Importance(tuple(importances), r2_j, r2_a, len(complete))


def _columns(records: Sequence[Trial], space: SearchSpace) -> dict[str, Array]:
    """Return the features ``(N, F)`` of each gene that varies, those of all layers together.

    Absent layers get the mean of present ones, so that only the gene of depth shows absence.
    """
    rows = [encode(record.architecture, space) for record in records]
    by_gene: dict[str, list[Array]] = {}
    for name, domain in space.genes().items():
        if len(domain.values) == 1:
            continue
        stack, layer, gene = split_gene_name(name)
        columns = np.array([_numbers(row[name], domain.values) for row in rows])
        if stack is not None:
            columns[[layer >= row[stack.depth] for row in rows]] = np.nan
        by_gene.setdefault(gene, []).append(columns)
    features = {}
    for gene, parts in by_gene.items():
        stacked = np.stack(parts)
        filled = np.where(np.isnan(stacked), np.nanmean(stacked, axis=0), stacked)
        columns = np.concatenate(list(filled), axis=1)
        if np.ptp(columns, axis=0).any():
            features[gene] = columns
    return features


def _numbers(value: Any, domain: Sequence[Any]) -> list[float]:
    """Return a number as it is, no rank as 1 (full rank), and a word one-hot."""
    if all(one is None or isinstance(one, int | float) for one in domain):
        return [1.0 if value is None else float(value)]
    return [float(value == one) for one in domain]


def _permuted(
    features: Array, groups: Sequence[NDArray[np.intp]], target: Array, seed: int
) -> tuple[float, Array]:
    """Return R2, and the share of variance lost by each shuffle of each group, ``(G, S)``."""
    rng = np.random.default_rng(seed)
    total = float(np.square(target - target.mean()).sum())
    if total == 0:
        return 0.0, np.zeros((len(groups), _SHUFFLES))
    error = 0.0
    error_GS = np.zeros((len(groups), _SHUFFLES))
    folds = KFold(_FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(features):
        forest = ExtraTreesRegressor(_TREES, random_state=seed, n_jobs=1)
        forest.fit(features[train], target[train])
        held_out, truth = features[test], target[test]
        error += float(np.square(forest.predict(held_out) - truth).sum())
        for g, group in enumerate(groups):
            shuffled = np.tile(held_out, (_SHUFFLES, 1, 1))
            for s in range(_SHUFFLES):
                shuffled[s][:, group] = held_out[rng.permutation(len(held_out))][:, group]
            predicted = forest.predict(shuffled.reshape(-1, held_out.shape[1]))
            error_GS[g] += np.square(predicted.reshape(_SHUFFLES, -1) - truth).sum(axis=1)
    return 1 - error / total, (error_GS - error) / total
