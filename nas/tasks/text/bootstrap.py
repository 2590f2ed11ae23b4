"""Bootstrap standard errors of metrics that are functions of summed figures.

Shape legend: N samples, S figures, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_RESAMPLES = 200


def bootstrap_error(
    figures_NS: Floats, quality: Callable[[Floats], Floats], added_KS: Floats
) -> float:
    """Bootstrap standard error of ``quality`` over samples; infinite for a single one.

    ``added_KS`` are the figures of a right and of a wrong sample, which are added so that a
    perfect score is not certain (as Agresti and Coull 1998 do for shares).
    """
    if len(figures_NS) < 2:
        return math.inf
    rows = np.concatenate([figures_NS, added_KS])
    n, rng = len(rows), np.random.default_rng(0)
    drawn_RN = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    return float(quality(drawn_RN.astype(float) @ rows).std(ddof=1))
