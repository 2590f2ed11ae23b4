"""Which of two architectures takes fewer joules, and by how much: windows in turn, A B or B A.

Both live in processes of their own and take turns on the device within seconds, so drift that is
slower than a pair of windows cancels in the ratio of each pair.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from predictors.campaign.exclusive import DeviceLock
from predictors.campaign.process import MeasureProcess
from predictors.campaign.protocol import Protocol
from predictors.campaign.quality import median_interval
from predictors.campaign.runner import TIMEOUT_S, make_job
from predictors.campaign.windows import is_rejected
from predictors.meters.base import MeterError, Window
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload


@dataclass(frozen=True, slots=True)
class Comparison:
    """Joules of A over joules of B with a 95% interval, the median over ``n_pairs`` pairs.

    ``energy_a_j`` and ``energy_b_j`` are medians per sample.
    """

    ratio: float
    low: float
    high: float
    n_pairs: int
    converged: bool
    energy_a_j: float
    energy_b_j: float
    workload: str
    meter: str
    source: str
    is_estimate: bool
    device: str
    protocol_hash: str
    flags: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def compare(
    a: Architecture,
    b: Architecture,
    workload: Workload,
    *,
    protocol: Protocol,
    device: str = "cpu",
    meter: str | None = None,
    lock_folder: Path | None = None,
    seed: int = 0,
    timeout_s: float = TIMEOUT_S,
    on_pair: Callable[[int, float | None], None] | None = None,
) -> Comparison:
    """Measure pairs of windows until the ratio's interval is as narrow as the protocol asks.

    ``on_pair`` hears how many pairs there are and the half-width so far (relative to the ratio).

    Raises:
        MeasureError: a process failed or took longer than ``timeout_s``.
        MeterError: throttling spoilt more pairs than the protocol allows.
    """
    jobs = [
        make_job(
            "serve",
            found,
            workload,
            protocol=protocol,
            device=device,
            meter=meter,
            lock_folder=lock_folder,
            seed=seed,
        )
        for found in (a, b)
    ]
    lock = nullcontext() if lock_folder is None else DeviceLock(lock_folder, device).exclusive()
    order = random.Random(seed)
    flags: set[str] = set()
    with MeasureProcess(jobs[0], timeout_s) as first, MeasureProcess(jobs[1], timeout_s) as second:
        served = (first, second)
        ready = [process.receive() for process in served]
        with lock:
            for process in served:
                process.send({"command": "prepare"})
                flags |= set(process.receive()["flags"])
            energies: tuple[list[float], list[float]] = ([], [])
            n_rejected = 0
            width = math.inf
            while len(energies[0]) < protocol.max_repeats:
                pair: dict[int, float] = {}
                for index in order.sample((0, 1), 2):
                    served[index].send({"command": "window"})
                    message = served[index].receive()
                    seen = message["window"] | {"flags": tuple(message["window"]["flags"])}
                    window = Window(**seen)
                    flags |= set(window.flags)
                    if not is_rejected(window):
                        pair[index] = window.energy_j / message["n_batches"] / workload.batch_size
                if len(pair) < 2:
                    n_rejected += 1
                    if n_rejected > protocol.max_rejected:
                        raise MeterError(
                            f"{n_rejected} pairs of windows throttled: cool the device or lower "
                            f"its clocks, then compare again"
                        )
                    continue
                for index, per_sample_j in pair.items():
                    energies[index].append(per_sample_j)
                ratios = [x / y for x, y in zip(*energies, strict=True)]
                if len(ratios) >= protocol.min_repeats:
                    ratio, low, high = median_interval(ratios)
                    width = (high - low) / 2 / ratio
                if on_pair is not None:
                    on_pair(len(ratios), width if math.isfinite(width) else None)
                if width <= protocol.target_half_width:
                    break
    head = ready[0]
    return Comparison(
        ratio=ratio,
        low=low,
        high=high,
        n_pairs=len(ratios),
        converged=width <= protocol.target_half_width,
        energy_a_j=median_interval(energies[0])[0],
        energy_b_j=median_interval(energies[1])[0],
        workload=workload.key,
        meter=head["meter"],
        source=head["source"],
        is_estimate=head["is_estimate"],
        device=head["device"],
        protocol_hash=protocol.hash,
        # The other of the two is a second process on the device, and meant to be there.
        flags=tuple(sorted(flags - {"foreign_process"})),
    )
