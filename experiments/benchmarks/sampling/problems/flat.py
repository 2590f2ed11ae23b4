"""Vectors for samplers that have no conditional parameters: each column one parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.benchmarks.sampling.problems.space import Config, Parameter, walk


def from_unit(parameter: Parameter, unit: float) -> Any:
    """The value at ``unit`` from 0 to 1: ordered choices are spread evenly, as are logs."""
    unit = min(max(float(unit), 0.0), 1.0)
    if parameter.values:
        return parameter.values[round(unit * (len(parameter.values) - 1))]
    low, high = parameter.low, parameter.high
    if parameter.log:
        value = math.exp(math.log(low) + unit * (math.log(high) - math.log(low)))
    else:
        value = low + unit * (high - low)
    value = min(max(value, low), high)
    return round(value) if parameter.is_whole else value


def to_unit(parameter: Parameter, value: Any) -> float:
    """The inverse of ``from_unit``."""
    if parameter.values:
        return parameter.values.index(value) / max(len(parameter.values) - 1, 1)
    low, high, value = parameter.low, parameter.high, float(value)
    if parameter.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def grid(parameter: Parameter, most: int) -> list[float] | None:
    """Positions in the unit interval of all values; ``None`` where there are too many."""
    if parameter.values:
        return np.linspace(0, 1, len(parameter.values)).tolist()
    n = int(parameter.high - parameter.low) + 1
    if not parameter.is_whole or n > most:
        return None
    return [to_unit(parameter, parameter.low + i) for i in range(n)]


def active(parameters: Sequence[Parameter], flat: Config) -> Config:
    """What is active of a proposal that has every parameter."""
    return walk(tuple(parameters), lambda p: flat[p.name])
