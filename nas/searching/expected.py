"""Expected training times of a space's members, and smaller spaces that train faster.

The model of a training step's time uses its multiplications, bytes and kernels, at the rates of
one thread of a server CPU (AMD EPYC). ``nas search`` scales it by a few steps timed on this
machine and prints the result as an estimate. Recipes' spaces are reduced by the model alone, so
that a task has the same space on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nas.records.config import SearchConfig
from nas.tasks.base import Task
from search_spaces.architecture import Architecture
from search_spaces.cost.counting import count_batch
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.domains import Choice
from search_spaces.space.sampling import largest, sample, smallest
from search_spaces.workload import Workload

Floats = NDArray[np.float64]

# Rates of one thread, with two trials at a time on two cores. Bytes are those of the activations
# in a forward pass.
_MACS_PER_S, _BYTES_PER_S, _S_PER_KERNEL = 45e9, 2.5e9, 8e-5
# A backward pass needs about twice the multiplications of a forward pass.
_PASSES = 3
# Longest mean training time of a recipe on a CPU.
_MOST_S = 60.0
# Random members from which the space's mean time is estimated.
_SAMPLED = 48
_SEED = 20261130
# Successive stages of reduction: least share of each gene's values, least number of epochs.
_STAGES = ((0.5, 10), (0.0, 3))
# Rows from which the mean length of token sequences is estimated.
_MOST_ROWS = 4096
# Genes whose largest value is the costliest and may be removed.
_COSTLY_IS_LARGE = ("d_model", "depth", "ffn_ratio", "decoder_d_model", "decoder_depth")
_FEWEST_VALUES = 2


@dataclass(frozen=True, slots=True)
class Expected:
    """Estimated training time of the smallest, the mean and the largest member."""

    least_s: float
    mean_s: float
    most_s: float

    def scaled(self, factor: float) -> Expected:
        """Return the times on a machine whose steps take ``factor`` times as long."""
        return Expected(self.least_s * factor, self.mean_s * factor, self.most_s * factor)


@dataclass(frozen=True, slots=True)
class Load:
    """Training samples of a task, and the share of their tokens that is not padding."""

    workload: Workload
    n_samples: int
    share_read: float

    @classmethod
    def of(cls, task: Task, batch_size: int) -> Load:
        """Return the load of the training split of ``task``."""
        workload = task.workload(batch_size).with_phase(None)
        inputs = task.split("train").inputs
        share = 1.0
        if workload.has_padding:
            # Training truncates each batch to its longest text.
            share = float((np.asarray(inputs[:_MOST_ROWS]) != workload.padding_token).mean())
        return cls(workload, len(inputs), share)

    def step_s(self, architectures: list[Architecture], batch_size: int) -> Floats:
        """Return the modelled seconds of a training step of each architecture."""
        counts = count_batch(ArchitectureBatch.of(architectures), self.workload)
        sample_s = (
            _PASSES * counts.total("macs") / _MACS_PER_S
            + counts.total("activation_bytes") / _BYTES_PER_S
        )
        launches: Floats = counts.total("n_kernels") * _S_PER_KERNEL
        # Kernels are counted for each decoding step, but training runs all steps at once.
        launches = launches / max(1, self.workload.n_steps)
        return sample_s * self.share_read * batch_size + launches


def expected(config: SearchConfig, load: Load) -> Expected:
    """Return the modelled training times of ``config``."""
    members = [smallest(config.space), largest(config.space), *_members(config.space)]
    training = config.training
    n_steps = epochs_of(config) * math.ceil(load.n_samples / training.batch_size)
    steps_s = load.step_s(members, training.batch_size)
    parent = config.space.parent
    if parent is not None and load.workload.predicts_tokens:
        # The teacher runs at each step: its outputs do not fit into a file.
        steps_s = steps_s + load.step_s([parent], training.batch_size)[0] / _PASSES
    times_s = n_steps * steps_s
    return Expected(float(times_s[0]), float(times_s[2:].mean()), float(times_s[1]))


def epochs_of(config: SearchConfig) -> int:
    """Return the epochs of a candidate; those of a checkpoint start from its weights."""
    training = config.training
    share = training.recovery.inherit_share if config.checkpoint is not None else None
    return training.epochs if share is None else max(1, round(training.epochs * share))


def shortened(config: SearchConfig, load: Load) -> SearchConfig:
    """Return ``config`` with a smaller space and fewer epochs if training takes too long.

    The mean training time of members should be at most a minute. The function first removes up
    to half of each gene's values, then reduces epochs, then removes more values.
    """
    whole = config.space
    for least_share, least_epochs in _STAGES:
        config = _smaller(config, load, whole, least_share)
        mean_s = expected(config, load).mean_s
        if mean_s <= _MOST_S:
            break
        epochs = math.floor(config.training.epochs * _MOST_S / mean_s)
        epochs = min(config.training.epochs, max(least_epochs, epochs))
        config = replace(config, training=replace(config.training, epochs=epochs))
    return config


def _smaller(
    config: SearchConfig, load: Load, whole: SearchSpace, least_share: float
) -> SearchConfig:
    """Remove costly values, but keep ``least_share`` of each gene's values in ``whole``."""
    while (mean_s := expected(config, load).mean_s) > _MOST_S:
        times_s = {
            space: expected(replace(config, space=space, baselines=()), load).mean_s
            for space in _without_one(config.space, whole, least_share)
        }
        times_s = {space: time_s for space, time_s in times_s.items() if time_s < mean_s}
        if not times_s:
            break
        # The smallest sufficient reduction, else the largest one.
        enough = [space for space, time_s in times_s.items() if time_s <= _MOST_S]
        space = (
            max(enough, key=times_s.__getitem__)
            if enough
            else min(times_s, key=times_s.__getitem__)
        )
        config = replace(config, space=space, baselines=())
    return config


def _members(space: SearchSpace) -> list[Architecture]:
    rng = np.random.default_rng(_SEED)
    return [sample(space, rng) for _ in range(_SAMPLED)]


def _without_one(space: SearchSpace, whole: SearchSpace, least_share: float) -> list[SearchSpace]:
    """Return spaces that each lack the costliest value of one gene; see ``_smaller``."""
    spaces = []
    for gene in (*_COSTLY_IS_LARGE, "patch_size", "resolution"):
        values = space.values(gene) if gene in space.domains else ()
        fewest = 1 if gene in ("patch_size", "resolution") else _FEWEST_VALUES
        if not values or len(values) <= max(fewest, least_share * len(whole.values(gene))):
            continue
        if gene == "patch_size":
            costly = min(values)
        elif gene == "resolution":
            costly = None if None in values else max(values)
        else:
            costly = max(values)
        domain = Choice(tuple(value for value in values if value != costly))
        try:
            spaces.append(replace(space, domains={**space.domains, gene: domain}))
        except ValueError:
            # Some number of heads divides only the removed width.
            continue
    return spaces
