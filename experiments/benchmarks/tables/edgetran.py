"""Heterogeneous encoders of EdgeTran (Tuli & Jha 2023): the JSON of its hardware measurements.

Each layer has its own width, mix of operations (attention, Fourier or cosine transforms,
convolutions) and stack of feed-forward widths.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.tables.table import Table

_TOKENS = 128.0
# Repeatability of the public measurements is not given; three repeats suggest some percent.
_RELATIVE_SD = 0.02
_KINDS = ("sa_sdp", "sa_wma", "l_dft", "l_dct", "c_5", "c_9", "c_13")


def read_edgetran(path: Path, metric: str = "energy") -> Table:
    """The table in a JSON of EdgeTran; ``metric`` is energy (J), latency (s) or peak_power (W).

    Raises:
        ValueError: the file is not of that form, or lacks the metric.
    """
    try:
        models = [m for m in json.loads(path.read_text()).values() if m["performance"][metric]]
        rows = [_counts(model["model_dict"]) for model in models]
        raw = np.array([json.loads(model["embedding"]) for model in models], dtype=float)
        target = np.array([float(model["performance"][metric]) for model in models])
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"table {path} must be of EdgeTran's form: {error!r}") from None
    terms = np.array([row[0] for row in rows])
    macs = terms[:, _COMPUTE].sum(axis=1)
    return Table(
        name=f"edgetran {path.stem} {metric}",
        raw=raw,
        counts=np.column_stack([np.log(macs), np.array([row[1] for row in rows])]),
        terms=terms,
        term_groups={"compute": tuple(range(*_COMPUTE.indices(terms.shape[1])))},
        flops=macs,
        target=target,
        relative_sd=np.full(len(target), _RELATIVE_SD),
        groups=np.arange(len(target)),
    )


# Columns of the terms that are multiply-accumulates.
_COMPUTE = slice(0, len(_KINDS) + 3)


def _counts(model: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Terms for the prior, and features in closed form."""
    macs, n_of = dict.fromkeys(_KINDS, 0.0), dict.fromkeys(_KINDS, 0.0)
    project = ffn = change = stream = inner = 0.0
    n_ffn = n_changes = n_heads = 0
    width_before = model["h"][0]
    for width, operations, stack in zip(model["h"], model["o"], model["f"], strict=True):
        head_width = 0.0
        for name in operations:
            kind, size = name.rsplit("_", 1)
            d_head = float(size)
            head_width += d_head
            n_of[kind] += 1
            macs[kind] += _operation(kind, width, d_head)
        widths = [width, *stack, width]
        project += _TOKENS * head_width * width
        ffn += _TOKENS * sum(a * b for a, b in zip(widths, widths[1:], strict=False))
        inner += _TOKENS * sum(widths[1:])
        n_ffn += len(stack) + 1
        n_heads += len(operations)
        stream += _TOKENS * width
        if width != width_before:
            change += _TOKENS * width * width_before
            n_changes += 1
        width_before = width
    depth = len(model["h"])
    compute = [*macs.values(), project, ffn, change]
    terms = [*compute, 1.0, float(depth), *n_of.values(), n_ffn, stream, inner, n_changes]
    features = [
        depth,
        np.mean(model["h"]),
        np.std(model["h"]),
        np.log(ffn),
        np.log(project),
        np.log(sum(macs.values())),
        n_ffn,
        n_heads,
        *n_of.values(),
        *np.log1p(list(macs.values())),
        np.log(stream),
        np.log(inner),
        n_changes,
    ]
    return [float(v) for v in terms], [float(v) for v in features]


def _operation(kind: str, width: float, d_head: float) -> float:
    """Multiply-accumulates of one head's operation."""
    if kind.startswith("sa_"):
        extra = d_head * d_head if kind == "sa_wma" else 0.0
        return _TOKENS * (3 * width * d_head + 2 * _TOKENS * d_head + extra)
    if kind.startswith("l_"):
        return _TOKENS * (width * d_head + _TOKENS * d_head)
    return _TOKENS * (3 * width * d_head + int(kind.removeprefix("c_")) * d_head)
