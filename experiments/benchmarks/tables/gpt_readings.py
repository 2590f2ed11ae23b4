"""Joules of GPT-like networks by NVML, from the raw readings behind HW-GPT-Bench.

A CSV (``readings.csv.gz``) with a row for each network and GPU: its shape, and the median joules
of a forward of 8 x 1,024 tokens. Where a forward is short, the watts are near idle and the joules
are wrong: use GPUs and scales whose forwards are long.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Width, depth, feed-forward ratio and heads of each layer, and whether there are biases.
Model = tuple[int, int, list[int], list[int], bool]
_COLUMNS = ("gpu", "scale", "d_model", "depth", "heads", "mlp_ratios", "bias", "energy_j_median")


@dataclass(frozen=True)
class Readings:
    """Networks of one scale with their joules of a forward on one GPU."""

    gpu: str
    scale: str
    models: tuple[Model, ...]
    energy_j: NDArray[np.float64]


def read_gpt_readings(path: Path, gpu: str, scale: str) -> Readings:
    """Return the rows of one GPU and scale, in the order of the file.

    Raises:
        ValueError: the file cannot be read, lacks a column, or has no such rows.
    """
    try:
        data = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"table {path} must be a CSV of readings: {error}") from None
    missing = [name for name in _COLUMNS if name not in data]
    if missing:
        raise ValueError(f"table {path} must have the columns of readings, lacks {missing[0]!r}")
    rows = data[(data["gpu"] == gpu) & (data["scale"] == scale)]
    if not len(rows):
        known = sorted({f"{a}:{b}" for a, b in zip(data["gpu"], data["scale"], strict=True)})
        raise ValueError(f"gpu must be one of {', '.join(known)}, got {gpu}:{scale}")
    models = tuple(
        (int(row.d_model), int(row.depth), _each(row.mlp_ratios), _each(row.heads), bool(row.bias))
        for row in rows.itertuples()
    )
    return Readings(gpu, scale, models, rows["energy_j_median"].to_numpy(float))


def _each(text: str) -> list[int]:
    return [int(part) for part in text.split("-")]
