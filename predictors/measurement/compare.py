"""Compare the joules of two architectures by interleaved windows, in the order A B or B A.

Each runs in its own process, and they alternate on the device within seconds, so slower drift
cancels in the ratio. One pair of processes is not enough: memory placement makes two runs of the
same model differ (by up to 20% on a shared CPU), which more windows do not average out. So each
ratio comes from a fresh pair of processes, and the interval is over pairs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from nas.core.estimate import Estimate
from predictors.measurement.exclusive import DeviceLock
from predictors.measurement.process import MeasureProcess
from predictors.measurement.protocol import Protocol
from predictors.measurement.runner import TIMEOUT_S, make_job
from predictors.measurement.windows import is_rejected, refusal
from predictors.meters.base import Window
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

# Windows of each model in one pair of processes, to average the error of single ones.
_WINDOWS_PER_PAIR = 3


@dataclass(frozen=True, slots=True)
class Comparison:
    """Joules of A over joules of B with a 95% interval, the median over ``n_pairs`` pairs.

    A pair is two fresh processes. ``energy_a_j`` and ``energy_b_j`` are medians per
    ``unit``.
    """

    ratio: Estimate
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
    unit: str = "sample"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def compare(
    a: Architecture,
    b: Architecture,
    workload: Workload,
    *,
    protocol: Protocol,
    device: str = "cpu",
    meter: str | None = None,
    seed: int = 0,
    on_pair: Callable[[int, float | None], None] | None = None,
) -> Comparison:
    """Measure pairs until the ratio's interval is as narrow as the protocol requires.

    The protocol's numbers of repeats count pairs here. ``on_pair`` is called with the number of
    pairs and the relative half-width so far, ``None`` while there are too few.

    Raises:
        MeasureError: a process failed or took longer than ``TIMEOUT_S``.
        MeterError: more windows of a pair were spoilt than the protocol allows.
    """
    jobs = [
        make_job(
            "serve",
            architecture,
            workload,
            protocol=protocol,
            device=device,
            meter=meter,
            seed=seed,
        )
        for architecture in (a, b)
    ]
    lock = DeviceLock(None, device)
    order = random.Random(seed)
    pairs: list[_Pair] = []
    width = math.inf
    while len(pairs) < protocol.max_repeats and width > protocol.target_half_width:
        with (
            MeasureProcess(jobs[0], TIMEOUT_S) as first,
            MeasureProcess(jobs[1], TIMEOUT_S) as second,
        ):
            served = (first, second)
            ready = [process.receive() for process in served]
            with lock.exclusive():
                pairs.append(_measure_pair(served, protocol, order))
        if len(pairs) >= protocol.min_repeats:
            ratio = Estimate.of_median([pair.ratio for pair in pairs])
            width = ratio.half_width
        if on_pair is not None:
            on_pair(len(pairs), width if math.isfinite(width) else None)
    head = ready[0]
    flags = {flag for pair in pairs for flag in pair.flags}
    return Comparison(
        ratio=ratio,
        n_pairs=len(pairs),
        converged=width <= protocol.target_half_width,
        energy_a_j=median(pair.a_j for pair in pairs) / workload.n_units,
        energy_b_j=median(pair.b_j for pair in pairs) / workload.n_units,
        workload=workload.key,
        unit=workload.unit,
        meter=head["meter"],
        source=head["source"],
        is_estimate=head["is_estimate"],
        device=head["device"],
        protocol_hash=protocol.hash,
        # The other model's process is on the device as well, and only waits. A process that
        # computes has another flag.
        flags=tuple(sorted(flags - {"foreign_process"})),
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """Result of one pair of processes: medians of joules per batch, and of their ratio."""

    a_j: float
    b_j: float
    ratio: float
    flags: frozenset[str]


def _measure_pair(
    served: Sequence[MeasureProcess], protocol: Protocol, order: random.Random
) -> _Pair:
    flags: set[str] = set()
    for process in served:
        process.send({"command": "prepare"})
        flags |= set(process.receive()["flags"])
    energies: tuple[list[float], list[float]] = ([], [])
    n_rejected = 0
    while len(energies[0]) < _WINDOWS_PER_PAIR:
        energy_j_by_index: dict[int, float] = {}
        spoilt: Window | None = None
        for index in order.sample((0, 1), 2):
            served[index].send({"command": "window"})
            message = served[index].receive()
            window = Window(**message["window"] | {"flags": tuple(message["window"]["flags"])})
            flags |= set(window.flags)
            if is_rejected(window):
                spoilt = window
            else:
                energy_j_by_index[index] = window.energy_j / message["n_batches"]
        if spoilt is not None:
            n_rejected += 1
            if n_rejected > protocol.max_rejected:
                raise refusal(n_rejected, spoilt)
            continue
        for index, energy_j in energy_j_by_index.items():
            energies[index].append(energy_j)
    return _Pair(
        a_j=median(energies[0]),
        b_j=median(energies[1]),
        ratio=median(x / y for x, y in zip(*energies, strict=True)),
        flags=frozenset(flags),
    )
