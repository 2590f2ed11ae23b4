"""Find recipes by name and fit them to the machine that will run them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from importlib.metadata import entry_points
from typing import Any

from nas.searching.config import SearchConfig
from search_spaces.nearest import did_you_mean

GROUP = "joulenas.recipes"


def recipe_names() -> list[str]:
    """Every recipe that installed packages register."""
    return sorted(entry.name for entry in entry_points(group=GROUP))


def get_recipe(name: str, **changes: Any) -> SearchConfig:
    """The configuration of ``name`` with ``changes``, fitted to what the device offers.

    ``device`` defaults to the first CUDA device where there is one.

    Raises:
        ValueError: there is no such recipe or field, or a value is not allowed.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        hint = did_you_mean(name, found)
        raise ValueError(f"recipe must be one of {', '.join(sorted(found))}, got {name!r}{hint}")
    make: Callable[[str], SearchConfig] = found[name].load()
    unknown = changes.keys() - {f.name for f in fields(SearchConfig)}
    if unknown:
        raise ValueError(f"search config has no field {', '.join(sorted(unknown))}")
    device = changes.get("device") or default_device()
    config = make(device)
    return fitted(replace(config, **{**changes, "device": device}))


def fitted(config: SearchConfig) -> SearchConfig:
    """``config`` with its space limited to what its device offers; see ``offered_space``.

    A resolution that is the task's own becomes ``None``, the one name that models have for it.
    """
    from nas.searching.offered import offered_space
    from nas.tasks.registry import get_task
    from search_spaces.kernels import rows_read

    workload = get_task(config.task).workload(config.batch_size)
    rows = (rows_read(config.space, workload),)
    space = offered_space(config.space, config.device, rows)
    if space.values("resolution") != (None,):
        space = space.for_samples_of(workload)
    return replace(config, space=space)


def default_device() -> str:
    """``cuda:0`` where torch sees one, else ``cpu``."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"
