"""Calibrate a device: within a search, or ahead of it (``nas calibrate``, ``nas.calibrate``)."""

from __future__ import annotations

from collections.abc import Callable

from threadpoolctl import threadpool_limits

from nas.core.scratch import scratch
from nas.evaluation.executor import Backend, Measuring
from nas.records.config import SearchConfig
from nas.searching.calibration.calibration import (
    BackgroundCalibration,
    Calibration,
    CalibrationState,
)
from nas.searching.calibration.labels import Labels, cache_of, new_session
from nas.searching.conditions import conditions_of
from nas.searching.fitting import check_fits
from nas.searching.in_process import InProcessBackend
from nas.searching.preparing import save_inputs
from nas.store.driver import Driver
from nas.store.run import Run
from nas.tasks.registry import get_task
from predictors.measurement.protocol import get_protocol
from predictors.meters.select import choose_meter


def calibration_of(
    run: Run, labels: Labels, backend: Backend, measuring: Measuring
) -> Calibration:
    """Return the calibration of a search; it measures beside trials where that is possible."""
    config = run.config
    measure, inputs = backend.measure(measuring), run.inputs_place.resolve()
    kind = BackgroundCalibration if backend.measures_beside else Calibration
    return kind(
        labels,
        config.space,
        lambda architecture: measure(architecture, labels.conditions.workload, None, inputs),
        run.calibration_path,
        device=config.measured_device,
        seed=config.seed,
        trials=config.trials,
    )


def calibrate(
    config: SearchConfig,
    n: int | None = None,
    *,
    on_label: Callable[[CalibrationState], None] = lambda _: None,
) -> CalibrationState:
    """Measure untrained architectures for later searches of ``config`` on this machine.

    Labels go to the user's cache; those that are there count. With ``n`` so many members of the
    space have labels afterwards, by default as many as pay. ``on_label`` is called after each
    measurement.

    Raises:
        ValueError: the configuration or task is invalid, or ``n`` is below 1.
        MeterError: no meter can measure the device.
        OSError: the cache folder cannot be used.
    """
    if n is not None and n < 1:
        raise ValueError(f"labels must be >= 1, got {n}")
    config.load_plugins()
    task = get_task(config.task)
    workload = task.workload(config.batch_size)
    check_fits(config.space, workload)
    conditions = conditions_of(config)
    cache = cache_of(conditions, config.runtime)
    if cache is None:
        raise OSError("the cache folder cannot be used: XDG_CACHE_HOME must be writable")
    labels = Labels(conditions, cache, new_session())
    meter = choose_meter(config.meter, config.device)
    measuring = Measuring(
        *(config.device, meter.name, get_protocol(config.protocol)),
        between_sd=labels.repeatability().interval_sd,
        runtime=config.runtime,
    )
    meter.close()
    measure = InProcessBackend(Driver(workers=0), None).measure(measuring)
    with scratch("calibrate") as folder, threadpool_limits(1):
        inputs = folder / "inputs.npy"
        save_inputs(task, config, inputs)
        calibration = Calibration(
            labels,
            config.space,
            lambda architecture: measure(architecture, workload, None, inputs),
            folder / "calibration.jsonl",
            device=config.device,
            seed=config.seed,
            n=n,
        )
        while calibration.step():
            on_label(calibration.state)
        return calibration.state
