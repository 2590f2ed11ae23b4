"""Seconds of several models in turns: what drifts on the machine drifts for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

Call = Callable[[], object]


def time_in_turns(
    calls: Mapping[str, Call], device: str, *, turns: int = 9, turn_s: float = 0.02
) -> dict[str, list[float]]:
    """Seconds a call of each, one figure a turn; every turn runs all of them in one order.

    Each runs as often in a turn as fits into ``turn_s``, once at least, after a warm-up. On one
    thread of a CPU the seconds are those of the CPU, which waiting for busy neighbours does not
    lengthen; elsewhere they are the clock's.
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
    """Median over turns of the ratio of two times of the same turn; ``None`` without both.

    Of several references it is to the one that is faster in the median.
    """
    known = [times[reference] for reference in references if reference in times]
    if name not in times or not known:
        return None
    fastest = min(known, key=median)
    return median(a / b for a, b in zip(times[name], fastest, strict=True))
