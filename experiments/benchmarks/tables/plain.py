"""Any table: numeric columns are features, others are one-hot; the user names the target.

Where nothing is known of what the columns mean, the prior is built from the non-negative numeric
ones and their products two at a time: costs of deep learning are sums of such products. Our
predictor is given these columns as logarithms.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.benchmarks.tables.frame import (
    check_columns,
    check_filled,
    check_numbers,
    read_frame,
)
from experiments.benchmarks.tables.table import Table

_MOST_PRODUCTS = 12
_RELATIVE_SD = 0.02


def read_plain(
    path: Path,
    target: str,
    *,
    flops: str | None = None,
    group: str | None = None,
    ignore: tuple[str, ...] = (),
) -> Table:
    """The table in a file.

    ``flops`` names the column used as the proxy (by default the one that correlates best with
    the target in rank, which flatters the proxy); ``group`` one whose equal values were measured
    together; ``ignore`` columns that are no features, such as other targets.

    Raises:
        ValueError: a named column is missing, a cell is empty or no number, or there is no feature
            left.
    """
    data = read_frame(path)
    check_columns(data, (target, flops, group, *ignore))
    features = data.drop(columns=[c for c in (target, group, *ignore) if c is not None])
    check_filled(path, features, features.columns)
    check_numbers(path, data, [target] if flops is None else [target, flops])
    return plain_table(data, features, path, target, flops=flops, group=group)


def plain_table(
    data: pd.DataFrame,
    features: pd.DataFrame,
    path: Path,
    target: str,
    *,
    flops: str | None = None,
    group: str | None = None,
) -> Table:
    """The table of a target and features that are checked; ``path`` names it.

    Raises:
        ValueError: no feature varies, or none can be the proxy.
    """
    numeric = features.select_dtypes("number").astype(float)
    numeric = numeric.loc[:, numeric.std() > 0]
    other = features.select_dtypes(exclude="number")
    # Of no column at all, pandas makes no table of indicators.
    coded = pd.get_dummies(other).astype(float) if other.shape[1] else other
    raw = np.hstack([numeric.to_numpy(), coded.to_numpy()])
    if not raw.shape[1]:
        raise ValueError(f"table {path} must have a feature column that varies")
    countable = numeric.loc[:, (numeric >= 0).all()]
    labels = data[target].to_numpy(float)
    strength = countable.corrwith(data[target], method="spearman").abs()
    strongest = [str(name) for name in strength.sort_values(ascending=False).index]
    singles = {name: countable[name].to_numpy() for name in strongest[:_MOST_PRODUCTS]}
    terms = [np.ones(len(data)), *singles.values(), *coded.to_numpy().T]
    terms += [singles[a] * singles[b] for a, b in combinations_with_replacement(singles, 2)]
    logs = [np.log1p(column) for column in singles.values()]
    if flops is None and not strongest:
        raise ValueError(
            f"table {path} must have a column of numbers >= 0 that varies, to be the proxy"
        )
    # A column that is zero somewhere has no logarithm; sizes are far above one.
    inputs = [
        np.log(column) if (column > 0).all() else np.log1p(column)
        for column in countable.to_numpy().T
    ]
    inputs += [*numeric.loc[:, (numeric < 0).any()].to_numpy().T, *coded.to_numpy().T]
    proxy = features[flops].to_numpy(float) if flops else singles[strongest[0]] + 1e-9
    return Table(
        name=path.stem,
        raw=raw,
        counts=np.column_stack(logs) if logs else np.empty((len(data), 0)),
        terms=np.column_stack(terms),
        term_groups={},
        flops=proxy,
        target=labels,
        relative_sd=np.full(len(data), _RELATIVE_SD),
        groups=(
            np.arange(len(data))
            if group is None
            else pd.factorize(data[group])[0].astype(np.int64)
        ),
        logs=np.column_stack(inputs),
    )
