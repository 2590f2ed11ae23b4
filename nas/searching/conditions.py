"""Conditions under which a search measures, and the labels that were measured under them."""

from __future__ import annotations

from nas.core.names import place_of
from nas.evaluation.executor import Backend
from nas.records.config import SearchConfig
from nas.records.device_names import MeterFound, find_meter
from nas.searching.calibration.labels import Labels, cache_of, new_session
from nas.searching.gating.prior_run import Conditions
from nas.store.run import Run
from nas.tasks.registry import get_task
from predictors.measurement.protocol import Protocol, get_protocol
from predictors.meters.base import MeterError
from search_spaces.workload import Workload


def conditions_of(config: SearchConfig) -> Conditions:
    """Return the measuring conditions that the search would have on this machine.

    Raises:
        ValueError: the task, protocol, device or meter does not exist.
        MeterError: no meter can measure the device.
    """
    meter = find_meter(None, config.device, config.meter)
    workload = get_task(config.task).workload(config.batch_size)
    return conditions_under(meter, get_protocol(config.protocol), workload, config.runtime)


def conditions_under(
    meter: MeterFound, protocol: Protocol, workload: Workload, runtime: str
) -> Conditions:
    """Return the conditions of readings of ``meter``, of networks in ``runtime``."""
    place = place_of(meter.hardware, runtime)
    return Conditions(place, meter.source, protocol.hash, workload, meter.limits)


def labels_of(
    run: Run, meter: MeterFound | None, backend: Backend, workload: Workload
) -> Labels | None:
    """Return the labels under the conditions of ``run``, ``None`` if its meter is not found.

    A run that is resumed may have nothing left to measure; else its next trial says why.
    """
    if meter is None:
        try:
            meter = backend.find_meter(run.config.device, run.meter)
        except (MeterError, ValueError):
            return None
    protocol = get_protocol(run.config.protocol)
    conditions = conditions_under(meter, protocol, workload, run.config.runtime)
    return Labels(conditions, cache_of(conditions, run.config.runtime), new_session())
