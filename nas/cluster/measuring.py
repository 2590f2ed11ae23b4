"""Measuring as Ray tasks, on nodes that have what is measured on.

A node that measures has 1 of the custom resource ``joule_meter`` for each of its devices, and, of
devices that a search names, 1 of ``joule_meter_NAME``. A task takes half of each: while one holds
the device's exclusive lock and measures, the next may import and compile, which takes several
times as long as measuring does. The lock (``predictors.measurement.exclusive``) is what keeps
windows from overlapping with each other and with training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# First: it sets what Ray reads when it is imported.
from nas.cluster.connect import METER_SHARE, meter_resources

# isort: split
import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from nas.cluster.waits import tell_driver
from nas.core.files import Place, as_local
from nas.core.retry import is_of_storage, naming_storage, patience
from nas.evaluation.evaluator import Measure
from nas.evaluation.further import FurtherReadings
from nas.records.trial import TrialRecord
from nas.searching.controller.attempts import ATTEMPTS
from predictors.measurement.process import MeasureInterrupted
from predictors.measurement.protocol import Protocol
from predictors.measurement.records import EnergyRecord
from predictors.measurement.runner import measure_candidate
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload


def measuring_options(name: str | None) -> dict[str, Any]:
    """Options of a Ray task that runs beside the device called ``name``, or beside any meter."""
    return {
        "num_cpus": 0,
        "resources": dict.fromkeys(meter_resources(name), METER_SHARE),
        # Outside a trial's own placement group, which holds no meter.
        "scheduling_strategy": PlacementGroupSchedulingStrategy(
            placement_group=None  # type: ignore[arg-type]
        ),
    }


@dataclass(frozen=True, slots=True)
class RayMeasure:
    """``Measure`` as a Ray task on a node that measures.

    ``name`` is that of a device that the search names, ``None`` where it names none.
    """

    device: str
    meter: str
    protocol: Protocol
    lock_folder: Path | None
    function: Callable[..., EnergyRecord] = measure_candidate
    name: str | None = None

    def __call__(
        self, architecture: Architecture, workload: Workload, weights: Place, inputs: Place
    ) -> EnergyRecord:
        """See ``Measure``."""
        record: EnergyRecord = ray.get(self.start(architecture, workload, weights, inputs))
        return record

    def start(
        self, architecture: Architecture, workload: Workload, weights: Place, inputs: Place
    ) -> Any:
        """A Ray task that measures, which gives an ``EnergyRecord``."""
        options = measuring_options(self.name) | {
            "max_retries": ATTEMPTS - 1,
            "retry_exceptions": [MeasureInterrupted],
        }
        there: Any = _measure_there
        task: Any = ray.remote(**options)(there)
        return task.remote(
            self.function,
            architecture,
            workload,
            device=self.device,
            meter=self.meter,
            protocol=self.protocol,
            weights=weights,
            inputs=inputs,
            lock_folder=self.lock_folder,
        )


def _measure_there(
    function: Callable[..., EnergyRecord],
    architecture: Architecture,
    workload: Workload,
    *,
    weights: Place,
    inputs: Place,
    **named: Any,
) -> EnergyRecord:
    """``function`` on the node that measures, which may have neither file on a disk of its own."""
    with (
        naming_storage(),
        patience(tell_driver("a measurement waits for storage")),
        as_local(weights) as own_weights,
        as_local(inputs) as own_inputs,
    ):
        return function(architecture, workload, weights=own_weights, inputs=own_inputs, **named)


class Measurements:
    """``Measure`` for one trial: on every device at once.

    The trial is judged by ``first``. One that a further device cannot measure is no failed one: it
    has the reason in place of that device's reading.
    """

    def __init__(self, first: Measure, further: Sequence[RayMeasure] = ()) -> None:
        """Each of ``further`` has a name."""
        self._first, self._further = first, further
        self._beside = FurtherReadings()

    def __call__(
        self, architecture: Architecture, workload: Workload, weights: Place, inputs: Place
    ) -> EnergyRecord:
        """See ``Measure``."""
        what = (architecture, workload, weights, inputs)
        others = [(device.name, device.start(*what)) for device in self._further]
        try:
            record = self._first(*what)
        except BaseException:
            for _, task in others:
                ray.cancel(task)
            raise
        # Anew: a trial whose storage was away is evaluated again.
        self._beside = FurtherReadings()
        for name, task in others:
            assert name is not None
            try:
                found: EnergyRecord = ray.get(task)
            except ray.exceptions.RayError as error:
                cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
                if is_of_storage(cause):
                    # No device's fault: measured again, with what storage has then.
                    raise cause from error
                self._beside.add_failure(name, cause)
            else:
                self._beside.add(name, found)
        return record

    def added_to(self, record: TrialRecord) -> TrialRecord:
        """``record`` with what further devices measured, and what that took."""
        return self._beside.added_to(record)
