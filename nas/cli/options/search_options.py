"""Options of ``nas search``, and those that ``nas resume`` shares."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from nas.cli.options.checkpoint import add_from
from nas.cli.options.common import (
    add_device,
    add_json,
    add_meter,
    add_plugins,
    add_quiet,
    add_runtime,
    seconds,
)
from nas.cli.options.limits import BUDGET_HELP, add_limits
from nas.cli.options.storage import add_storage
from nas.searching.recipe_names import recipe_names

EVALUATORS = ("scratch", "supernet")
# Times the recipe's trials: a sub-network costs a second or less instead of a training.
SUPERNET_TRIALS = 8


def add_driver_options(parser: argparse.ArgumentParser, *, resumes: bool = False) -> None:
    """Add the options of the driver; a verb that ``resumes`` a run defaults to the run's."""
    default = " (default: the run's)" if resumes else ""
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=None if resumes else 2,
        help=f"trials at a time{default or ' (default: 2)'}; 0 runs them in this process, without "
        "Ray: a trial that is killed or runs out of memory then ends the search",
    )
    parser.add_argument(
        "--address",
        help=f"running Ray cluster: auto, host:port or ray://..., or local for a new one{default}"
        if resumes
        else "running Ray cluster: auto, host:port or ray://... (default: a new one here)",
    )
    parser.add_argument(
        "--gpus-per-trial",
        type=float,
        metavar="SHARE",
        help=f"GPUs per trial, such as 0.5{default or ' (default: all GPUs are used)'}",
    )
    parser.add_argument(
        "--trial-timeout-s",
        type=seconds,
        metavar="S",
        help=f"seconds until a trial fails; waiting for storage does not count{default}",
    )
    parser.add_argument(
        "--log",
        metavar="TO",
        help=f"also log every trial in the run folder, in this format: tensorboard{default}",
    )
    if not resumes:
        parser.add_argument(
            "--no-calibration",
            action="store_true",
            help="measure no untrained architectures, and use no labels of earlier searches",
        )
    parser.add_argument(
        "--refine",
        type=int,
        metavar="N",
        help="after the search, train and measure up to N times again from other seeds: the "
        "trials whose place on the front is least certain",
    )


def driver_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of ``nas.search`` and ``nas.resume`` that set the driver."""
    names = ("workers", "address", "trial_timeout_s", "log", "gpus_per_trial")
    return {name: getattr(arguments, name) for name in names}


class _Recipe(argparse.Action):
    """A recipe's name; the help lists all, which takes time and is not done for other words."""

    @property
    def help(self) -> str | None:
        """The text of ``nas search --help``."""
        return f"recipe: {', '.join(recipe_names())}"

    @help.setter
    def help(self, text: str | None) -> None:
        """Ignore what argparse sets."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store the name."""
        setattr(namespace, self.dest, values)


def hours(text: str) -> float:
    """Parse a number of hours above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"must be a number of hours > 0, got {text!r}")
    return value


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add every option of ``nas search``."""
    parser.add_argument("recipe", nargs="?", action=_Recipe)
    add_from(
        parser,
        "search the cuts of this pretrained checkpoint on --task: a folder in Hugging Face's "
        "format, a GGUF file, or owner/name on the hub; the run keeps its own copy",
    )
    parser.add_argument(
        "--no-fine-tune",
        action="store_true",
        help="with --from: use the checkpoint as it is; its head must be one for the task",
    )
    parser.add_argument(
        "--hours",
        type=hours,
        metavar="H",
        help="with --from, instead of --trials: as many trials as are expected to fit",
    )
    parser.add_argument("--task", help="task or YAML file, instead of the recipe's")
    add_plugins(parser)
    parser.add_argument(
        "--space",
        help="search space, a preset or YAML file, instead of the recipe's; with --from a YAML "
        "file of the genes to change",
    )
    parser.add_argument(
        "--loadable",
        action="store_true",
        help="propose only candidates that stock classes of transformers load, like "
        "loadable: transformers in a space file",
    )
    parser.add_argument(
        "--trials",
        type=int,
        help="candidates to train; those stopped early count, those dropped by the gate do not",
    )
    add_driver_options(parser)
    parser.add_argument("--seed", type=int, help="seed of sampling, initial weights and audit")
    parser.add_argument("--sampler", help="ehvi, tpe, nsga2 or random")
    parser.add_argument("--max-joules", help=BUDGET_HELP)
    add_limits(parser)
    parser.add_argument(
        "--objective",
        action="append",
        metavar="COST",
        help="also minimise latency, params or memory (repeatable)",
    )
    parser.add_argument(
        "--reference",
        metavar="A,J[,..]",
        help="reference point of the hypervolume, a value for each objective, such as 0.5,1mJ "
        "(latency in ms); default: a tenth of the front's extent beyond its worst values",
    )
    add_device(parser)
    add_meter(parser)
    add_runtime(parser)
    parser.add_argument(
        "--measure-on",
        action="append",
        metavar="NAME[=DEVICE[/METER]]",
        help="measure on nodes with the resource joule_meter_NAME (repeatable: one front per "
        "device; the search minimises the first one's joules)",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        help="training epochs of each candidate; with --from of the checkpoint and the finalists, "
        "other candidates take a third",
    )
    parser.add_argument(
        "--shift",
        type=int,
        metavar="PIXELS",
        help="augment: shift training images by up to this many pixels (default: 1)",
    )
    parser.add_argument(
        "--flip", action="store_true", help="augment: mirror half of the training images"
    )
    parser.add_argument(
        "--halving",
        action="store_true",
        help="early stopping: after 1/12, 3/12 and 9/12 of the epochs, stop a trial that another "
        "dominates in quality and joules",
    )
    parser.add_argument(
        "--evaluator",
        help="scratch trains each candidate; supernet trains one network with shared weights, "
        f"then only finalists ({SUPERNET_TRIALS} times the recipe's trials)",
    )
    parser.add_argument(
        "--finalists",
        type=int,
        help="candidates to train for longer at the end: with --evaluator supernet sub-networks "
        "(default: 12), with --from members of the front (default: 8)",
    )
    parser.add_argument(
        "--distill",
        action="store_true",
        help="distil candidates from the largest model of the space, trained first",
    )
    parser.add_argument(
        "--teacher", type=Path, help="distil candidates from this exported artifact"
    )
    parser.add_argument(
        "--inherit",
        action="store_true",
        help="start candidates that fit into the teacher from its weights, with fewer epochs",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="architecture to evaluate first and compare with: a .json file or an artifact's "
        "folder (repeatable)",
    )
    parser.add_argument(
        "--warm-start",
        action="append",
        metavar="RUN",
        help="use the trials of a prior run of the task, and try its front first (repeatable)",
    )
    parser.add_argument(
        "--predictor",
        metavar="FILE",
        help="energy predictor of nas predictor fit, used by the gate from the first trial",
    )
    parser.add_argument(
        "--carbon-g-per-kwh", type=float, help="grams of CO2e per kWh (default: 445)"
    )
    add_storage(
        parser,
        "database for the study (postgresql://...), or storage for weights, checkpoints and "
        "results (s3://bucket/prefix, /a/folder); repeatable, default: the run folder",
    )
    parser.add_argument("--run", type=Path, help="run folder (default: the next runs/RECIPE-N)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume the run if it has begun, so that one command starts and resumes",
    )
    add_quiet(parser)
    add_json(parser)
