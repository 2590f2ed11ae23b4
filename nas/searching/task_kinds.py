"""Kinds of tasks that a recipe supports, and recipes that fit a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from nas.tasks.base import Task
from search_spaces.workload import Kind

Recipe = TypeVar("Recipe", bound=Callable[..., Any])

_ATTRIBUTE = "task_kinds"
# Names of workload kinds in task files, if different.
_FILE_KINDS: Mapping[Kind, str] = {
    "image_classification": "images",
    "image_segmentation": "segmentation",
    "object_detection": "detection",
    "text_embedding": "embeddings",
}
# Workload kinds of task-file kinds, if different.
_WORKLOADS: Mapping[str, Kind] = {
    **{name: kind for kind, name in _FILE_KINDS.items()},
    "speech": "image_classification",
}


def for_kinds(*kinds: str) -> Callable[[Recipe], Recipe]:
    """Declare the kinds of tasks that a recipe supports, as task files name them."""

    def mark(recipe: Recipe) -> Recipe:
        setattr(recipe, _ATTRIBUTE, kinds)
        return recipe

    return mark


def kinds_of(recipe: Callable[..., Any]) -> tuple[str, ...]:
    """Return the kinds declared by ``for_kinds``, empty if the recipe supports all."""
    return tuple(getattr(recipe, _ATTRIBUTE, ()))


def kind_of(task: Task) -> str:
    """Return the kind of ``task`` as task files name it."""
    workload = task.workload(1).kind
    return task.kind or _FILE_KINDS.get(workload, workload)


def fits(recipe: Callable[..., Any], task: Task) -> bool:
    """Return whether ``recipe`` supports ``task``; without declared kinds it supports all."""
    kinds = kinds_of(recipe)
    if task.kind is not None or not kinds:
        return not kinds or kind_of(task) in kinds
    # A task without a kind of its own, such as a plug-in's, may be of any kind of its workload.
    return task.workload(1).kind in {_WORKLOADS.get(kind, kind) for kind in kinds}


def check_recipe(name: str, recipes: Mapping[str, Callable[..., Any]], task: Task) -> None:
    """Raise ``ValueError`` unless the recipe ``name`` supports ``task``.

    The message names those of ``recipes`` that do.
    """
    if fits(recipes[name], task):
        return
    alternatives = [
        other for other, make in sorted(recipes.items()) if kinds_of(make) and fits(make, task)
    ]
    suggestion = (
        f"use nas search {' or '.join(alternatives)}"
        if alternatives
        else "pass --task, --space and --trials without a recipe"
    )
    raise ValueError(
        f"recipe {name} is for tasks of kind {' or '.join(kinds_of(recipes[name]))}, and task "
        f"{task.name} is of kind {kind_of(task)}: {suggestion}"
    )
