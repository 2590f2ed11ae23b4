"""Suggest the allowed name that is nearest to a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: object, allowed: Iterable[str]) -> str | None:
    """Return the allowed name that is most similar to ``name``, ``None`` if none is similar."""
    near = difflib.get_close_matches(str(name), list(allowed), n=1)
    return near[0] if near else None


def did_you_mean(name: object, allowed: Iterable[str]) -> str:
    """Return the end of an error, such as `` (did you mean 'digits'?)``; empty if none is near."""
    near = nearest(name, allowed)
    return "" if near is None else f" (did you mean {near!r}?)"
