"""The options of ``nas search``."""

from __future__ import annotations

import argparse
from pathlib import Path

from nas.cli.options.common import add_device, add_json, add_meter, add_quiet, seconds
from nas.cli.options.limits import BUDGET_HELP, add_limits
from nas.cli.options.plugins import add_plugins
from nas.cli.options.storage import add_storage

EVALUATORS = ("scratch", "supernet")
# Of the recipe's trials, for sub-networks, which cost a second or less instead of a training.
SUPERNET_TRIALS = 8


def add_search_options(parser: argparse.ArgumentParser) -> None:
    """Add all of them."""
    parser.add_argument("recipe", nargs="?", help="a recipe, such as quickstart")
    parser.add_argument("--task", help="task or YAML file, in place of the recipe's")
    add_plugins(parser)
    parser.add_argument("--space", help="preset or YAML file, in place of the recipe's space")
    parser.add_argument(
        "--trials",
        type=int,
        help="candidates to train; those that --halving stops early count, those dropped do not",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        default=2,
        help="trials at a time (default: 2); 0: in this process, without Ray, where a trial that "
        "is killed or out of memory ends the search, too",
    )
    parser.add_argument("--seed", type=int, help="seed of sampling, weights and audit")
    parser.add_argument("--sampler", help="ehvi, tpe, nsga2 or random")
    parser.add_argument("--max-joules", help=BUDGET_HELP)
    add_limits(parser)
    parser.add_argument(
        "--objective",
        action="append",
        metavar="COST",
        help="minimise this beside joules: latency, params or memory (may be given several times)",
    )
    parser.add_argument(
        "--reference",
        metavar="A,J[,..]",
        help="corner that hypervolume is counted from, a value for each objective, such as "
        "0.5,1mJ (latency in ms); default: a tenth of the front's extent beyond its worst",
    )
    add_device(parser)
    add_meter(parser)
    parser.add_argument(
        "--measure-on",
        action="append",
        metavar="NAME[=DEVICE[/METER]]",
        help="measure on nodes with the resource joule_meter_NAME; given several times, on each, "
        "and the search is after the first one's joules (see nas front --device)",
    )
    parser.add_argument("--epochs", type=int, help="training epochs of each candidate")
    parser.add_argument(
        "--shift",
        type=int,
        metavar="PIXELS",
        help="move training images by up to so many pixels each time they are shown (default: 1)",
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="show half of the training images in a mirror, where left and right mean nothing",
    )
    parser.add_argument(
        "--halving",
        action="store_true",
        help="stop early what falls behind in accuracy and joules after 1/12, 3/12 or 9/12 of its "
        "epochs",
    )
    parser.add_argument(
        "--evaluator",
        help="scratch trains each candidate, supernet trains one network of which all candidates "
        f"are parts, then only finalists ({SUPERNET_TRIALS} times the recipe's trials)",
    )
    parser.add_argument(
        "--finalists",
        type=int,
        help="of --evaluator supernet: how many sub-networks are fine-tuned and measured at the "
        "end (default: 12)",
    )
    parser.add_argument(
        "--refine",
        type=int,
        metavar="N",
        help="after the search train and measure up to N times again, from other seeds, what may "
        "not belong on the front, or may belong there",
    )
    parser.add_argument(
        "--distill",
        action="store_true",
        help="candidates learn from the space's largest model, trained first",
    )
    parser.add_argument(
        "--teacher", type=Path, help="they learn from this exported artifact instead"
    )
    parser.add_argument(
        "--inherit",
        action="store_true",
        help="candidates that fit into the teacher start from its weights and train shortly",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="evaluate this architecture first, to compare with: .json as nas measure reads it, "
        "or an exported folder (may be given several times)",
    )
    parser.add_argument(
        "--warm-start",
        action="append",
        metavar="RUN",
        help="learn from an earlier run of the task, and try its front first (may be given "
        "several times)",
    )
    parser.add_argument(
        "--predictor",
        metavar="FILE",
        help="a file of nas predictor fit: the gate predicts joules by it from the first trial",
    )
    parser.add_argument(
        "--carbon-g-per-kwh", type=float, help="grams of CO2e per kWh (default: 445)"
    )
    add_storage(
        parser,
        "a database for the study (postgresql://...), or a place for weights, checkpoints and "
        "results (s3://bucket/prefix, /a/folder); may be given twice, default: the run folder",
    )
    parser.add_argument("--address", help="a running Ray cluster: auto, host:port, ray://...")
    parser.add_argument(
        "--gpus-per-trial",
        type=float,
        metavar="SHARE",
        help="of a GPU, what each trial takes, such as 0.5 (default: so that all GPUs are used)",
    )
    parser.add_argument(
        "--trial-timeout-s",
        type=seconds,
        metavar="S",
        help="seconds that a trial may take, waiting for storage not counted, before it fails",
    )
    parser.add_argument(
        "--log",
        metavar="TO",
        help="log every trial to tensorboard as well, in the run's folder of that name",
    )
    parser.add_argument("--run", type=Path, help="run folder (default: the next runs/RECIPE)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run if it has begun, so that the same line starts and goes on",
    )
    add_quiet(parser)
    add_json(parser)
