"""Measure the duration of a training step."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from nas.tasks.base import Split, Task
from nas.training.config import TrainingConfig
from nas.training.loop import LoopOptions, train
from nas.training.objective import objective_of
from search_spaces.architecture import Architecture
from search_spaces.models.build import build_network
from search_spaces.workload import Workload

_STEPS = 2


def timed_step_s(
    architecture: Architecture,
    workload: Workload,
    task: Task,
    config: TrainingConfig,
    device: str,
) -> float:
    """Measure the seconds of a training step of ``architecture`` on ``device``.

    On CPUs this is the CPU time of one thread, which does not depend on other processes.
    """
    split = task.split("train")
    n = min(len(split), _STEPS * config.batch_size)
    samples = Split(
        split.inputs[:n],
        split.targets[:n],
        None if split.sizes is None else split.sizes[:n],
    )
    short = replace(config, epochs=1, distill=None, averaged_share=0.0)
    n_steps = -(-n // config.batch_size)
    is_cpu = device == "cpu"
    clock = time.process_time if is_cpu else time.perf_counter
    threads = torch.get_num_threads()
    if is_cpu:
        torch.set_num_threads(1)
    try:
        network = build_network(architecture, workload)
        objective, options = objective_of(task, workload), LoopOptions(device)
        # Warm up: the first run includes one-time costs.
        train(network, samples, short, seed=0, objective=objective, options=options)
        started = clock()
        train(network, samples, short, seed=0, objective=objective, options=options)
        if not is_cpu:
            torch.cuda.synchronize(device)
        return (clock() - started) / n_steps
    finally:
        torch.set_num_threads(threads)
