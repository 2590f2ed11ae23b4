"""By which power of the number of trials a cost grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from experiments.benchmarks.runtime.scale.simulate import Point

SERIES: dict[str, Callable[[Point], float]] = {
    "proposal, ms": lambda p: 1e3 * p.propose_cpu_s,
    "result taken up, ms": lambda p: 1e3 * p.finish_cpu_s,
    "driver in all, CPU s": lambda p: p.cpu_s,
    "storage, MB": lambda p: p.storage_bytes / 1e6,
    "driver's memory, MB": lambda p: p.resident_mb,
    "nas front, CPU s": lambda p: p.front_cpu_s,
}


def exponent(points: Sequence[Point], value: Callable[[Point], float]) -> float:
    """Slope of logarithms over the last decade of trials, by least squares; NaN of one point."""
    known = [p for p in points if p.trials >= points[-1].trials / 10 and value(p) > 0]
    if len(known) < 2:
        return float("nan")
    trials, values = np.log([p.trials for p in known]), np.log([value(p) for p in known])
    return float(np.polyfit(trials, values, 1)[0])
