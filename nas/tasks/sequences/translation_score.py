"""BLEU and chrF of translations, by ``sacrebleu`` (Post 2018).

Both are functions of counts of n-grams and of lengths, which add up over sentences: the figures of
a sentence are these counts, and the score of a corpus, equal to ``sacrebleu``'s, is that of their
sum. Standard errors are by the bootstrap over sentences (Koehn 2004). Sources: BLEU, Papineni et
al. 2002; chrF, Popovic 2015.

Shape legend: B batch, N sentences, S figures, T tokens of a translation, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.workload import PADDING_TOKEN

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
Decode = Callable[[NDArray[np.int64]], list[str]]

METRICS = ("bleu", "chrf")
_RESAMPLES = 200


class CorpusScore:
    """BLEU or chrF: figures of sentences, and the score of their sum."""

    def __init__(self, name: str) -> None:
        """``name`` is one of ``METRICS``.

        Raises:
            ValueError: it is another.
        """
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF

        if name not in METRICS:
            raise ValueError(f"metric must be {' or '.join(METRICS)}, got {name!r}")
        self._metric: Any = BLEU() if name == "bleu" else CHRF()

    def figures(self, texts: Sequence[str], references: Sequence[str]) -> Floats:
        """Figures of sentences, ``(N, S)``."""
        counts = self._metric._extract_corpus_statistics(list(texts), [list(references)])
        return np.array(counts, dtype=np.float64)

    def share(self, figures: Floats) -> Floats:
        """The score as a share in [0, 1] of summed figures ``(..., S)``, of shape ``(...)``."""
        rows = figures.reshape(-1, figures.shape[-1])
        shares = [self._metric._compute_score_from_stats(row.tolist()).score / 100 for row in rows]
        # Rounding may leave a perfect score an ulp above 1.
        clipped: Floats = np.clip(np.array(shares), 0, 1).reshape(figures.shape[:-1])
        return clipped


class Translation:
    """An ``Objective``: cross-entropy of each token given those before it, and a corpus's score.

    Networks train by ``nas.training.objective.TeacherForcing`` and are evaluated on what they
    write. Targets are ``(B, T + 1)``: tokens, the end, padding; last the index of the reference.
    """

    def __init__(
        self, references: Sequence[str], decode: Decode, *, end: int, metric: str
    ) -> None:
        """``decode`` makes texts of tokens; ``end`` is no token."""
        self._references, self._decode, self._end = references, decode, end
        self._score = CorpusScore(metric)

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
        """Figures of each sentence's score."""
        tokens = outputs.numpy().astype(np.int64)
        texts = self._decode(np.where(tokens == self._end, PADDING_TOKEN, tokens))
        return self._score.figures(texts, [self._references[int(i)] for i in targets[:, -1]])

    def quality(self, figures: Floats) -> Floats:
        """The score of the sentences whose figures were summed."""
        return self._score.share(figures)

    def standard_error(self, figures_NS: Floats) -> float:
        """Bootstrap standard error over sentences; infinite for a single one.

        One right and one wrong sentence are added, so that a perfect score is not certain, as in
        ``Classification``.
        """
        if len(figures_NS) < 2:
            return math.inf
        right = self._references[:1]
        added = [self._score.figures(texts, right) for texts in (right, [""])]
        figures_NS = np.concatenate([figures_NS, *added])
        n, rng = len(figures_NS), np.random.default_rng(0)
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
        return float(self.quality(drawn.astype(float) @ figures_NS).std(ddof=1))
