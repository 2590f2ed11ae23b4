"""Conditions under which a search measures, and the labels that were measured under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nas.core.names import place_of
from nas.evaluation.executor import Backend, InRuntimes
from nas.records.config import SearchConfig
from nas.records.device_names import MeterFound, find_meter
from nas.searching.calibration.labels import Labels, cache_of, new_session
from nas.searching.gating.prior_run import Conditions
from nas.store.run import Run
from nas.tasks.registry import get_task
from predictors.measurement.protocol import Protocol, get_protocol
from predictors.meters.base import MeterError
from search_spaces.workload import Workload


def conditions_of(config: SearchConfig) -> tuple[Conditions, ...]:
    """Return the measuring conditions that the search would have here, in each runtime.

    Raises:
        ValueError: the task, protocol, device or meter does not exist.
        MeterError: no meter can measure the device.
    """
    meter = find_meter(None, config.device, config.meter)
    workload = get_task(config.task).workload(config.batch_size)
    protocol = get_protocol(config.protocol)
    return conditions_under(meter, protocol, workload, config.runtimes)


def conditions_under(
    meter: MeterFound, protocol: Protocol, workload: Workload, runtimes: Sequence[str]
) -> tuple[Conditions, ...]:
    """Return the conditions of readings of ``meter``, of networks in each of ``runtimes``."""
    return tuple(
        Conditions(
            place_of(meter.hardware, name), meter.source, protocol.hash, workload, meter.limits
        )
        for name in runtimes
    )


def labels_of(
    run: Run, meter: MeterFound | None, backend: Backend, workload: Workload
) -> dict[str, Labels]:
    """Return the labels of each runtime of ``run``; none if its meter is not found.

    A run that is resumed may have nothing left to measure; else its next trial says why.
    """
    if meter is None:
        try:
            meter = backend.find_meter(run.config.device, run.meter)
        except (MeterError, ValueError):
            return {}
    names = run.config.runtimes
    conditions = conditions_under(meter, get_protocol(run.config.protocol), workload, names)
    return labels_under(conditions, names)


def labels_under(conditions: Sequence[Conditions], names: Sequence[str]) -> dict[str, Labels]:
    """Return the labels under ``conditions``, those of each of the runtimes called ``names``."""
    session = new_session()
    return {
        name: Labels(each, cache_of(each, name), session, name if len(names) > 1 else None)
        for name, each in zip(names, conditions, strict=True)
    }


def runtimes_of(names: Sequence[str], labels: Mapping[str, Labels]) -> InRuntimes:
    """Return the runtimes called ``names`` with the repeatability of their ``labels``."""
    sds = {name: each.repeatability().interval_sd for name, each in labels.items()}
    return InRuntimes(names[0], sds)
