"""Surrogate of one objective or constraint: a Gaussian process of a value or its logarithm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nas.samplers.gaussian_process import GaussianProcess, Hyperparameters, Posterior
from nas.samplers.improvement import Marginal

Array = NDArray[np.float64]

# Labels are clipped this many times the distance between minimum and median above the median.
_WORST = 4.0


@dataclass(frozen=True)
class Model:
    """Fitted surrogate; with ``is_log`` it models the logarithm of the loss."""

    process: GaussianProcess
    features: Array
    labels: Array
    variance: Array
    is_log: bool

    @classmethod
    def make(
        cls,
        features_NF: Array,
        losses_N: Array,
        variance_N: Array,
        *,
        is_log: bool,
        hyper: Hyperparameters | None,
        fit: bool,
        expected_F: Array | None = None,
    ) -> Model:
        """Condition on losses; with ``fit`` or without ``hyper``, fit hyperparameters first.

        See ``GaussianProcess.fit`` for ``expected_F``.
        """
        labels, variance = losses_N, variance_N
        if is_log:
            labels, variance = np.log(losses_N), variance_N / losses_N**2
        middle = float(np.median(labels))
        below = middle - float(labels.min())
        if below > 0:
            labels = np.minimum(labels, middle + _WORST * below)
        if fit or hyper is None:
            process = GaussianProcess.fit(
                features_NF, labels, variance, hyper, expected_F=expected_F
            )
        else:
            process = GaussianProcess(features_NF, labels, variance, hyper)
        return cls(process, features_NF, labels, variance, is_log)

    def smoothed(self) -> Array:
        """Return the losses of the training rows without their noise."""
        labels = self.process.smoothed()
        return np.exp(labels) if self.is_log else labels

    def with_pending(self, features_QF: Array) -> Model:
        """Return a fantasy model, conditioned on pending rows at their posterior means."""
        if not len(features_QF):
            return self
        labels = np.concatenate([self.labels, self.process.posterior(features_QF).mean])
        features = np.vstack([self.features, features_QF])
        variance = np.concatenate([self.variance, np.zeros(len(features_QF))])
        process = GaussianProcess(features, labels, variance, self.process.hyper)
        return replace(self, process=process, features=features, labels=labels, variance=variance)

    def marginal(self, posterior: Posterior) -> Marginal:
        """Return the marginal distribution of the loss at the posterior's candidates."""
        return Marginal(posterior.mean, np.sqrt(posterior.variance), self.is_log)


def is_log_normal(losses_N: Array) -> bool:
    """Return whether a log-normal distribution fits the losses better than a normal one.

    The likelihoods are compared, Jacobian included (Box & Cox 1964, exponents 0 and 1).
    """
    if losses_N.min() <= 0 or losses_N.max() == losses_N.min():
        return False
    logarithms = np.log(losses_N)
    return bool(np.exp(logarithms.mean()) * logarithms.std() < losses_N.std())
