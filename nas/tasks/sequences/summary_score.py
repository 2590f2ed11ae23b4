"""ROUGE-1, ROUGE-2 and ROUGE-L of summaries (Lin 2004), by the package ``rouge-score``.

The score of a text is the F1 of its words, pairs of words, or longest common subsequence with the
reference; the score of a split is the mean over texts. What a word is depends on the language:
``rouge-score`` itself reads ``a`` to ``z`` and digits alone.

Shape legend: N texts, S figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any, Literal, get_args

import numpy as np

from nas.tasks.sequences.pair_objective import Floats

METRICS = ("rougeL", "rouge1", "rouge2")
RougeTokens = Literal["english", "words", "characters"]
ROUGE_TOKENS: tuple[RougeTokens, ...] = get_args(RougeTokens)

_WORDS = re.compile(r"\w+")
_CHARACTERS = re.compile(r"\w")


class RougeScore:
    """ROUGE, a ``TextScore``: figures are the F1 of a text and a count of 1."""

    def __init__(self, name: str, tokens: RougeTokens) -> None:
        """``name`` is one of ``METRICS``, ``tokens`` one of ``ROUGE_TOKENS``.

        ``english`` is the package's own tokenization: lower case, ``a`` to ``z`` and digits, and
        stems by Porter (1980) of words of four letters or more. ``words`` are runs of letters and
        digits of any script without regard to case, ``characters`` single ones.

        Raises:
            ValueError: the package is not installed.
        """
        check_installed()
        from rouge_score.rouge_scorer import RougeScorer

        # With None the package uses its own.
        tokenizer = None if tokens == "english" else _Tokenizer(tokens)
        self._name = name
        self._scorer: Any = RougeScorer([name], use_stemmer=True, tokenizer=tokenizer)

    def figures(self, texts: Sequence[str], references: Sequence[str]) -> Floats:
        """Figures of texts, ``(N, 2)``."""
        rows = [
            (self._scorer.score(reference, text)[self._name].fmeasure, 1.0)
            for text, reference in zip(texts, references, strict=True)
        ]
        return np.array(rows, dtype=np.float64)

    def share(self, figures: Floats) -> Floats:
        """The mean over texts."""
        mean: Floats = figures[..., 0] / figures[..., 1]
        return mean


class _Tokenizer:
    """Tokens of other languages than English, in the form that the package accepts."""

    def __init__(self, tokens: RougeTokens) -> None:
        self._pattern = _WORDS if tokens == "words" else _CHARACTERS

    def tokenize(self, text: str) -> list[str]:
        """Cut a text."""
        return self._pattern.findall(text.casefold())


def check_installed() -> None:
    """Raise ``ValueError``, with the remedy, unless the package is installed."""
    if find_spec("rouge_score") is None:
        raise ValueError("kind summarisation needs: pip install 'joulenas[summaries]'")


def share_not_english(texts: Iterable[str]) -> float:
    """The share of letters in ``texts`` that the tokenization ``english`` drops."""
    letters = [char for text in texts for char in text if char.isalpha()]
    return sum(not char.isascii() for char in letters) / max(1, len(letters))
