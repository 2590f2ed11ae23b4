"""Decode outputs of connectionist temporal classification (CTC, Graves et al. 2006).

A network writes a token or the blank at each step. A text is the path's tokens with repeats
joined and blanks left out. ``prefix_beam_search`` sums over the paths of a text (Hannun et al.
2014, without a language model).

Shape legend: T steps, C classes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from search_spaces.workload import BLANK_TOKEN

Floats = NDArray[np.float64]
# By text: the log probabilities of its paths that end in the blank, and in its last token.
_Beams = dict[tuple[int, ...], tuple[float, float]]
# Tokens with less than this log probability at a step continue no text.
_LEAST = math.log(1e-4)


def greedy_path(logits_TC: Floats) -> list[int]:
    """Return the tokens of the likeliest path."""
    path_T = logits_TC.argmax(axis=1)
    changes_T = np.concatenate([[True], path_T[1:] != path_T[:-1]])
    return [int(token) for token in path_T[changes_T] if token != BLANK_TOKEN]


def prefix_beam_search(logits_TC: Floats, beam_size: int) -> list[int]:
    """Return the likeliest text, of ``beam_size`` that are followed at each step."""
    gains_TC = logits_TC - np.logaddexp.reduce(logits_TC, axis=1, keepdims=True)
    beams: _Beams = {(): (0.0, -math.inf)}
    for gains_C in gains_TC:
        tokens = [int(t) for t in np.flatnonzero(gains_C > _LEAST) if t != BLANK_TOKEN]
        following: _Beams = {}
        for text, (blank, last) in beams.items():
            either = _added(blank, last)
            _add(following, text, either + float(gains_C[BLANK_TOKEN]), -math.inf)
            if text:
                # The last token again, without a blank between, is the same text.
                _add(following, text, -math.inf, last + float(gains_C[text[-1]]))
            for token in tokens:
                start = blank if text and token == text[-1] else either
                _add(following, (*text, token), -math.inf, start + float(gains_C[token]))
        ranked = sorted(following.items(), key=lambda item: (-_added(*item[1]), item[0]))
        beams = dict(ranked[:beam_size])
    return list(next(iter(beams)))


def decode(logits_TC: Floats, beam_size: int) -> list[int]:
    """Return tokens by ``greedy_path`` for a ``beam_size`` of 1, else by beam search."""
    return greedy_path(logits_TC) if beam_size == 1 else prefix_beam_search(logits_TC, beam_size)


def steps_needed(tokens: list[int]) -> int:
    """Return the fewest steps that can write ``tokens``: repeats need a blank between."""
    return len(tokens) + sum(a == b for a, b in zip(tokens, tokens[1:], strict=False))


def _add(beams: _Beams, text: tuple[int, ...], blank: float, token: float) -> None:
    """Add to the probabilities of the paths of ``text``."""
    before = beams.get(text, (-math.inf, -math.inf))
    beams[text] = (_added(before[0], blank), _added(before[1], token))


def _added(a: float, b: float) -> float:
    """Add two probabilities that are logarithms."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))
