"""Tasks by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from nas.tasks.base import Task
from nas.tasks.embedded import Digits
from nas.tasks.text import TextClassification, TextFiles

TASKS: dict[str, Callable[[], Task]] = {"digits": Digits}


def get_task(name: str) -> Task:
    """The task called ``name``, or the text classification in the YAML file at that path.

    Raises:
        ValueError: there is no such task or file, or the file is not a task.
    """
    if is_task_file(name):
        return TextClassification(TextFiles.from_yaml(Path(name)))
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(
            f"task must be one of {', '.join(sorted(TASKS))} or a .yaml file, got {name!r}{hint}"
        )
    return TASKS[name]()


def is_task_file(name: str) -> bool:
    """Whether ``name`` is a path rather than the name of a task that comes with the project."""
    return Path(name).suffix in (".yaml", ".yml")
