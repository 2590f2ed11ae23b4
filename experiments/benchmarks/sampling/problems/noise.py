"""Noise of measured losses: that of a validation set on qualities, relative noise on costs.

The noise of the k-th evaluation of a row depends on the seed, the row and k alone, so that all
samplers get the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Noise(Protocol):
    """Noise of one measurement."""

    def __call__(self, losses_M: Array, rng: np.random.Generator) -> Array:
        """Return measured losses, given the true ones."""
        ...


@dataclass(frozen=True)
class GaussianNoise:
    """Normal noise of the first loss."""

    sd: float

    def __call__(self, losses_M: Array, rng: np.random.Generator) -> Array:
        """Add the noise."""
        measured = losses_M.copy()
        measured[0] += self.sd * rng.standard_normal()
        return measured


@dataclass(frozen=True)
class Measured:
    """How a rate in [0, 1] and a positive cost became the first two losses.

    The first loss is an error rate, or minus an accuracy; the second is a cost, or its log10.
    """

    is_accuracy: bool = False
    is_log_cost: bool = False


@dataclass(frozen=True)
class MeasurementNoise:
    """Binomial noise of ``n_samples`` on the rate, log-normal noise on the cost.

    ``relative_sd`` is the standard deviation of the cost's natural logarithm.
    """

    measured: Measured
    relative_sd: float
    n_samples: int

    def __call__(self, losses_M: Array, rng: np.random.Generator) -> Array:
        """Draw both."""
        sign = -1.0 if self.measured.is_accuracy else 1.0
        rate = rng.binomial(self.n_samples, float(np.clip(sign * losses_M[0], 0, 1)))
        shift = self.relative_sd * rng.standard_normal()
        cost = losses_M[1]
        cost = cost + shift / np.log(10) if self.measured.is_log_cost else cost * np.exp(shift)
        return np.array([sign * rate / self.n_samples, cost, *losses_M[2:]])


def noise_rng(seed: int, row: Hashable, evaluation: int) -> np.random.Generator:
    """Return the generator of the noise of a row's evaluation, counted from 0."""
    digest = hashlib.blake2b(repr(row).encode(), digest_size=8).digest()
    return np.random.default_rng([seed, 7, int.from_bytes(digest), evaluation])
