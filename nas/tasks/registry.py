"""Tasks by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from nas.tasks.base import Task
from nas.tasks.embedded import Digits

TASKS: dict[str, Callable[[], Task]] = {"digits": Digits}


def get_task(name: str) -> Task:
    """The task called ``name``.

    Raises:
        ValueError: there is no such task; the message lists those there are.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"task must be one of {', '.join(sorted(TASKS))}, got {name!r}{hint}")
    return TASKS[name]()
