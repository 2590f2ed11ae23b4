"""Do two meters agree on the same work? ``python -m experiments.meter_agreement nvml zeus``.

Both are open over the same windows of one model; the ratio of their mean powers comes with a 95%
interval. The first one's window encloses the second's, so powers are compared and not joules.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas.core.estimate import Estimate
from nas.core.printing import print_anything
from predictors.meters.base import Meter, MeterError
from predictors.meters.select import choose_meter, parse_device


@dataclass(frozen=True, slots=True)
class Agreement:
    """Mean power by the second meter over that by the first, median of ``n_windows``."""

    ratio: float
    low: float
    high: float
    n_windows: int


def agreement(
    first: Meter,
    second: Meter,
    work: Callable[[], None],
    *,
    window_s: float,
    n_windows: int,
    clock: Callable[[], float],
) -> Agreement:
    """Compare two meters while ``work`` runs again and again.

    Raises:
        MeterError: a sensor was lost.
        ValueError: fewer than six windows.
    """
    ratios = []
    for _ in range(n_windows):
        first.begin(work)
        second.begin(work)
        started = clock()
        while clock() - started < window_s:
            work()
        inner = second.end(work)
        outer = first.end(work)
        ratios.append((inner.energy_j / inner.duration_s) / (outer.energy_j / outer.duration_s))
    ratio = Estimate.of_median(ratios)
    return Agreement(ratio.mean, ratio.low, ratio.high, n_windows=n_windows)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two meters on the campaign's reference model."""
    print_anything()
    parser = argparse.ArgumentParser(
        prog="python -m experiments.meter_agreement", description=__doc__
    )
    parser.add_argument("first", help="meter, such as nvml")
    parser.add_argument("second", help="meter, such as zeus")
    parser.add_argument("--device", default="cuda:0", help="cpu or cuda:N (default: cuda:0)")
    parser.add_argument("--window-s", type=float, default=5.0, help="seconds (default: 5)")
    parser.add_argument("--windows", type=int, default=12, help="how many (default: 12)")
    arguments = parser.parse_args(argv)
    try:
        if arguments.windows < 6:
            # Below six no pair of order statistics bounds a median at 95%.
            raise ValueError(f"windows must be >= 6, got {arguments.windows}")
        if not 0 < arguments.window_s < math.inf:
            raise ValueError(f"window_s must be finite and > 0, got {arguments.window_s!r}")
        device = parse_device(arguments.device)
        meters = [choose_meter(name, device) for name in (arguments.first, arguments.second)]
    except (MeterError, ValueError) as error:
        print(f"meter_agreement: {error}", file=sys.stderr)
        return 2

    import time

    import torch

    from nas.tasks.registry import get_task
    from predictors.campaign.plan import reference_architecture
    from predictors.measurement.exclusive import DeviceLock
    from search_spaces.compression.apply import compress, prepare_for_inference
    from search_spaces.models.build import build
    from search_spaces.models.device import use_device

    use_device(device)
    workload = get_task("digits").workload(128)
    architecture = reference_architecture(workload, device)
    lock = DeviceLock(None, device)
    with lock.shared():
        model = build(architecture, workload, generator_seed=0).to(device)
        inputs = torch.randn(workload.batch_size, *workload.input_shape, device=device)
        prepared = prepare_for_inference(compress(model, architecture), architecture, inputs)
        repeat = prepared.repeat(inputs)

    def work() -> None:
        for _ in range(20):
            repeat()
        if device != "cpu":
            torch.cuda.synchronize()

    try:
        with lock.exclusive():
            for _ in range(50):
                work()
            found = agreement(
                *meters,
                work,
                window_s=arguments.window_s,
                n_windows=arguments.windows,
                clock=time.perf_counter,
            )
    except MeterError as error:
        print(f"meter_agreement: {error}", file=sys.stderr)
        return 1
    print(
        f"{arguments.second} over {arguments.first}: {found.ratio:.4f} "
        f"[{found.low:.4f}, {found.high:.4f}] ({found.n_windows} windows of "
        f"{arguments.window_s:g} s on {meters[0].device})"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
