"""The backend of a search on Ray, which trains and measures its candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import ray

from nas.cluster import connect
from nas.cluster.measuring import measures_of
from nas.cluster.roles import EnergyShare, Trainers, find_any_meter, find_named_meters
from nas.cluster.shipping import check_paths
from nas.cluster.waits import hear_waits, tell_driver
from nas.core.files import Place
from nas.core.retry import naming_storage, patience
from nas.evaluation.evaluator import Evaluator
from nas.evaluation.executor import Executor, Measuring
from nas.evaluation.in_runtimes import Measure
from nas.records.config import SearchConfig
from nas.records.device_names import MeasuredDevice, MeterFound, find_meter
from nas.searching.controller.attempts import ATTEMPTS
from nas.searching.controller.session import Listener
from nas.store.cluster_address import LOCAL
from nas.store.driver import Driver

# The interval of reporting progress while one task runs alone.
_LOOK_S = 0.5


class RayBackend:
    """A local Ray for this search alone, or the cluster at the driver's address."""

    def __init__(self, driver: Driver, config: SearchConfig, listener: Listener | None) -> None:
        """``listener`` receives the reports of waiting workers."""
        self._driver, self._device, self._listener = driver, config.device, listener
        self._names = [one.name for one in config.measure_on]
        self._held = ExitStack()

    def __enter__(self) -> Self:
        """Start Ray, or connect to it."""
        address = None if self._driver.address == LOCAL else self._driver.address
        on_ray = connect.cluster(address, self._driver.workers, self._device, self._names)
        self._held.enter_context(on_ray)
        self._held.enter_context(hear_waits(self._listener))
        return self

    def __exit__(self, *error: Any) -> None:
        """Disconnect, and end a local Ray."""
        self._held.__exit__(*error)

    @property
    def meters_are_remote(self) -> bool:
        """Whether only the nodes that measure have the meters."""
        return self._driver.address != LOCAL or bool(self._names)

    def find_meter(self, device: str, meter: str | None) -> MeterFound:
        """See ``Backend``."""
        if self._driver.address == LOCAL:
            return find_meter(None, device, meter)
        return find_any_meter(device, meter)

    def find_meters(
        self, devices: Sequence[MeasuredDevice], device: str, meter: str | None
    ) -> tuple[MeterFound, ...]:
        """See ``Backend``."""
        return find_named_meters(devices, device, meter)

    def check_paths(self, config: SearchConfig, files: Iterable[Path], folder: Path) -> None:
        """See ``Backend``; a local Ray has this machine's files."""
        if self._driver.address != LOCAL:
            check_paths(config, files, folder)

    def run(
        self,
        function: Callable[..., object],
        *arguments: object,
        while_waiting: Callable[[], None],
    ) -> None:
        """See ``Backend``."""
        gpus = 1 if self._device.startswith("cuda") else 0
        patient = _patient(function)
        task: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=ATTEMPTS - 1)(patient)
        running = task.remote(*arguments)
        while not ray.wait([running], timeout=_LOOK_S)[0]:
            while_waiting()
        try:
            ray.get(running)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error

    def energy_share(self) -> Callable[[], float]:
        """See ``Backend``."""
        trainers = Trainers.here(self._driver.workers, self._device)
        if not trainers.cpus and self._listener is not None:
            self._listener.on_wait(f"no node of the cluster can train on {self._device} yet")
        share = trainers.gpu_share(self._driver.gpus_per_trial)
        return EnergyShare(self._driver.workers, share)

    measures_beside = True

    def measure(self, measuring: Measuring) -> Measure:
        """See ``Backend``."""
        return measures_of(measuring, self._driver)[0]

    def executor(self, evaluator: Evaluator, folder: Place, measuring: Measuring) -> Executor:
        """See ``Backend``."""
        # A local import: Tune takes seconds, in which the workers import torch.
        from nas.cluster.driver import TuneExecutor

        return TuneExecutor(evaluator, folder, measuring, self._driver)


def _patient(function: Callable[..., object]) -> Callable[..., object]:
    """Wrap ``function`` so that it waits for storage that is away."""

    def run(*arguments: object) -> object:
        with naming_storage(), patience(tell_driver("a worker waits for storage")):
            return function(*arguments)

    return run
