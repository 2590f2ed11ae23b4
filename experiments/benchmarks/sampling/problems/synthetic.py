"""Two spaces in closed form that are like those of architecture search.

``layers``: a Transformer's depth, width, and heads, FFN ratio and bits of each layer; the error
law has diminishing returns, interactions within and between layers, and layers that matter unlike;
energy follows from a roofline. ``mixed``: a training recipe with numbers in logs, integers and
categories; the front is concave and in pieces, and the first loss is noisy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.benchmarks.sampling.problems.architectures import Architectures, stack
from experiments.benchmarks.sampling.problems.evolve import best_front
from experiments.benchmarks.sampling.problems.noise import GaussianNoise, Measured
from experiments.benchmarks.sampling.problems.problem import Array, Problem
from experiments.benchmarks.sampling.problems.space import Parameter, choice, columns_of
from search_spaces.architecture import PRECISIONS
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

_DEEPEST, _TOKENS, _EMBEDDED = 8, 256.0, 4000.0
# By bits: rounding noise; FLOP/s and joules per FLOP of the arithmetic that runs.
_ROUNDING = {4: 0.30, 8: 0.04, 16: 0.004, 32: 0.0}
_PRECISION = {4: "int4wo", 8: "int8", 16: "bf16", 32: "fp32"}
_FLOPS_PER_S = {4: 90e12, 8: 160e12, 16: 90e12, 32: 30e12}
_J_PER_FLOP = {4: 0.7e-12, 8: 0.4e-12, 16: 0.7e-12, 32: 1.6e-12}
_BYTES_PER_S, _J_PER_BYTE, _LAUNCH_S, _IDLE_W = 1.5e12, 25e-12, 3e-6, 70.0

_OPTIMIZERS = {"sgd": (2e-2, 0.02), "adam": (1e-3, 0.0), "lion": (2e-4, 0.005)}
_ACTIVATIONS = {"relu": (1.0, 0.015), "gelu": (1.05, 0.006), "swiglu": (1.5, 0.0)}
_WIDTHS, _DEPTHS, _BATCHES = (16, 256), (1, 12), (16, 32, 64, 128)


def layers() -> Problem:
    """The Transformer-like space of 5 * sum of 48**n models for n = 2..8 layers."""
    parameters = [
        choice("n_layers", *range(2, _DEEPEST + 1)),
        choice("width", 128, 192, 256, 384, 512),
    ]
    for i in range(_DEEPEST):
        parameters += [
            choice(f"heads_{i}", 2, 4, 8, above=("n_layers", i)),
            choice(f"ratio_{i}", 1, 2, 3, 4, above=("n_layers", i)),
            choice(f"bits_{i}", *sorted(_ROUNDING), above=("n_layers", i)),
        ]
    space = tuple(parameters)

    def best() -> float:
        front = best_front(space, layer_losses, seed=0)
        return problem.volume(front)

    problem = Problem(
        name="layers",
        about="error and log10 joules of a Transformer in closed form (front: NSGA-II and local "
        "search, so not proven)",
        parameters=space,
        truth=lambda configs: layer_losses(columns_of(space, configs)),
        reference=(0.5, -1.3),
        best=best,
        measured=Measured(is_log_cost=True),
        architectures=Architectures(
            Workload("layers", "text_classification", (int(_TOKENS),), 2, 1, vocab_size=4000),
            _layer_batch,
        ),
    )
    return problem


def _layer_batch(columns: Mapping[str, Any]) -> ArchitectureBatch:
    """Return the architectures of the space ``layers``; bits are of weights and products."""
    heads, ratio, bits = (
        np.stack([columns[f"{name}_{i}"] for i in range(_DEEPEST)], axis=1)
        for name in ("heads", "ratio", "bits")
    )
    codes = np.array([PRECISIONS.index(_PRECISION[b]) for b in sorted(_PRECISION)])
    precision = codes[np.searchsorted(sorted(_PRECISION), bits)]
    return stack(columns["width"], columns["n_layers"], heads, ratio, precision)


def layer_losses(columns: Mapping[str, Any]) -> Array:
    """Error and log10 joules, ``(N, 2)``, of the space ``layers``."""
    depth, width = columns["n_layers"].astype(float), columns["width"].astype(float)
    heads, ratio, bits = (
        np.stack([columns[f"{name}_{i}"] for i in range(_DEEPEST)], axis=1).astype(float)
        for name in ("heads", "ratio", "bits")
    )
    is_there = np.arange(_DEEPEST)[None] < depth[:, None]
    error = _layer_error(depth, width, heads, ratio, bits, is_there)
    return np.column_stack([error, np.log10(_layer_joules(width, heads, ratio, bits, is_there))])


def _by_bits(table: Mapping[int, float], bits: Array) -> Array:
    keys = np.array(sorted(table))
    found: Array = np.array([table[k] for k in keys])[np.searchsorted(keys, bits)]
    return found


def _layer_error(
    depth: Array, width: Array, heads: Array, ratio: Array, bits: Array, is_there: Any
) -> Array:
    place = (np.arange(_DEEPEST)[None] + 0.5) / depth[:, None]
    # More heads are wanted late, wide FFNs in the middle, precision at both ends.
    attention = 1 - np.exp(-heads / (1.5 + 3 * place))
    attention *= 1 - 0.5 * np.exp(-(width[:, None] / heads) / 24)
    middle = 0.5 + 0.5 * np.sin(np.pi * np.minimum(place, 1.0))
    ffn = 0.3 + 0.7 * middle * np.sqrt(ratio / 4)
    strength = np.where(is_there, np.sqrt(attention * ffn), 0.0).sum(axis=1)
    capacity = (width / 512) ** 0.55 * strength**0.7
    is_end = (np.arange(_DEEPEST)[None] == 0) | (
        np.arange(_DEEPEST)[None] == depth[:, None].astype(int) - 1
    )
    rounding = np.where(is_there, _by_bits(_ROUNDING, bits) * (1 + 1.5 * is_end), 0.0)
    # Coarse layers in a row make each other worse.
    before = np.pad(rounding, ((0, 0), (1, 0)))[:, :-1]
    carried = (rounding * (1 + 2 * before)).sum(axis=1)
    both = is_there[:, 1:] & is_there[:, :-1]
    uneven = np.where(both, np.abs(np.diff(ratio, axis=1)), 0.0).sum(axis=1) / depth
    error: Array = 0.04 + 0.6 / (1 + 1.4 * capacity) + 0.05 * carried + 0.006 * uneven
    return error


def _layer_joules(width: Array, heads: Array, ratio: Array, bits: Array, is_there: Any) -> Array:
    d = width[:, None]
    flops = 2 * _TOKENS * (4 + 2 * ratio) * d * d + 4 * _TOKENS**2 * d
    moved = (4 + 2 * ratio) * d * d * bits / 8
    moved = moved + 2 * _TOKENS * ((8 + 2 * ratio) * d + heads * _TOKENS)
    seconds = _LAUNCH_S + np.maximum(flops / _by_bits(_FLOPS_PER_S, bits), moved / _BYTES_PER_S)
    joules = _IDLE_W * seconds + flops * _by_bits(_J_PER_FLOP, bits) + moved * _J_PER_BYTE
    # The embedding is always there, in 16 bits.
    table = 2 * _EMBEDDED * width
    ends = _IDLE_W * table / _BYTES_PER_S + table * _J_PER_BYTE
    total: Array = np.where(is_there, joules, 0.0).sum(axis=1) + ends
    return total


def mixed() -> Problem:
    """The recipe of eight parameters; its front is exact, by enumeration."""
    space = (
        Parameter("learning_rate", low=1e-5, high=1e-1, log=True),
        Parameter("weight_decay", low=1e-6, high=1e-1, log=True),
        Parameter("dropout", low=0.0, high=0.5),
        Parameter("width", low=_WIDTHS[0], high=_WIDTHS[1], log=True, is_whole=True),
        Parameter("depth", low=_DEPTHS[0], high=_DEPTHS[1], is_whole=True),
        choice("activation", *_ACTIVATIONS),
        choice("optimizer", *_OPTIMIZERS),
        choice("batch", *_BATCHES),
    )
    problem = Problem(
        name="mixed",
        about="error (seen with noise of sd 0.01) and cost of a recipe in closed form "
        "(front: exact)",
        parameters=space,
        truth=lambda configs: mixed_losses(columns_of(space, configs)),
        reference=(0.9, 1.1),
        best=lambda: problem.volume(mixed_front()),
        noise=GaussianNoise(0.01),
    )
    return problem


def _mixed_size(columns: Mapping[str, Any]) -> Array:
    """Cost from 0 to 1, in its logarithm."""

    def log_cost(width: Any, depth: Any, factor: Any) -> Any:
        return np.log(np.asarray(depth * width**2 * factor + 50.0 * width, dtype=float))

    factor = np.array([_ACTIVATIONS[name][0] for name in columns["activation"]])
    low = log_cost(_WIDTHS[0], _DEPTHS[0], 1.0)
    high = log_cost(_WIDTHS[1], _DEPTHS[1], 1.5)
    found: Array = (log_cost(columns["width"].astype(float), columns["depth"], factor) - low) / (
        high - low
    )
    return found


def mixed_optimum(columns: Mapping[str, Any]) -> dict[str, Array]:
    """The best learning rate, weight decay and dropout for all else."""
    base = np.array([_OPTIMIZERS[name][0] for name in columns["optimizer"]])
    width, batch = columns["width"].astype(float), columns["batch"].astype(float)
    rate = base * np.sqrt(64 / width) * np.sqrt(batch / 32)
    return {
        "learning_rate": rate,
        "weight_decay": 1e-6 / rate,
        "dropout": 0.4 * _mixed_size(columns),
    }


def mixed_losses(columns: Mapping[str, Any]) -> Array:
    """Noise-free error and cost, ``(N, 2)``, of the space ``mixed``."""
    size, best = _mixed_size(columns), mixed_optimum(columns)
    error = 0.75 - 0.55 * size**1.8 - 0.07 * np.sin(7 * np.pi * size)
    error = error + np.array([_ACTIVATIONS[name][1] for name in columns["activation"]])
    error = error + np.array([_OPTIMIZERS[name][1] for name in columns["optimizer"]])
    error = error + 0.002 * np.log2(columns["batch"] / _BATCHES[0])
    # A shape of its own for each width: depth must go with it.
    balance = np.log(columns["width"].astype(float) / (20.0 * columns["depth"]))
    error = error + 0.02 * balance**2
    off_rate = np.log10(columns["learning_rate"] / best["learning_rate"])
    error = error + 0.25 * (1 - np.exp(-((off_rate / 0.8) ** 2)))
    off_decay = np.log10(columns["weight_decay"] / best["weight_decay"])
    error = error + 0.05 * (1 - np.exp(-(off_decay**2)))
    error = error + 0.6 * (columns["dropout"] - best["dropout"]) ** 2
    return np.column_stack([error, size])


def mixed_front() -> Array:
    """Losses of every width, depth and category at their best numbers."""
    width, depth, activation, optimizer, batch = (
        grid.ravel()
        for grid in np.meshgrid(
            np.arange(_WIDTHS[0], _WIDTHS[1] + 1),
            np.arange(_DEPTHS[0], _DEPTHS[1] + 1),
            list(_ACTIVATIONS),
            list(_OPTIMIZERS),
            _BATCHES,
            indexing="ij",
        )
    )
    columns: dict[str, Any] = {
        "width": width,
        "depth": depth,
        "activation": activation,
        "optimizer": optimizer,
        "batch": batch,
    }
    return mixed_losses(columns | mixed_optimum(columns))
