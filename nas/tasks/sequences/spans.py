"""Spans of words as answers: loss, decoding and SQuAD's measures.

Shape legend: B batch, T words of a sample.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.tasks.sequences.squad import Question

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

_WORD = re.compile(r"\w+|[^\w\s]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def words_of(text: str) -> list[tuple[int, int]]:
    """Range of characters of each word; punctuation is apart."""
    return [match.span() for match in _WORD.finditer(text)]


def answer_span(spans: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    """Indices of the first and last word that overlap characters ``start..end``.

    ``None`` where the answer does not end within the words.
    """
    inside = [i for i, (a, b) in enumerate(spans) if a < end and b > start]
    return (inside[0], inside[-1]) if inside and spans[-1][1] >= end else None


def normalised(answer: str) -> str:
    """Lower-case an answer; remove punctuation, articles and double spaces."""
    bare = answer.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def overlap(answer: str, right: str) -> float:
    """F1 of the words of two answers."""
    ours, theirs = normalised(answer).split(), normalised(right).split()
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * shared / (len(ours) + len(theirs))


class SpanExtraction:
    """An ``Objective``: cross-entropy of an answer's first and last word, and SQuAD's measures.

    ``outputs`` are ``(B, 2, T)``. Targets are ``(B, 5)``: the answer's first and last word, or -1
    and -1 where it is out of reach; the paragraph's first word and the one after its last; the
    index of the question. Only words of the paragraph may be answers: label smoothing would reward
    others, and is not applied.
    """

    def __init__(
        self, question: Callable[[int], Question], *, max_words: int, metric: str
    ) -> None:
        """``question`` returns the question at an index; answers have at most ``max_words``."""
        self._question, self._max_words = question, max_words
        self._figure = 1 if metric == "exact_match" else 0

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """The mean over answers in reach."""
        import torch
        import torch.nn.functional as F

        at_T = torch.arange(outputs.shape[-1], device=outputs.device)
        is_answer_BT = (at_T >= targets[:, 2:3]) & (at_T < targets[:, 3:4])
        logits_B2T = outputs.float().masked_fill(~is_answer_BT[:, None], -1e9)
        n_reached = (targets[:, :2] >= 0).sum().clamp_min(1)
        total = F.cross_entropy(
            logits_B2T.flatten(0, 1), targets[:, :2].flatten(), ignore_index=-1, reduction="sum"
        )
        return total / n_reached

    def outputs(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """See ``Objective.outputs``."""
        return model(inputs)

    def figures(
        self, outputs: Tensor, targets: NDArray[np.int64], sizes_B: NDArray[np.int64] | None
    ) -> Floats:
        """F1, exact match and one for each question."""
        scores_B2T = outputs.double().numpy()
        return np.array(
            [
                self._measures(scores, *(int(x) for x in row[2:]))
                for scores, row in zip(scores_B2T, targets, strict=True)
            ]
        )

    def answer(self, scores_2T: Floats, first: int, end: int, question: Question) -> str:
        """Return the best answer to ``question``, whose paragraph is words ``first..end``."""
        spans = words_of(question.context)[: end - first]
        if not spans:
            return ""
        start, last = self._best(scores_2T[:, first:end])
        return question.context[spans[start][0] : spans[last][1]]

    def quality(self, figures: Floats) -> Floats:
        """The mean of the measure."""
        mean: Floats = figures[..., self._figure] / figures[..., 2]
        return mean

    def standard_error(self, figures_NS: Floats) -> float:
        """Standard error of a mean, with one right and one wrong answer added.

        A perfect score is not certain, as in ``Classification``.
        """
        scores = np.concatenate([figures_NS[:, self._figure], [0.0, 1.0]])
        return float(scores.std(ddof=1)) / math.sqrt(len(scores))

    def _measures(self, scores_2T: Floats, first: int, end: int, index: int) -> list[float]:
        question = self._question(index)
        answer = self.answer(scores_2T, first, end, question)
        f1 = max(overlap(answer, right) for right in question.answers)
        exact = any(normalised(answer) == normalised(right) for right in question.answers)
        return [f1, float(exact), 1.0]

    def _best(self, scores_2T: Floats) -> tuple[int, int]:
        """First and last word of the best span of at most ``max_words``."""
        sums = scores_2T[0][:, None] + scores_2T[1][None, :]
        everywhere = np.ones_like(sums, dtype=bool)
        allowed = np.triu(everywhere) & np.tril(everywhere, self._max_words - 1)
        best = int(np.where(allowed, sums, -np.inf).argmax())
        return best // sums.shape[1], best % sums.shape[1]
