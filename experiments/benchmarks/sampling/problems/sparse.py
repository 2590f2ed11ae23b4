"""A sparse table: few cells of a grid of encoders, with made-up errors and joules."""

from __future__ import annotations

import numpy as np
import pandas as pd

_LEVELS = {
    "depth": (2, 4, 6, 8),
    "width": (128, 192, 256, 384),
    "heads": (2, 4, 8, 16),
    "ffn_first": (256, 512, 1024, 2048),
    "ffn_middle": (256, 512, 1024, 2048),
    "ffn_last": (256, 512, 1024, 2048),
    "patch": (4, 8, 16, 32),
    "bits": (4, 8, 16, 32),
}
_ROWS, _SEED, _ROW_SD = 2600, 0, 0.003


def sparse_table() -> pd.DataFrame:
    """Return the table: eight sizes of four values each, ``error`` and ``energy_j``.

    2,600 of its 65,536 cells are there, in no order. The error has an effect of each row that no
    law explains.
    """
    rng = np.random.default_rng(_SEED)
    sizes = [len(values) for values in _LEVELS.values()]
    cells = rng.choice(int(np.prod(sizes)), size=_ROWS, replace=False)
    codes = np.unravel_index(cells, sizes)
    columns = {
        name: np.array(values)[code]
        for (name, values), code in zip(_LEVELS.items(), codes, strict=True)
    }
    depth, width, heads, first, middle, last, patch, bits = (
        values.astype(float) for values in columns.values()
    )
    tokens = (128 / patch) ** 2
    ffn = (first + middle + last) / 3
    capacity = (depth / 8) ** 0.5 * (width / 384) ** 0.4 * (0.4 * ffn + 0.6 * middle) ** 0.2
    attention = 1 - 0.25 * np.abs(np.log2(width / heads / 32)) / 3
    rounding = 0.12 / bits * (1 + depth / 8)
    error = 0.06 + 0.35 * np.exp(-0.55 * capacity * attention) + 0.0006 * patch**1.2 + rounding
    macs = depth * (4 * width**2 + 2 * width * ffn) * tokens + depth * tokens**2 * width
    energy_j = 1e-10 * macs * (0.15 + bits / 32) + 2e-3
    noisy = error + rng.normal(0, _ROW_SD, _ROWS)
    return pd.DataFrame(columns | {"error": noisy.round(5), "energy_j": energy_j.round(6)})
