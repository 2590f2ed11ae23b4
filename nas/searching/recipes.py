"""Recipes by name, fitted to their task and to the device."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from nas.core.nearest import did_you_mean
from nas.records.config import SearchConfig
from nas.searching.expected import Load, shortened
from nas.searching.fitting import check_fits, for_classes, for_task
from nas.searching.recipe_names import GROUP
from nas.searching.task_kinds import check_recipe
from nas.tasks.base import Task
from nas.tasks.registry import get_task, is_task_file

# Device files of GPUs that torch calls CUDA: NVIDIA's, Tegra's, AMD's, and those of WSL.
_GPU_FILES = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")


def get_recipe(
    name: str, *, epochs: int | None = None, loadable: str | None = None, **changes: Any
) -> SearchConfig:
    """Return recipe ``name`` with ``changes``, fitted to its task and to the device.

    ``device`` defaults to the first CUDA device if there is one, and ``epochs`` is the number for
    each trial. ``loadable`` restricts the space (``with_loadable``). The recipe's own space is
    adapted: patch sizes and resolutions that do not fit the task are removed or replaced. On
    CPUs, space and epochs are reduced so that training takes at most a minute
    (``nas.searching.expected``). ``recipe_notes`` lists these changes.

    Raises:
        ValueError: the recipe or a field does not exist, a value is not allowed, or the recipe
            does not support the task's kind.
    """
    recipes = _recipes(name)
    unknown = changes.keys() - {f.name for f in fields(SearchConfig)}
    if unknown:
        raise ValueError(f"search config has no field {', '.join(sorted(unknown))}")
    device = changes.get("device") or default_device()
    config = _with_epochs(recipes[name](device), epochs)
    config = replace(config, task=changes.get("task", config.task))
    task = get_task(config.task)
    check_recipe(name, recipes, task)
    if "space" not in changes:
        config = _adapted(config, task)
    config = replace(config, **{**changes, "device": device})
    return fitted(with_loadable(config, loadable))


def with_loadable(config: SearchConfig, loadable: str | None) -> SearchConfig:
    """Return ``config`` with the part of its space that ``loadable`` names; ``None`` keeps all.

    Baselines outside are left out.
    """
    if loadable is None:
        return config
    space = replace(config.space, loadable=loadable)
    baselines = tuple(each for each in config.baselines if space.contains(each))
    return replace(config, space=space, baselines=baselines)


def recipe_notes(name: str, config: SearchConfig, epochs: int | None = None) -> list[str]:
    """Return lines that explain how ``config`` differs from the recipe ``name``.

    ``epochs`` is the number the user set, ``None`` for the recipe's.
    """
    recipe = _with_epochs(_recipes(name)[name](config.device), epochs)
    if config.space.name != recipe.space.name:
        return []
    fitting = for_task(recipe.space, get_task(config.task).workload(config.batch_size))
    unfit: list[str] = []
    costly: list[str] = []
    for gene in recipe.space.domains:
        if gene.endswith(("precision", "sparsity")):
            continue
        steps = (recipe.space, fitting, config.space)
        before, fit, after = (_listed(space.values(gene)) for space in steps)
        if before != fit:
            unfit.append(f"{gene} [{fit}] in place of [{before}]")
        if fit != after:
            costly.append(f"{gene} [{after}] in place of [{fit}]")
    if config.training.epochs < recipe.training.epochs:
        costly.append(f"{config.training.epochs} epochs in place of {recipe.training.epochs}")
    lines = []
    if unfit:
        lines.append(f"recipe {name} is fitted to the task: {'; '.join(unfit)}")
    if costly:
        lines.append(
            f"recipe {name} is reduced, so that training takes a minute or less on two cores "
            f"(estimate): {'; '.join(costly)}; --space and --epochs set your own"
        )
    if recipe.baselines and not config.baselines:
        lines.append(f"the baseline of recipe {name} is left out: it does not fit")
    return lines


def _recipes(name: str) -> Mapping[str, Callable[[str], SearchConfig]]:
    """Return every recipe by its name; ``name`` must be one of them."""
    entries = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in entries:
        hint = did_you_mean(name, entries)
        raise ValueError(f"recipe must be one of {', '.join(sorted(entries))}, got {name!r}{hint}")
    loaded: dict[str, Callable[[str], SearchConfig]] = {}
    for other, entry in entries.items():
        try:
            loaded[other] = entry.load()
        except Exception:
            # A broken recipe of another package is an error only if requested.
            if other == name:
                raise
    return loaded


def _with_epochs(config: SearchConfig, epochs: int | None) -> SearchConfig:
    if epochs is None:
        return config
    return replace(config, training=replace(config.training, epochs=epochs))


def _adapted(config: SearchConfig, task: Task) -> SearchConfig:
    """Return ``config`` with a space that fits ``task``, and short training on CPUs."""
    space = for_task(config.space, task.workload(config.batch_size))
    baselines = tuple(b for b in config.baselines if space.contains(b))
    config = replace(config, space=space, baselines=baselines)
    if config.device != "cpu":
        return config
    short = shortened(config, Load.of(task, config.batch_size))
    baselines = tuple(b for b in baselines if short.space.contains(b))
    return replace(short, baselines=baselines)


def _listed(values: Iterable[object]) -> str:
    return ", ".join("null" if value is None else str(value) for value in values)


def fitted(config: SearchConfig) -> SearchConfig:
    """Return ``config`` with the part of its space that its device supports.

    The task's own resolution becomes ``None``, its only name in models. A space with ``loadable``
    keeps the values that a stock class supports.

    Raises:
        ValueError: members of the space cannot process the task's inputs, or no stock class
            supports one.
    """
    from nas.searching.controller.available import space_for
    from search_spaces.cost.kernels import rows_read

    if is_task_file(config.task) and not Path(config.task).is_file():
        # The search reports a missing task file.
        return config
    space = config.space
    workload = get_task(config.task).workload(config.batch_size)
    if space.values("resolution") != (None,):
        space = space.for_samples_of(workload)
    space = for_classes(space, workload)
    # Before the device's capabilities are queried, which is slow.
    check_fits(space, workload)
    rows = (rows_read(space, workload),)
    space, choices = space_for(space, config.device, rows, config.runtimes)
    return replace(config, space=space, runtime_choices=choices)


def default_device() -> str:
    """Return ``cuda:0`` if torch has a CUDA device, else ``cpu``."""
    if sys.platform == "linux" and not any(any(Path("/dev").glob(name)) for name in _GPU_FILES):
        # Importing torch to learn it takes seconds.
        return "cpu"
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
