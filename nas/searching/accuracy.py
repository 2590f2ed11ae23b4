"""How accurate an untrained candidate may be: a surrogate with honest width.

A Gaussian process on closed-form features of the architecture, fitted to the logarithm of the
error rate of the trials completed so far (errors shrink by factors as models grow, so equal steps
of the log are equally surprising). Source of the method: Rasmussen & Williams 2006, chapter 2.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from search_spaces.architecture import PRECISIONS, Architecture
from search_spaces.counting import count
from search_spaces.workload import Workload

# Half an error in a thousand samples: keeps the log finite where nothing was wrong.
_FLOOR = 5e-4
_MIN_ROWS = 4


class AccuracySurrogate:
    """Optimistic accuracies of architectures of one workload."""

    def __init__(self, workload: Workload) -> None:
        """Start with nothing known: every accuracy is possible."""
        self._workload = workload
        self._model: object | None = None

    def fit(self, architectures: Sequence[Architecture], accuracies: Sequence[float]) -> None:
        """Learn from completed trials; below four of them nothing is learnt."""
        if len(architectures) < _MIN_ROWS:
            self._model = None
            return
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        kernel = ConstantKernel(1.0, (0.1, 10.0)) * RBF(2.0, (0.5, 20.0)) + WhiteKernel(
            0.1, (0.01, 1.0)
        )
        model = make_pipeline(
            StandardScaler(), GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        )
        errors = np.log(np.maximum(1 - np.asarray(accuracies), _FLOOR))
        with warnings.catch_warnings():
            # A length scale at its bound is no fault with a dozen rows.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(self._features(architectures), errors)
        self._model = model

    def optimistic(self, architecture: Architecture, confidence: float) -> float:
        """Upper end of the two-sided interval at ``confidence``; 1.0 where nothing is known."""
        if self._model is None:
            return 1.0
        mean, deviation = self._model.predict(  # type: ignore[attr-defined]
            self._features([architecture]), return_std=True
        )
        z = float(norm.ppf(0.5 + confidence / 2))
        return float(1 - np.exp(mean[0] - z * deviation[0]))

    def _features(self, architectures: Sequence[Architecture]) -> NDArray[np.float64]:
        return np.array([self._row(a) for a in architectures])

    def _row(self, architecture: Architecture) -> list[float]:
        counts = count(architecture, self._workload)
        attention = [layer.attention for layer in architecture.layers]
        blocks = architecture.blocks
        shares = [
            sum(block.compression.precision == p for block in blocks) / len(blocks)
            for p in PRECISIONS[1:]
        ]
        return [
            np.log(architecture.d_model),
            np.log(architecture.depth),
            np.log(architecture.patch_size),
            np.log(counts.params),
            np.log(counts.macs),
            float(np.mean([np.log(a.n_heads) for a in attention])),
            float(np.mean([a.n_kv_heads / a.n_heads for a in attention])),
            float(np.mean([np.log(layer.ffn.d_ff) for layer in architecture.layers])),
            sum(block.rank is not None for block in blocks) / len(blocks),
            sum(block.compression.sparsity != "dense" for block in blocks) / len(blocks),
            *shares,
        ]
