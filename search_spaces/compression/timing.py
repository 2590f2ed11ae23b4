"""Interleaved timing of several models, so that drift of the machine affects all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

Call = Callable[[], object]


def time_in_turns(
    calls: Mapping[str, Call], device: str, *, turns: int = 9, turn_s: float = 0.02
) -> dict[str, list[float]]:
    """Measure seconds a call of each model, one figure a turn; every turn runs all in order.

    A model runs as often in a turn as fits into ``turn_s``, at least once, after a warm-up. On one
    CPU thread this is CPU time, which other processes do not lengthen; elsewhere wall time.
    """
    import torch

    on_one_thread = device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if on_one_thread else time.perf_counter

    def seconds(call: Call, n: int) -> float:
        started = clock()
        for _ in range(n):
            call()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return (clock() - started) / n

    repeats = {}
    for name, call in calls.items():
        seconds(call, 2)
        repeats[name] = max(1, round(turn_s / max(seconds(call, 2), 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            times[name].append(seconds(call, repeats[name]))
    return times


def median_ratio(times: Mapping[str, list[float]], name: str, *references: str) -> float | None:
    """Median over turns of the ratio of two times of one turn; ``None`` if one is missing.

    Of several references the one with the least median counts.
    """
    timed = [times[reference] for reference in references if reference in times]
    if name not in times or not timed:
        return None
    fastest = min(timed, key=median)
    return median(a / b for a, b in zip(times[name], fastest, strict=True))
