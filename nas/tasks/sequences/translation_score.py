"""BLEU and chrF of translations, by ``sacrebleu`` (Post 2018).

Both are functions of counts of n-grams and of lengths, which add up over sentences: the figures of
a sentence are these counts, and the score of a corpus, equal to ``sacrebleu``'s, is that of their
sum. Sources: BLEU, Papineni et al. 2002; chrF, Popovic 2015.

Shape legend: N sentences, S figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nas.tasks.sequences.pair_objective import Floats

METRICS = ("bleu", "chrf")


class CorpusScore:
    """BLEU or chrF, a ``TextScore``: figures of sentences, and the score of their sum."""

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
