"""Which nodes of a Ray cluster train, and how the trials on them share what they train on.

A node that trains has CPUs (and GPUs, for a search on GPUs); one that measures has the resource
``joule_meter``; a node may be both. One that only measures is started with ``--num-cpus 0``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# First: it sets what Ray reads when it is imported.
from nas.searching.ray_cluster import ClusterError

# isort: split
import ray


@dataclass(frozen=True, slots=True)
class Trainers:
    """Where ``workers`` trials train at a time.

    ``cpus`` and ``gpus`` are those of each node that trains, by the node's id; each trial takes a
    CPU. ``on_gpus`` says whether trials train on GPUs.

    Raises:
        ValueError: no node can train.
    """

    workers: int
    on_gpus: bool
    cpus: Mapping[str, int]
    gpus: Mapping[str, int]

    def __post_init__(self) -> None:
        """Check that there is something to train on."""
        if not self.cpus:
            raise ValueError(
                f"trainers must have a CPU{' and a GPU' if self.on_gpus else ''}, got no such node"
            )

    @classmethod
    def of(cls, nodes: Iterable[Mapping[str, Any]], workers: int, device: str) -> Trainers:
        """Those among ``nodes``, which are as ``ray.nodes()`` gives them.

        Raises:
            ValueError: none of them can train on ``device``.
        """
        on_gpus = device.startswith("cuda")
        found = {
            str(node["NodeID"]): (
                int(node["Resources"].get("CPU", 0)),
                int(node["Resources"].get("GPU", 0)),
            )
            for node in nodes
            if node["Alive"]
        }
        training = {
            name: counts
            for name, counts in found.items()
            if counts[0] >= 1 and (counts[1] >= 1 or not on_gpus)
        }
        return cls(
            workers,
            on_gpus,
            {name: cpus for name, (cpus, _) in training.items()},
            {name: gpus for name, (_, gpus) in training.items()},
        )

    @classmethod
    def here(cls, workers: int, device: str) -> Trainers:
        """Those of the cluster that this process is connected to.

        Raises:
            ClusterError: no node of it can train on ``device``.
        """
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        try:
            return cls.of(nodes, workers, device)
        except ValueError:
            needs = "--num-cpus 1 --num-gpus 1" if device.startswith("cuda") else "--num-cpus 1"
            raise ClusterError(
                f"the cluster must have a node that trains on {device}: start one with "
                f"ray start {needs}"
            ) from None

    @property
    def gpu_share(self) -> float:
        """Of a GPU, what a trial takes, so that trials spread over all of them; 0 on CPUs."""
        if not self.on_gpus:
            return 0.0
        # A node with fewer CPUs than GPUs leaves some of these idle.
        usable = sum(min(gpus, self.cpus[node]) for node, gpus in self.gpus.items())
        abreast = min(self.workers, sum(self.cpus.values()))
        return 1 / math.ceil(abreast / usable)

    def energy_share(self) -> float:
        """Of what this node's training device draws, one trial's part while all workers train.

        Called where a trial trains.
        """
        if self.on_gpus:
            return self.gpu_share
        node = ray.get_runtime_context().get_node_id()
        # A node that came later is taken to be like those that were there.
        return 1 / min(self.workers, self.cpus.get(node, max(self.cpus.values())))
