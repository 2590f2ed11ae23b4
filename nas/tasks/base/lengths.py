"""The shares of samples that are padding or cut, and a length that fits them better.

Joules are measured at a task's full length, padding included: a length far above that of the data
measures work that nobody needs, one far below loses data.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# How lines about lengths begin.
OF_LENGTHS = ("padding: ", "cut: ", "left over: ", "rate: ", "steps: ")
# Warn of more padding than this share, where a length of at most ``_SHORTER`` of it would do.
_MUCH_PADDING, _SHORTER = 0.5, 0.75
# A proposed length holds this share of samples whole.
_WHOLE = 0.98
# Proposals up to each of these are multiples of the number beside: kernels like such lengths.
_STEPS = ((8, 1), (32, 4), (math.inf, 8))


def summary_of(
    lengths_N: NDArray[Any], limit: float, *, key: str, what: str, many_cut: float, **unit: Any
) -> dict[str, Any]:
    """Summarise ``lengths_N``, before samples are cut at ``limit``, as ``length_notes`` needs it.

    ``key`` is the option of the limit, ``what`` a plural noun for the samples; more than a share
    of ``many_cut`` that are cut is worth a warning. ``unit`` may have ``unit`` and ``step``.
    """
    lengths = np.asarray(lengths_N, dtype=np.float64)
    return {
        "key": key,
        "what": what,
        "many_cut": many_cut,
        **unit,
        "limit": limit,
        "padding": float(1 - np.minimum(lengths, limit).mean() / limit),
        "cut": float((lengths > limit).mean()),
        "filled": float((lengths >= limit).mean()),
        "whole": float(np.quantile(lengths, _WHOLE, method="higher")),
        "longest": float(lengths.max()),
    }


def length_notes(summary: dict[str, Any]) -> list[str]:
    """Lines about much padding or many cut samples, each with a value of the option that fits.

    Proposals are multiples of ``step``, by default a few tokens.
    """
    key, what = summary["key"], summary["what"]
    limit = f"{summary['limit']:g} {summary.get('unit', 'tokens')}"
    proposal = _proposed(summary["whole"], summary.get("step"))
    share = "them all" if proposal >= summary["longest"] else f"{_WHOLE:.0%} of them whole"
    fits = f"{key}: {proposal:g} holds {share}"
    lines = []
    if summary["padding"] > _MUCH_PADDING and proposal <= _SHORTER * summary["limit"]:
        # Not rounded up to all.
        padding = f"{summary['padding']:{'.0%' if summary['padding'] < 0.995 else '.1%'}}"
        lines.append(
            f"padding: {padding} of each input is padding up to {key} ({limit}), on average, and "
            f"joules include it: {fits} ({what})"
        )
    if summary["filled"] > summary["many_cut"] and summary["cut"] > 0:
        lines.append(
            f"cut: {summary['filled']:.0%} of the {what} fill {key} ({limit}) or are cut there "
            f"({summary['cut']:.0%} are cut); {fits}"
        )
    return lines


def _proposed(length: float, step: float | None) -> float:
    if step is not None:
        # Without the error of a binary fraction.
        return round(math.ceil(length / step - 1e-9) * step, 6)
    whole = max(1, math.ceil(length))
    multiple = next(multiple for most, multiple in _STEPS if whole <= most)
    return math.ceil(whole / multiple) * multiple
