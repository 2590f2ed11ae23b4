"""The surrogate of any study: a Gaussian process of a loss or of its logarithm."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nas.samplers.gaussian_process import GaussianProcess, Hyperparameters, ProcessPosterior
from nas.samplers.surrogate import Points

Array = NDArray[np.float64]

# Labels are clipped this many times the distance between minimum and median above the median.
_WORST = 4.0


@dataclass(frozen=True)
class GaussianSurrogate:
    """Fitted Gaussian process; with ``is_log`` it models the logarithm of the loss.

    With ``is_exact`` labels repeat exactly: what the process takes for noise is an effect of the
    row, which a candidate has as well.
    """

    process: GaussianProcess
    is_log: bool
    is_exact: bool

    def posterior(self, points: Points) -> ProcessPosterior:
        """Return the posterior at candidates, with the effects of their rows if exact."""
        posterior = self.process.posterior(points.features)
        if self.is_exact:
            posterior.variance = posterior.variance + self.process.noise_variance
        return posterior

    def mean(self, points: Points) -> Array:
        """Return the posterior mean at candidates, without the variance."""
        return self.process.mean(points.features)

    def smoothed(self) -> Array:
        """Return the losses of the training rows without their noise."""
        labels = self.process.labels if self.is_exact else self.process.smoothed()
        return np.exp(labels) if self.is_log else labels

    def with_pending(self, points: Points) -> GaussianSurrogate:
        """Return a fantasy model, conditioned on pending points at their posterior means."""
        return replace(self, process=self.process.with_pending(points.features))


class GaussianModel:
    """Gaussian process whose hyperparameters are fitted from the previous ones.

    With ``may_be_log`` the logarithm is modelled where that is likelier. ``expected`` is added to
    the prior mean of each log relevance.
    """

    def __init__(self, *, may_be_log: bool, expected_F: Array | None = None) -> None:
        """Start without hyperparameters."""
        self._may_be_log, self._expected = may_be_log, expected_F
        self._is_log = False
        self._hyper: Hyperparameters | None = None

    def fit(
        self,
        points: Points,
        losses_N: Array,
        variance_N: Array,
        *,
        is_due: bool,
        is_exact: bool,
    ) -> GaussianSurrogate:
        """Condition on losses; without hyperparameters, or with ``is_due``, fit them first."""
        if is_due and self._may_be_log:
            self._is_log = is_log_normal(losses_N)
        is_log = self._is_log and bool(losses_N.min() > 0)
        labels, variance = losses_N, variance_N
        if is_log:
            labels, variance = np.log(losses_N), variance_N / losses_N**2
        labels = clipped(labels)
        features = points.features
        if is_due or self._hyper is None:
            process = GaussianProcess.fit(
                features, labels, variance, self._hyper, expected_F=self._expected
            )
        else:
            process = GaussianProcess(features, labels, variance, self._hyper)
        self._hyper = process.hyper
        return GaussianSurrogate(process, is_log, is_exact)


def is_log_normal(losses_N: Array) -> bool:
    """Return whether a log-normal distribution fits the losses better than a normal one.

    The likelihoods are compared, Jacobian included (Box & Cox 1964, exponents 0 and 1).
    """
    if losses_N.min() <= 0 or losses_N.max() == losses_N.min():
        return False
    logarithms = np.log(losses_N)
    return bool(np.exp(logarithms.mean()) * logarithms.std() < losses_N.std())


def clipped(labels_N: Array) -> Array:
    """Clip the worst labels: that they are bad counts, not how bad."""
    middle = float(np.median(labels_N))
    below = middle - float(labels_N.min())
    return np.minimum(labels_N, middle + _WORST * below) if below > 0 else labels_N
