"""Objective of embeddings: distil the vectors of a checkpoint, and judge by its similarities.

Shape legend: B batch, N samples, W width of a vector, S figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.tasks.embeddings.similarity import (
    Agreement,
    pair_correlation,
    recall_at,
    similarity_correlation,
)

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

# Neighbours of the metrics that count them.
NEIGHBOURS = {"recall1": 1, "recall5": 5, "recall10": 10}
METRICS = (*NEIGHBOURS, "spearman", "pairs")
# Columns of targets: a text's row among the reference's vectors; its pair, and its side there.
N_TARGETS = 3
ROW, PAIR, SIDE = range(N_TARGETS)
# In the columns of pairs: the text is of none.
NO_PAIR = -1
# The temperature at which similarities become a distribution, and the weight of its loss.
_TEMPERATURE, _SIMILARITY_WEIGHT = 0.05, 0.03
# Stands for the similarity of a text to itself, which no distribution contains.
_LOW = -1e4


class EmbeddingObjective:
    """An ``Objective``: distance to a reference's vectors, and agreement with its similarities.

    Outputs are vectors ``(B, W)`` of the reference's width, targets ``(B, 3)``.
    """

    def __init__(
        self, vectors_NW: NDArray[np.float32], scores_P: NDArray[np.float64], metric: str
    ) -> None:
        """Keep the reference's vectors of all splits, the scores of pairs, and the metric's key.

        Raises:
            ValueError: the metric is none of ``METRICS``.
        """
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
        self._vectors_NW, self._scores_P, self._metric = vectors_NW, scores_P, metric
        self._last: tuple[Floats, Agreement] | None = None

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """Return the mean of ``1 - cos(vector, reference)``, plus a loss of similarities.

        That is the Kullback-Leibler divergence of each text's similarities to the others of the
        batch, as a softmax with a temperature, from those by the reference (SEED, Fang et al.
        2021, arXiv 2101.04731, section 3.2, with the batch in place of a queue).
        """
        import torch
        import torch.nn.functional as F

        rows_B = targets[:, ROW].cpu().numpy()
        stored_BW = self._vectors_NW[rows_B]
        own_BW = F.normalize(outputs.float(), dim=1)
        reference_BW = F.normalize(torch.from_numpy(stored_BW).to(outputs.device), dim=1)
        loss = 1 - (own_BW * reference_BW).sum(dim=1).mean()
        if len(rows_B) < 2:
            return loss
        is_itself_BB = torch.eye(len(rows_B), dtype=torch.bool, device=outputs.device)
        own_BB, reference_BB = (
            F.log_softmax((x @ x.T / _TEMPERATURE).masked_fill(is_itself_BB, _LOW), dim=1)
            for x in (own_BW, reference_BW)
        )
        divergence = F.kl_div(own_BB, reference_BB, reduction="batchmean", log_target=True)
        return loss + _SIMILARITY_WEIGHT * divergence

    def scoring_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean of a random projection of each unit vector, of a fixed draw.

        ``loss`` is least at the reference itself, where its gradients are 0. A gradient of this
        is one of the vector in a random direction, whose mean square is its Jacobian's.
        """
        import torch
        import torch.nn.functional as F

        generator = torch.Generator().manual_seed(int(targets[:, ROW].sum()))
        signs_BW = 2.0 * torch.randint(2, tuple(outputs.shape), generator=generator) - 1
        projected_B = (F.normalize(outputs.float(), dim=1) * signs_BW.to(outputs.device)).sum(1)
        return projected_B.mean()

    def outputs(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Return the vectors of ``inputs``."""
        return model(inputs)

    def figures(
        self, outputs: Tensor, targets: NDArray[np.int64], sizes_B: NDArray[np.int64] | None
    ) -> Floats:
        """Return each sample's vector and targets, ``(B, W + 3)``."""
        return np.concatenate([outputs.double().numpy(), targets.astype(np.float64)], axis=1)

    def pooled(self, figures_NS: Floats) -> float:
        """Return the quality of all samples together; figures are no sums."""
        return self._agreement(figures_NS).value

    def quality(self, figures: Floats) -> Floats:
        """Return each sample's part in the quality of ``(N, S)`` figures, of shape ``(N,)``."""
        return self._agreement(figures).of_samples

    def standard_error(self, figures_NS: Floats) -> float:
        """Return the standard error of ``pooled``."""
        return self._agreement(figures_NS).standard_error

    def _agreement(self, figures_NS: Floats) -> Agreement:
        # Value, error and parts are asked for one after another.
        if self._last is None or self._last[0] is not figures_NS:
            self._last = (figures_NS, self.agreement(figures_NS, self._metric))
        return self._last[1]

    def agreement(self, figures_NS: Floats, metric: str) -> Agreement:
        """Return the agreement by ``metric``, one of ``METRICS``.

        Samples that the metric does not read have the mean of the others as their part.
        """
        vectors_NW = figures_NS[:, :-N_TARGETS]
        targets_N3 = figures_NS[:, -N_TARGETS:].astype(np.int64)
        is_text_N = targets_N3[:, PAIR] == NO_PAIR
        if metric == "pairs":
            # A pair's texts are in the order of its sides.
            order = np.lexsort((targets_N3[:, SIDE], targets_N3[:, PAIR]))
            rows_P2 = order[~is_text_N[order]].reshape(-1, 2)
            scores_P = self._scores_P[targets_N3[rows_P2[:, 0], PAIR]]
            found = pair_correlation(
                vectors_NW[rows_P2[:, 0]], vectors_NW[rows_P2[:, 1]], np.asarray(scores_P)
            )
            rows, parts = rows_P2.flatten(), found.of_samples.repeat(2)
        else:
            rows = np.flatnonzero(is_text_N)
            reference = self._vectors_NW[targets_N3[rows, ROW]].astype(np.float64)
            own = vectors_NW[rows]
            found = (
                similarity_correlation(own, reference)
                if metric == "spearman"
                else recall_at(NEIGHBOURS[metric], own, reference)
            )
            parts = found.of_samples
        of_samples = np.full(len(figures_NS), parts.mean())
        of_samples[rows] = parts
        return Agreement(found.value, found.standard_error, of_samples)
