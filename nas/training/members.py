"""Sample the sub-networks (*members*) that a supernet trains at each step.

``uniform`` samples members of the space uniformly. ``promising`` samples near the Pareto front, as
AttentiveNAS does (Wang et al. 2021, "BestUp"): it draws a cost uniformly in the logarithm of MACs,
then one of the members with the best predicted loss at about that cost. A ridge regression on
closed-form sizes predicts the distillation loss. It is fitted to earlier steps, with exponential
decay because the supernet improves. It needs no evaluation and takes microseconds.

Shape legend: N members of the pool, P features, M drawn members.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.cost.counting import count_batch
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import from_vector
from search_spaces.space.sampling import sample_positions
from search_spaces.workload import Workload

_POOL = 2000
# Members compared at one cost, and the number of the best among which one is drawn.
_RIVALS = 32
_BEST = 8
_RIDGE = 1.0
_FADING = 0.9
_LEAST_LOSS = 1e-4


class Members(nn.Module):
    """A pool of members and the regression of their losses; checkpoints include its state."""

    gram: Tensor
    moment: Tensor

    def __init__(self, space: SearchSpace, workload: Workload, *, seed: int) -> None:
        """Sample the pool."""
        super().__init__()
        self._space = space
        samples = sample_positions(space, _POOL, np.random.default_rng([seed, _POOL]))
        positions = np.unique(samples, axis=0)
        batch = ArchitectureBatch.from_positions(positions, space)
        counts = count_batch(batch, workload)
        log_macs_N = np.log(counts.total("macs"))
        order = np.argsort(log_macs_N, kind="stable")
        self._positions, self._log_macs_N = positions[order], log_macs_N[order]
        self._features_NP = _features(batch, log_macs_N, np.log(counts.total("params")))[order]
        n_features = self._features_NP.shape[1]
        self.register_buffer("gram", torch.zeros(n_features, n_features, dtype=torch.float64))
        self.register_buffer("moment", torch.zeros(n_features, dtype=torch.float64))

    def __len__(self) -> int:
        """Return the number of members in the pool."""
        return len(self._positions)

    def architecture(self, index: int) -> Architecture:
        """Return the member at ``index``; members are sorted by MACs."""
        return from_vector(self._positions[index], self._space)

    def uniform(self, rng: np.random.Generator) -> int:
        """Sample a member uniformly and return its index."""
        return int(rng.integers(len(self)))

    def promising(self, rng: np.random.Generator, losses_N: NDArray[np.float64]) -> int:
        """Sample one of the best members at a cost that is uniform in the logarithm of MACs."""
        target = rng.uniform(self._log_macs_N[0], self._log_macs_N[-1])
        centre = int(np.searchsorted(self._log_macs_N, target))
        first = min(max(0, centre - _RIVALS // 2), max(0, len(self) - _RIVALS))
        rivals = np.arange(first, min(first + _RIVALS, len(self)))
        best = rivals[np.argsort(losses_N[rivals], kind="stable")[:_BEST]]
        return int(best[int(rng.integers(len(best)))])

    def predicted(self) -> NDArray[np.float64]:
        """Predict the logarithms of the losses of all members, ``(N,)``."""
        gram_PP = self.gram.cpu().numpy() + _RIDGE * np.eye(len(self.moment))
        weights_P = np.linalg.solve(gram_PP, self.moment.cpu().numpy())
        log_losses_N: NDArray[np.float64] = self._features_NP @ weights_P
        return log_losses_N

    def learn(self, indices_M: Sequence[int], losses_M: Tensor) -> None:
        """Update the regression with the losses of one epoch."""
        features_MP = torch.from_numpy(self._features_NP[np.array(indices_M, dtype=np.int64)])
        logs_M = losses_M.double().cpu().clamp_min(_LEAST_LOSS).log()
        self.gram.mul_(_FADING).add_(features_MP.T @ features_MP)
        self.moment.mul_(_FADING).add_(features_MP.T @ logs_M)


def _features(
    batch: ArchitectureBatch, log_macs_N: NDArray[np.float64], log_params_N: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a constant, the standardised sizes and their squares: ``(N, P)``."""
    active, depth = batch.active, batch.depth
    layered = (
        np.log(batch.ffn.d_ff),
        np.log(batch.attention.n_heads),
        np.log(batch.attention.n_kv_heads),
        batch.attention.rank > 0,
        batch.ffn.rank > 0,
    )
    means = [np.where(active, values, 0).sum(axis=1) / depth for values in layered]
    sizes = np.column_stack(
        [
            log_macs_N,
            log_params_N,
            np.log(batch.d_model),
            np.log(depth),
            np.log(batch.patch_size),
            *means,
        ]
    )
    spread = np.where(sizes.std(0) > 0, sizes.std(0), 1.0)
    scaled = (sizes - sizes.mean(0)) / spread
    return np.column_stack([np.ones(len(scaled)), scaled, scaled**2])
