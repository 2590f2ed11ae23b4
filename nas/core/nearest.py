"""The allowed name that a mistyped one is nearest to, for errors."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: object, allowed: Iterable[str]) -> str | None:
    """The allowed name most like ``name``, ``None`` where none is much like it."""
    near = difflib.get_close_matches(str(name), list(allowed), n=1)
    return near[0] if near else None


def did_you_mean(name: object, allowed: Iterable[str]) -> str:
    """`` (did you mean 'digits'?)``, to put at an error's end; nothing where none is near."""
    near = nearest(name, allowed)
    return "" if near is None else f" (did you mean {near!r}?)"
