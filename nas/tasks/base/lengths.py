"""How much of a sample is padding and how much is cut, and which length would fit better.

Joules are measured at a task's full length, padding included: a length far above that of the data
prices work that nobody needs, one far below hides what the data say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# How lines about lengths begin.
OF_LENGTHS = ("padding: ", "cut: ", "left over: ", "rate: ")
# A share of padding that is worth a word, where a length of at most so much of it would do.
_MUCH_PADDING, _SHORTER = 0.5, 0.75
# A proposed length holds this share of samples whole.
_WHOLE = 0.98
# Proposals up to each of these are multiples of the number beside: kernels like such lengths.
_STEPS = ((8, 1), (32, 4), (math.inf, 8))


def summary_of(lengths_N: NDArray[Any], limit: float) -> dict[str, float]:
    """What ``length_notes`` needs of ``lengths_N``, before samples are cut at ``limit``."""
    lengths = np.asarray(lengths_N, dtype=np.float64)
    return {
        "limit": float(limit),
        "padding": float(1 - np.minimum(lengths, limit).mean() / limit),
        "cut": float((lengths > limit).mean()),
        "filled": float((lengths >= limit).mean()),
        "whole": float(np.quantile(lengths, _WHOLE, method="higher")),
        "longest": float(lengths.max()),
    }


def length_notes(
    summary: Mapping[str, float],
    key: str,
    limit: float,
    *,
    what: str,
    unit: str = "tokens",
    many_cut: float,
    step: float | None = None,
) -> list[str]:
    """Lines about much padding or many cut samples, each with a value of ``key`` that fits.

    ``what`` names samples in the plural; ``step`` is what proposals are multiples of.
    """
    proposal = _proposed(summary["whole"], step)
    fits = f"{key}: {proposal:g} holds {_WHOLE:.0%} of them whole"
    if proposal >= summary["longest"]:
        fits = f"{key}: {proposal:g} holds them all"
    lines = []
    if summary["padding"] > _MUCH_PADDING and proposal <= _SHORTER * limit:
        lines.append(
            f"padding: {_share(summary['padding'])} of what is read is padding up to {key} "
            f"({limit:g} {unit}), and joules are measured with it: {fits} ({what})"
        )
    if summary["filled"] > many_cut and summary["cut"] > 0:
        lines.append(
            f"cut: {summary['filled']:.0%} of the {what} fill {key} ({limit:g} {unit}) or are cut "
            f"there ({summary['cut']:.0%} are cut); {fits}"
        )
    return lines


def _proposed(length: float, step: float | None) -> float:
    if step is not None:
        # Without the error of a binary fraction.
        return round(math.ceil(length / step - 1e-9) * step, 6)
    whole = max(1, math.ceil(length))
    multiple = next(multiple for most, multiple in _STEPS if whole <= most)
    return math.ceil(whole / multiple) * multiple


def _share(share: float) -> str:
    """A share that is not rounded to all."""
    return f"{share:.0%}" if share < 0.995 else f"{share:.1%}"
