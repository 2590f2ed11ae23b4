"""Objective of tasks that write texts: cross-entropy, and a score of what a network writes.

A ``TextScore`` has figures of each text that add up over texts, and the score as a function of
their sums. Standard errors are by the bootstrap over texts (Koehn 2004).

Shape legend: B batch, N texts, S figures, T tokens of a target, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nas.tasks.text.bootstrap import bootstrap_error
from search_spaces.workload import PADDING_TOKEN

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
Decode = Callable[[NDArray[np.int64]], list[str]]


class TextScore(Protocol):
    """Figures of written texts, and the score of their sum."""

    def figures(self, texts: Sequence[str], references: Sequence[str]) -> Floats:
        """Figures of texts, ``(N, S)``."""

    def share(self, figures: Floats) -> Floats:
        """The score as a share in [0, 1] of summed figures ``(..., S)``, of shape ``(...)``."""


class PairObjective:
    """An ``Objective``: cross-entropy of each token given those before it, and a ``TextScore``.

    Networks train by ``nas.training.objective.TeacherForcing`` and are evaluated on what they
    write. Targets are ``(B, T + 1)``: tokens, the end, padding; last the index of the reference.
    """

    def __init__(
        self, references: Sequence[str], decode: Decode, *, end: int, score: TextScore
    ) -> None:
        """``decode`` makes texts of tokens; ``end`` is no token."""
        self._references, self._decode, self._end = references, decode, end
        self._score = score

    def forced(self, model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
        """Logits of each target, as far as the longest of the batch."""
        tokens = targets[:, :-1]
        longest = int((tokens != PADDING_TOKEN).sum(dim=1).max())
        logits: Tensor = model(inputs, tokens[:, :longest])
        return logits

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """The mean over tokens, padding left out."""
        import torch.nn.functional as F

        return F.cross_entropy(
            outputs.flatten(0, 1),
            targets[:, : outputs.shape[1]].flatten(),
            ignore_index=PADDING_TOKEN,
            label_smoothing=label_smoothing,
        )

    def outputs(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """The tokens that ``model`` writes."""
        return model(inputs)

    def figures(
        self, outputs: Tensor, targets: NDArray[np.int64], sizes_B: NDArray[np.int64] | None
    ) -> Floats:
        """Figures of each text's score."""
        references = [self._references[int(i)] for i in targets[:, -1]]
        return self._score.figures(self.texts(outputs), references)

    def texts(self, outputs: Tensor) -> list[str]:
        """Texts of the tokens ``(B, T)`` that a network wrote, without the end."""
        tokens = outputs.numpy().astype(np.int64)
        return self._decode(np.where(tokens == self._end, PADDING_TOKEN, tokens))

    def quality(self, figures: Floats) -> Floats:
        """The score of the texts whose figures were summed."""
        return self._score.share(figures)

    def standard_error(self, figures_NS: Floats) -> float:
        """Bootstrap standard error over texts; see ``bootstrap_error``."""
        right = self._references[:1]
        added = [self._score.figures(texts, right) for texts in (right, [""])]
        return bootstrap_error(figures_NS, self.quality, np.concatenate(added))
