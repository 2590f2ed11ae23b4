"""Measure several networks side by side: one process each, windows in turns.

Slower drift of the device then changes all of them alike and cancels in the ratio of any two.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from predictors.measurement.exclusive import DeviceLock
from predictors.measurement.process import MeasureError, MeasureProcess
from predictors.measurement.protocol import Protocol
from predictors.measurement.records import EnergyRecord
from predictors.measurement.runner import TIMEOUT_S
from predictors.measurement.windows import is_rejected, refusal
from predictors.meters.base import MeterError, Window

Result = EnergyRecord | MeasureError


def measure_side_by_side(
    jobs: Sequence[Mapping[str, Any]],
    protocol: Protocol,
    device: str,
    *,
    seed: int = 0,
    total_timeout_s: float = math.inf,
    on_turn: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Measure the networks of ``jobs`` (``runner.make_job("serve", ...)``) in turns.

    Each has ``protocol.min_repeats`` windows. In every turn each network has one, in random
    order. ``total_timeout_s`` limits each process. ``on_turn`` is called with the number of
    turns that ended, 0 once all are ready, and their number.

    Returns:
        For each job its record, or the error of its process; the others are measured all the
        same.
    """
    errors: dict[int, MeasureError] = {}
    records: dict[int, EnergyRecord] = {}
    with ExitStack() as stack:
        processes: list[MeasureProcess] = []

        def each(work: Callable[[int], None], order: Sequence[int]) -> None:
            for index in order:
                if index in errors:
                    continue
                try:
                    work(index)
                except MeasureError as error:
                    errors[index] = error
                except MeterError as error:
                    errors[index] = MeasureError(str(error))

        def ask(index: int, command: str) -> dict[str, Any]:
            processes[index].send({"command": command})
            return processes[index].receive()

        def record(index: int) -> None:
            records[index] = EnergyRecord.from_dict(ask(index, "record")["record"])

        def prepare(index: int) -> None:
            ask(index, "prepare")

        def start(index: int) -> None:
            # The others' compiling and windows are part of a process's time.
            timeout_s = TIMEOUT_S * len(jobs)
            process = MeasureProcess(jobs[index], timeout_s, total_timeout_s)
            processes.append(stack.enter_context(process))
            process.receive()

        def window(index: int) -> None:
            _accepted(lambda: ask(index, "window"), protocol)

        indices = range(len(jobs))
        # One after the other: building takes more memory than running, and compilers that share
        # the cores exceed their time limits.
        each(start, indices)
        with DeviceLock(None, device).exclusive():
            each(prepare, indices)
            order = random.Random(seed)
            for turn in range(protocol.min_repeats if len(errors) < len(jobs) else 0):
                if on_turn is not None:
                    on_turn(turn, protocol.min_repeats)
                each(window, order.sample(indices, len(jobs)))
            each(record, indices)
    return [errors[index] if index in errors else records[index] for index in indices]


def _accepted(measure: Callable[[], Mapping[str, Any]], protocol: Protocol) -> None:
    """Measure one window, again where it was spoilt.

    Raises:
        MeterError: more windows were spoilt than the protocol allows.
    """
    for _ in range(protocol.max_rejected + 1):
        message = measure()
        window = Window(**message["window"] | {"flags": tuple(message["window"]["flags"])})
        if not is_rejected(window):
            return
    raise refusal(protocol.max_rejected + 1, window)
