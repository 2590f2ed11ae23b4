"""The nodes of a Ray cluster that train and that measure, and a trial's share of a device.

A node that trains has CPUs (and GPUs, for a search on GPUs); one that measures has the resource
``joule_meter``, and ``joule_meter_NAME`` for a device that searches name. A node may do both; one
that only measures is started with ``--num-cpus 0``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from nas.cluster.connect import METER_RESOURCE, ClusterError, meter_resources
from nas.cluster.measuring import measuring_options
from nas.records.device_names import MeasuredDevice, MeterFound, find_meter
from predictors.meters.base import MeterError


@dataclass(frozen=True, slots=True)
class Trainers:
    """The nodes that train up to ``workers`` trials at a time, each on a CPU and a part of a GPU.

    ``cpus`` and ``gpus`` are counts by the node's id. There may be none yet: clusters that grow
    add nodes when trials request them.
    """

    workers: int
    on_gpus: bool
    cpus: Mapping[str, int]
    gpus: Mapping[str, int]

    @classmethod
    def of(cls, nodes: Iterable[Mapping[str, Any]], workers: int, device: str) -> Trainers:
        """Select those of ``nodes``, as ``ray.nodes()`` returns them, that train on ``device``."""
        on_gpus = device.startswith("cuda")
        cpus, gpus = {}, {}
        for node in nodes:
            n_cpus, n_gpus = (int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU"))
            if node["Alive"] and n_cpus >= 1 and (n_gpus >= 1 or not on_gpus):
                cpus[str(node["NodeID"])], gpus[str(node["NodeID"])] = n_cpus, n_gpus
        return cls(workers, on_gpus, cpus, gpus)

    @classmethod
    def here(cls, workers: int, device: str) -> Trainers:
        """Select the nodes of the cluster that this process is connected to."""
        return cls.of(ray.nodes(), workers, device)  # type: ignore[no-untyped-call]

    def gpu_share(self, requested: float | None = None) -> float:
        """Return a trial's share of a GPU: the ``requested`` one, or such that all GPUs are used.

        0 on CPUs, and a whole GPU while there are none.
        """
        if not self.on_gpus:
            return 0.0
        if requested is not None or not self.gpus:
            return requested or 1.0
        # A node with fewer CPUs than GPUs leaves some of these idle.
        usable = sum(min(gpus, self.cpus[node]) for node, gpus in self.gpus.items())
        abreast = min(self.workers, sum(self.cpus.values()))
        return 1 / math.ceil(abreast / usable)


@dataclass(frozen=True, slots=True)
class EnergyShare:
    """A trial's share of its training device's joules while all ``workers`` train.

    Called where the trial trains, on a node that may have joined after the search began.
    ``of_gpu`` is a trial's share of a GPU, 0 on CPUs.
    """

    workers: int
    of_gpu: float

    def __call__(self) -> float:
        """Return the share, in (0, 1]."""
        if self.of_gpu:
            return 1 / max(1, min(self.workers, int(1 / self.of_gpu + 1e-6)))
        own = ray.get_runtime_context().get_node_id()
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        cpus = next(n["Resources"].get("CPU", 1) for n in nodes if n["NodeID"] == own)
        return 1 / min(self.workers, max(1, int(cpus)))


def find_named_meters(
    measure_on: Sequence[MeasuredDevice], device: str, meter: str | None
) -> tuple[MeterFound, ...]:
    """Return each device's meter, tried on a node that has the device.

    ``device`` and ``meter`` apply where an element of ``measure_on`` has none.

    Raises:
        ClusterError: no node has such a device, or its meter does not work there.
    """
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for one in measure_on:
        needed = meter_resources(one.name)
        if not any(
            node["Alive"] and all(node["Resources"].get(name, 0) >= 1 for name in needed)
            for node in nodes
        ):
            resources = json.dumps(dict.fromkeys(needed, 1))
            raise ClusterError(
                f"the cluster must have a node that measures on {one.name}: start it "
                f"with ray start --num-cpus 0 --resources '{resources}'"
            )
    tasks: list[Any] = [
        ray.remote(**measuring_options(one.name))(_try_meter).remote(
            one.name, one.device or device, one.meter or meter
        )
        for one in measure_on
    ]
    answers: list[MeterFound | str] = ray.get(tasks)
    for one, answer in zip(measure_on, answers, strict=True):
        if isinstance(answer, str):
            raise ClusterError(f"device {one.name} must be one that can be measured: {answer}")
    return tuple(answer for answer in answers if isinstance(answer, MeterFound))


def check_one_device(nodes: Iterable[Mapping[str, Any]], device: str) -> None:
    """Check that nodes have one device if a search names none, since it would use only ``device``.

    Boards of one kind differ by some per cent, so one search must not mix joules of several.

    Raises:
        ClusterError: a measuring node has several devices; the message explains how to name them.
    """
    for node in nodes:
        n_devices = int(node["Resources"].get(METER_RESOURCE, 0))
        if node["Alive"] and n_devices > 1:
            named = {METER_RESOURCE: n_devices} | {
                meter_resources(f"board{i}")[-1]: 1 for i in range(n_devices)
            }
            raise ClusterError(
                f"a node must have 1 {METER_RESOURCE} where a search names no device, got "
                f"{n_devices}, of which only {device} would be measured: start it with "
                f"ray start --resources '{json.dumps(named)}' and search with --measure-on "
                f"board0=cuda:0, or start it with {METER_RESOURCE} 1"
            )


def find_any_meter(device: str, meter: str | None) -> MeterFound:
    """Return the meter of ``device`` on any node that measures.

    Raises:
        ClusterError: it does not work there, or a node has several devices without a name.
    """
    check_one_device(ray.nodes(), device)  # type: ignore[no-untyped-call]
    task: Any = ray.remote(**measuring_options(None))(_try_meter)
    answer: MeterFound | str = ray.get(task.remote(None, device, meter))
    if isinstance(answer, str):
        raise ClusterError(f"device {device} must be one that nodes can measure: {answer}")
    return answer


def _try_meter(name: str | None, device: str, meter: str | None) -> MeterFound | str:
    """Return the meter of ``device`` on this node, or the cause if there is none."""
    try:
        return find_meter(name, device, meter)
    except (MeterError, ValueError) as error:
        return str(error)
