"""Measure as Ray tasks, on the nodes that have the devices.

A node that measures has 1 of the custom resource ``joule_meter`` for each of its devices, and 1 of
``joule_meter_NAME`` for each device that a search names. A task takes half of each: while one
holds the device's exclusive lock and measures, the next may import and compile, which takes
several times as long. The lock (``predictors.measurement.exclusive``) keeps windows from
overlapping with each other and with training. On a search's own Ray, trials on a CPU measure in
their own workers (``RayMeasure.is_here``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from nas.cluster.connect import METER_SHARE, meter_resources
from nas.cluster.waits import tell_driver
from nas.core.files import Place, as_local, as_local_if_any
from nas.core.retry import is_of_storage, naming_storage, patience
from nas.evaluation.executor import InRuntimes, Measuring
from nas.evaluation.further import FurtherReadings
from nas.evaluation.in_runtimes import Measure
from nas.records.candidate import Outcome
from nas.searching.controller.attempts import ATTEMPTS
from nas.store.cluster_address import LOCAL
from nas.store.driver import Driver
from predictors.measurement.process import MeasureError, MeasureInterrupted
from predictors.measurement.protocol import Protocol
from predictors.measurement.records import EnergyRecord
from predictors.measurement.runner import measure_candidate
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload


def measuring_options(name: str | None) -> dict[str, Any]:
    """Return options of a Ray task that runs on a node with device ``name``, or with any meter."""
    return {
        "num_cpus": 0,
        "resources": dict.fromkeys(meter_resources(name), METER_SHARE),
        # Outside of the trial's own placement group, which has no meter.
        "scheduling_strategy": PlacementGroupSchedulingStrategy(
            placement_group=None  # type: ignore[arg-type]
        ),
    }


@dataclass(frozen=True, slots=True)
class RayMeasure:
    """``Measure`` as a Ray task on a node with the device called ``name``, or with any meter.

    With ``is_here`` the trial's own worker measures, which has the device: a task would need
    another process that imports Ray.
    """

    device: str
    meter: str
    protocol: Protocol
    lock_folder: Path | None
    function: Callable[..., EnergyRecord] = measure_candidate
    name: str | None = None
    is_here: bool = False
    runtimes: InRuntimes = InRuntimes()  # noqa: RUF009  (frozen)

    def __call__(
        self,
        architecture: Architecture,
        workload: Workload,
        weights: Place | None,
        inputs: Place,
        runtime: str | None = None,
    ) -> EnergyRecord:
        """See ``Measure``."""
        subject = (architecture, workload, weights, inputs, runtime)
        if self.is_here:
            return self._measured_here(*subject)
        try:
            record: EnergyRecord = ray.get(self.start(*subject))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, MeasureError):
                raise error.cause from error
            raise
        return record

    def start(
        self,
        architecture: Architecture,
        workload: Workload,
        weights: Place | None,
        inputs: Place,
        runtime: str | None = None,
    ) -> Any:
        """Start a Ray task that returns an ``EnergyRecord``."""
        options = measuring_options(self.name) | {
            "max_retries": ATTEMPTS - 1,
            "retry_exceptions": [MeasureInterrupted],
        }
        there: Any = _measure_there
        task: Any = ray.remote(**options)(there)
        return task.remote(
            *(self.function, architecture, workload),
            weights=weights,
            inputs=inputs,
            **self._setup(runtime),
        )

    def _measured_here(
        self,
        architecture: Architecture,
        workload: Workload,
        weights: Place | None,
        inputs: Place,
        runtime: str | None,
    ) -> EnergyRecord:
        with as_local_if_any(weights) as own_weights, as_local(inputs) as own_inputs:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    return self.function(
                        architecture,
                        workload,
                        weights=own_weights,
                        inputs=own_inputs,
                        **self._setup(runtime),
                    )
                except MeasureInterrupted:
                    if attempt == ATTEMPTS:
                        raise
        raise AssertionError("unreachable")

    def _setup(self, runtime: str | None) -> dict[str, Any]:
        name, between_sd = self.runtimes.chosen(runtime)
        return {
            "device": self.device,
            "meter": self.meter,
            "protocol": self.protocol,
            "lock_folder": self.lock_folder,
            "between_sd": between_sd,
            "runtime": name,
        }


def measures_of(measuring: Measuring, driver: Driver) -> list[RayMeasure]:
    """Return one measurement for each device; the first supplies the objectives."""
    protocol, locks, own = measuring.protocol, measuring.lock_folder, measuring.runtimes
    if not measuring.measured:
        is_here = _is_measured_here(measuring, driver)
        return [
            RayMeasure(
                *(measuring.device, measuring.meter, protocol, locks),
                is_here=is_here,
                runtimes=own,
            )
        ]
    # The history is of the first device alone.
    return [
        RayMeasure(
            *(device.device, device.meter, protocol, locks),
            name=device.name,
            runtimes=InRuntimes(own.main) if number else own,
        )
        for number, device in enumerate(measuring.measured)
    ]


def _is_measured_here(measuring: Measuring, driver: Driver) -> bool:
    """Whether workers measure themselves: this machine trains alone, and on its CPU.

    Several processes on one GPU would each hold memory of it while they wait for the device.
    """
    nodes: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]
    return driver.address == LOCAL and measuring.device == "cpu" and len(nodes) == 1


def _measure_there(
    function: Callable[..., EnergyRecord],
    architecture: Architecture,
    workload: Workload,
    *,
    weights: Place | None,
    inputs: Place,
    **named: Any,
) -> EnergyRecord:
    """Call ``function`` on the measuring node, to which both files may have to be copied."""
    with (
        naming_storage(),
        patience(tell_driver("a measurement waits for storage")),
        as_local_if_any(weights) as own_weights,
        as_local(inputs) as own_inputs,
    ):
        return function(architecture, workload, weights=own_weights, inputs=own_inputs, **named)


class Measurements:
    """``Measure`` for one trial on all devices at once; ``first`` supplies its objectives.

    If a further device cannot measure, the trial has the cause in place of its reading.
    """

    def __init__(self, first: Measure, further: Sequence[RayMeasure] = ()) -> None:
        """Each of ``further`` has a name."""
        self._first, self._further = first, further
        self._beside = FurtherReadings()

    def __call__(
        self,
        architecture: Architecture,
        workload: Workload,
        weights: Place | None,
        inputs: Place,
        runtime: str | None = None,
    ) -> EnergyRecord:
        """See ``Measure``."""
        subject = (architecture, workload, weights, inputs)
        tasks = [(device.name or "", device.start(*subject)) for device in self._further]
        try:
            record = self._first(*subject, runtime)
        except BaseException:
            for _, task in tasks:
                ray.cancel(task)
            raise
        # A trial whose storage was away is evaluated again, and needs new readings.
        self._beside = FurtherReadings()
        for name, task in tasks:
            try:
                reading: EnergyRecord = ray.get(task)
            except ray.exceptions.RayError as error:
                cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
                if is_of_storage(cause):
                    # Storage is the cause, not the device: measure the trial again.
                    raise cause from error
                self._beside.add_failure(name, cause)
            else:
                self._beside.add(name, reading)
        return record

    def added_to(self, outcome: Outcome) -> Outcome:
        """Return ``outcome`` with the readings of further devices, and their cost."""
        return self._beside.added_to(outcome)
