"""``nas calibrate``: measure untrained architectures ahead of a search."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.options.common import (
    add_device,
    add_json,
    add_meter,
    add_plugins,
    add_runtime,
    named_plugins,
)
from nas.cli.output.tables import print_result

if TYPE_CHECKING:
    from nas.records.config import SearchConfig
    from nas.searching.calibration.calibration import CalibrationState

HELP = "measure untrained architectures, so that a later search predicts joules from the start"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument("recipe", nargs="?", help="recipe of the later search, such as quickstart")
    parser.add_argument("--task", help="task or YAML file, instead of the recipe's")
    parser.add_argument(
        "--space", help="search space, a preset or YAML file, instead of the recipe's"
    )
    add_plugins(parser)
    parser.add_argument(
        "--labels",
        type=int,
        metavar="N",
        help="measure until N members of the space have labels (default: 12 to 24, until the "
        "predictor's error on held-out labels is small)",
    )
    parser.add_argument("--seed", type=int, help="seed of the choice of architectures")
    add_device(parser)
    add_meter(parser)
    add_runtime(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb; return 1 if measuring failed."""
    import nas

    config = _config(arguments)

    def show(state: CalibrationState) -> None:
        if not arguments.quiet:
            error = "" if state.error is None else f", median error {state.error:.1%}"
            print(
                f"calibrated {state.n_labels}, references {state.n_references}{error}",
                file=sys.stderr,
            )

    state = nas.calibrate(config, arguments.labels, on_label=show)
    print_result(state.to_dict(), state.describe(), as_json=arguments.json)
    return 0 if state.failure is None else 1


def _config(arguments: argparse.Namespace) -> SearchConfig:
    from nas.records.config import SearchConfig
    from nas.searching.recipes import default_device, fitted, get_recipe
    from nas.tasks.registry import is_task_file
    from search_spaces.space.presets import get_space

    changes: dict[str, Any] = {
        name: value
        for name in ("task", "seed", "device", "meter", "runtime")
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.plugin:
        changes["plugins"] = named_plugins(arguments)
    if "task" in changes and is_task_file(changes["task"]):
        changes["task"] = str(Path(changes["task"]).resolve())
    if arguments.space is not None:
        changes |= {"space": get_space(arguments.space), "baselines": ()}
    if arguments.recipe is not None:
        return get_recipe(arguments.recipe, **changes)
    for name in ("task", "space"):
        if name not in changes:
            raise ValueError(f"name a recipe, or give --task and --space: {name} is missing")
    changes.setdefault("device", default_device())
    return fitted(SearchConfig(**changes, trials=1))
