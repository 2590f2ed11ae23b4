"""Expected training times of a space's members, and smaller spaces that take less.

The time of a training step is modelled by its multiplications, bytes and kernels, with the rates
of one thread of a server's CPU (AMD EPYC). ``nas search`` scales it by the time of some steps here
and prints it as an estimate. A recipe's space is reduced by the model alone, so that a task has
the same space on every machine.
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
from search_spaces.workload import PADDING_TOKEN, Workload

Floats = NDArray[np.float64]

# A trial trains in one thread, two trials at a time on two cores. Of bytes, those of activations
# in a forward pass are counted.
_MACS_PER_S, _BYTES_PER_S, _S_PER_KERNEL = 45e9, 2.5e9, 8e-5
# Backward passes multiply about twice as much as forward passes.
_PASSES = 3
_MOST_S = 60.0
# Members whose mean stands for the space.
_SAMPLED = 48
_SEED = 20261130
# How a search is cut down, in turn: the share of each gene's values and the epochs that stay.
_STAGES = ((0.5, 10), (0.0, 3))
# Rows of token arrays that their mean length is taken from.
_MOST_ROWS = 4096
# Genes whose costliest value may be left out, by which end of them is costly.
_COSTLY_IS_LARGE = ("d_model", "depth", "ffn_ratio", "decoder_d_model", "decoder_depth")
_FEWEST_VALUES = 2


@dataclass(frozen=True, slots=True)
class Expected:
    """Estimated seconds of a training: of the least, the mean and the largest member."""

    least_s: float
    mean_s: float
    most_s: float

    def scaled(self, factor: float) -> Expected:
        """Of a machine on which steps take ``factor`` times as long."""
        return Expected(self.least_s * factor, self.mean_s * factor, self.most_s * factor)


@dataclass(frozen=True, slots=True)
class Load:
    """Samples of a training of ``task``, and the share of their tokens that is no padding."""

    workload: Workload
    n_samples: int
    share_read: float

    @classmethod
    def of(cls, task: Task, batch_size: int) -> Load:
        """Return the load of the training split of ``task``."""
        workload = task.workload(batch_size).with_phase(None)
        inputs = task.split("train").inputs
        share = 1.0
        if not workload.is_image and not workload.is_causal:
            # Trainings cut batches where their longest text ends.
            share = float((np.asarray(inputs[:_MOST_ROWS]) != PADDING_TOKEN).mean())
        return cls(workload, len(inputs), share)

    def step_s(self, architectures: list[Architecture], batch_size: int) -> Floats:
        """Modelled seconds of a training step of each of ``architectures``."""
        counts = count_batch(ArchitectureBatch.of(architectures), self.workload)
        a_sample = (
            _PASSES * counts.total("macs") / _MACS_PER_S
            + counts.total("activation_bytes") / _BYTES_PER_S
        )
        launches: Floats = counts.total("n_kernels") * _S_PER_KERNEL
        # A decoder's steps are priced one by one, and trained all at once.
        launches = launches / max(1, self.workload.n_steps)
        return a_sample * self.share_read * batch_size + launches


def expected(config: SearchConfig, load: Load) -> Expected:
    """Return the modelled time of trainings by ``config``."""
    members = [smallest(config.space), largest(config.space), *_members(config.space)]
    training = config.training
    n_steps = training.epochs * math.ceil(load.n_samples / training.batch_size)
    times_s = n_steps * load.step_s(members, training.batch_size)
    return Expected(float(times_s[0]), float(times_s[2:].mean()), float(times_s[1]))


def shortened(config: SearchConfig, load: Load) -> SearchConfig:
    """Return ``config`` with a smaller space and fewer epochs, where a training takes too long.

    On average over the members a training should take a minute at most. Genes first lose up to
    half of their values, then epochs are reduced, then genes lose more.
    """
    whole = config.space
    for least_share, least_epochs in _STAGES:
        config = _smaller(config, load, whole, least_share)
        found = expected(config, load).mean_s
        if found <= _MOST_S:
            break
        epochs = math.floor(config.training.epochs * _MOST_S / found)
        epochs = min(config.training.epochs, max(least_epochs, epochs))
        config = replace(config, training=replace(config.training, epochs=epochs))
    return config


def _smaller(
    config: SearchConfig, load: Load, whole: SearchSpace, least_share: float
) -> SearchConfig:
    """Remove costly values of genes, but keep ``least_share`` of each gene's in ``whole``."""
    while (found := expected(config, load).mean_s) > _MOST_S:
        times_s = {
            space: expected(replace(config, space=space, baselines=()), load).mean_s
            for space in _without_one(config.space, whole, least_share)
        }
        times_s = {space: time_s for space, time_s in times_s.items() if time_s < found}
        if not times_s:
            break
        # The smallest cut that is enough, else the largest there is.
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
    """Return spaces that lack the costliest value of one gene; see ``_smaller``."""
    found = []
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
        kept = Choice(tuple(value for value in values if value != costly))
        try:
            found.append(replace(space, domains={**space.domains, gene: kept}))
        except ValueError:
            # Heads that only this width has.
            continue
    return found
