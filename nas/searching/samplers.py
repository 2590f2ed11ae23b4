"""Optuna samplers by name, made for two objectives and categorical genes."""

from __future__ import annotations

import warnings

import optuna
from optuna.samplers import BaseSampler as BaseSampler

from nas.searching.config import SamplerName


def make_sampler(name: SamplerName, seed: int, *, startup_trials: int) -> BaseSampler:
    """The sampler called ``name``.

    ``tpe`` is multi-objective TPE (Ozaki et al. 2022), multivariate so that heads and widths are
    judged together, with a constant liar so that candidates in flight repel new ones; ``nsga2``
    is NSGA-II (Deb et al. 2002) with a population that fits searches of some dozens of trials.
    """
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(8, startup_trials))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=startup_trials, multivariate=True, constant_liar=True
        )
