"""``nas search``: run a search, or go on with one."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.limits import BUDGET_HELP, add_limits, limits_of, parse_reference
from nas.cli.options import add_device, add_json, add_meter, add_quiet
from nas.cli.plugins import add_plugins, named_plugins
from nas.cli.storage import add_storage, storage_of

if TYPE_CHECKING:
    from nas.searching.config import SearchConfig
    from nas.searching.run import Run
    from search_spaces.compression.realness import RealnessReport
    from search_spaces.space import SearchSpace

RUNS = Path("runs")
# Of the epochs, for candidates that start from the teacher's weights.
INHERIT_SHARE = 0.25
EVALUATORS = ("scratch", "supernet")
# Of the recipe's trials, for sub-networks, which cost a second or less instead of a training.
SUPERNET_TRIALS = 8


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "search", help="search architectures and keep the front in a run folder"
    )
    parser.add_argument("recipe", nargs="?", help="a recipe, such as quickstart")
    parser.add_argument("--task", help="task or YAML file, in place of the recipe's")
    add_plugins(parser)
    parser.add_argument("--space", help="preset or YAML file, in place of the recipe's space")
    parser.add_argument(
        "--trials",
        type=int,
        help="candidates to train; those that --halving stops early count, those dropped do not",
    )
    parser.add_argument("--workers", type=int, help="trials at a time (default: 2)", default=2)
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
        help="stop early what falls behind in accuracy and joules after 1/15, 1/5 or 3/5 of its "
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
        type=float,
        metavar="S",
        help="seconds that a trial may take, waiting included, before it counts as failed",
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


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    # Checked before anything slow, so that a typo costs no wait.
    if arguments.workers < 1:
        raise ValueError(f"workers must be >= 1, got {arguments.workers}")
    from nas.searching.run import Driver

    Driver(log=arguments.log, gpus_per_trial=arguments.gpus_per_trial)
    arguments.resume = arguments.resume and _has_begun(arguments)
    with _probing(arguments):
        config = _config(arguments)
        notes = () if arguments.quiet else _notes(arguments, config)
    name = arguments.recipe or Path(config.task).stem
    folder = arguments.run or _default_folder(name, arguments.resume)

    import nas
    from nas.cli.progress import SearchProgress

    if not arguments.quiet:
        print(
            f"searching {config.space.name} on {config.task}, {config.device}: {folder}",
            file=sys.stderr,
        )
        for line in (*notes, *_earlier_notes(arguments, config)):
            print(f"note: {line}", file=sys.stderr)
    with SearchProgress(quiet=arguments.quiet) as progress:
        done = nas.search(
            config,
            folder,
            workers=arguments.workers,
            address=arguments.address,
            trial_timeout_s=arguments.trial_timeout_s,
            log=arguments.log,
            gpus_per_trial=arguments.gpus_per_trial,
            resume=arguments.resume,
            files=_files(arguments),
            listener=progress,
        )
    return report(done, as_json=arguments.json)


@contextmanager
def _probing(arguments: argparse.Namespace) -> Iterator[None]:
    """What has kernels is asked of a node where the device is not this machine's.

    Only one that leads a cluster and trains nothing lacks it.
    """
    import torch

    device = arguments.device or ""
    is_here = not device.startswith("cuda") or torch.cuda.is_available()
    if arguments.address is None or is_here:
        yield
        return
    from nas.searching.measure_on import MeasuredDevice
    from nas.searching.offered import probe_here, probed_by
    from nas.searching.ray_shipping import call_there

    found: dict[Any, RealnessReport] = {}
    named = arguments.measure_on
    name = MeasuredDevice.parse(named[0]).name if named else None

    def ask(space: SearchSpace, device: str, batch_size: int) -> RealnessReport:
        key = (json.dumps(space.to_dict(), sort_keys=True), device, batch_size)
        if key not in found:
            found[key] = call_there(arguments.address, name, probe_here, space, device, batch_size)
        return found[key]

    with probed_by(ask):
        yield


def _files(arguments: argparse.Namespace) -> list[Path]:
    """The user's files that the configuration does not name."""
    from search_spaces.presets import PRESETS

    named = arguments.space is not None and arguments.space not in PRESETS
    return [Path(arguments.space)] if named else []


def _notes(arguments: argparse.Namespace, config: SearchConfig) -> tuple[str, ...]:
    """What a space of the user's own asks for and does not really get."""
    from nas.searching.offered import unreal_choices
    from search_spaces.presets import get_space

    if arguments.space is None:
        return ()
    return unreal_choices(get_space(arguments.space), config.device, config.batch_size)


def _earlier_notes(arguments: argparse.Namespace, config: SearchConfig) -> list[str]:
    """What a new search takes of earlier runs and a predictor."""
    if arguments.resume or not (config.warm_start or config.predictor):
        return []
    if config.measure_on:
        return ["which joules of earlier runs count is for the nodes that measure to say"]
    from nas.searching.earlier import gather
    from nas.searching.study import situation_of

    return gather(config, situation_of(config)).notes(config)


def _config(arguments: argparse.Namespace) -> SearchConfig:
    from dataclasses import replace

    from nas.cli.units import parse_joules
    from nas.searching.config import SearchConfig
    from nas.searching.halving import HalvingConfig
    from nas.searching.measure_on import MeasuredDevice
    from nas.searching.recipes import default_device, fitted, get_recipe
    from nas.searching.run import load
    from nas.tasks.registry import is_task_file
    from search_spaces.presets import get_space

    changes: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in (
            "task",
            "trials",
            "seed",
            "sampler",
            "device",
            "meter",
            "carbon_g_per_kwh",
            "predictor",
            "refine",
        )
        if getattr(arguments, name) is not None
    }
    changes |= storage_of(arguments.storage)
    if arguments.plugin:
        changes["plugins"] = named_plugins(arguments)
    if "task" in changes and is_task_file(changes["task"]):
        # Whole, so that workers and a resumed search find it from any folder.
        changes["task"] = str(Path(changes["task"]).resolve())
    if arguments.max_joules is not None:
        changes["max_joules"] = parse_joules(arguments.max_joules)
    changes |= limits_of(arguments)
    if arguments.objective is not None:
        changes["objectives"] = tuple(arguments.objective)
    if arguments.measure_on is not None:
        changes["measure_on"] = tuple(map(MeasuredDevice.parse, arguments.measure_on))
    if arguments.warm_start is not None:
        changes["warm_start"] = tuple(arguments.warm_start)
    if arguments.space is not None:
        changes["space"] = get_space(arguments.space)
        # The recipe's baselines are of its own space.
        changes["baselines"] = ()
    if arguments.resume and arguments.run is not None:
        # The run knows what it is: only what is asked for now is compared with it.
        config = load(arguments.run).config
        config = replace(config, **changes)
    elif arguments.recipe is not None:
        config = get_recipe(arguments.recipe, **changes)
    else:
        for name in ("task", "space", "trials"):
            if getattr(arguments, name) is None:
                raise ValueError(
                    f"name a recipe, or give --task, --space and --trials: {name} is missing"
                )
        changes.setdefault("device", default_device())
        config = fitted(SearchConfig(**changes))
    training = {
        field: value
        for field, value in (
            ("epochs", arguments.epochs),
            ("shift_pixels", arguments.shift),
            ("flip_images", arguments.flip or None),
        )
        if value is not None
    }
    config = replace(config, training=replace(config.training, **training))
    if arguments.halving and config.halving is None:
        config = replace(config, halving=HalvingConfig.for_epochs(config.training.epochs))
    if arguments.reference is not None:
        point = parse_reference(arguments.reference, config.goals.names)
        config = replace(config, reference=point)
    config = _with_supernet(config, arguments)
    return _with_baselines(_with_teacher(config, arguments), arguments.baseline)


def _with_supernet(config: SearchConfig, arguments: argparse.Namespace) -> SearchConfig:
    """``config`` with the evaluator that is asked for, or as it is."""
    from dataclasses import replace

    from nas.searching.supernet import SupernetConfig
    from search_spaces.nearest import did_you_mean

    name, finalists = arguments.evaluator, arguments.finalists
    if name not in (None, *EVALUATORS):
        hint = did_you_mean(name, EVALUATORS)
        raise ValueError(f"evaluator must be one of {', '.join(EVALUATORS)}, got {name!r}{hint}")
    supernet = None if name == "scratch" else config.supernet
    if name == "supernet" and supernet is None:
        supernet = SupernetConfig()
        if arguments.trials is None:
            config = replace(config, trials=config.trials * SUPERNET_TRIALS)
    if finalists is not None:
        if supernet is None:
            raise ValueError(f"finalists must go with --evaluator supernet, got {finalists}")
        supernet = replace(supernet, finalists=finalists)
    return replace(config, supernet=supernet)


def _with_baselines(config: SearchConfig, files: Sequence[Path]) -> SearchConfig:
    """``config`` with the architectures in ``files`` after its own baselines, each once."""
    from dataclasses import replace

    from nas.cli.architecture_files import read_named
    from nas.tasks.registry import get_task
    from search_spaces.encoding import encode

    if not files:
        return config
    workload = get_task(config.task).workload(config.batch_size)
    found = {baseline.hash: baseline for baseline in config.baselines}
    for path in files:
        for architecture in (named.architecture for named in read_named(path)):
            try:
                workload.check_fits(architecture)
                encode(architecture, config.space)
            except ValueError as error:
                raise ValueError(
                    f"baseline {path} must be a member of space {config.space.name!r} that task "
                    f"{workload.name} can run: {error}"
                ) from None
            found.setdefault(architecture.hash, architecture)
    return replace(config, baselines=tuple(found.values()))


def _with_teacher(config: SearchConfig, arguments: argparse.Namespace) -> SearchConfig:
    """``config`` with the teacher that is asked for, or as it is."""
    from dataclasses import replace

    from nas.searching.config import LARGEST
    from nas.training.config import DistillConfig

    source: str | None
    if arguments.teacher is not None:
        # Whole, so that workers and a resumed search find it from any folder.
        source = str(arguments.teacher.resolve())
    elif arguments.distill or (arguments.inherit and config.teacher is None):
        source = LARGEST
    else:
        source = config.teacher
    training = config.training
    if source is not None and training.distill is None:
        training = replace(training, distill=DistillConfig())
    if arguments.inherit:
        recovery = training.recovery
        if recovery.inherit_share is None:
            training = replace(training, recovery=replace(recovery, inherit_share=INHERIT_SHARE))
    return replace(config, teacher=source, training=training)


def _has_begun(arguments: argparse.Namespace) -> bool:
    """Whether there is a run to go on with; a line that names no search can do nothing else."""
    if arguments.recipe is None and arguments.task is None:
        return True
    if arguments.run is None:
        return bool(_taken(arguments.recipe or Path(arguments.task).stem))
    # A folder of anything else is for the run's own check to refuse.
    return arguments.run.is_dir() and any(arguments.run.iterdir())


def _taken(name: str) -> list[Path]:
    """The default folders of earlier runs of a recipe or task, the last one last."""
    return sorted(
        (path for path in RUNS.glob(f"{name}-*") if path.name[len(name) + 1 :].isdigit()),
        key=lambda path: int(path.name[len(name) + 1 :]),
    )


def _default_folder(name: str, resume: bool) -> Path:
    taken = _taken(name)
    if resume:
        if not taken:
            raise ValueError(f"there is no run of {name} in {RUNS}{os.sep} to resume")
        return taken[-1]
    last = int(taken[-1].name[len(name) + 1 :]) if taken else 0
    return RUNS / f"{name}-{last + 1}"


def report(done: Run, *, as_json: bool) -> int:
    """Print what a search found; the exit code says whether it came to its end."""
    from nas.cli.account import render_account
    from nas.cli.front import render_json, render_table
    from nas.searching.summary import summarise

    front, summary = done.front(), summarise(done)
    if as_json:
        print(
            json.dumps(
                {
                    "run": str(done.folder),
                    "summary": summary.to_dict(),
                    "front": render_json(front),
                },
                allow_nan=False,
            )
        )
    else:
        print(render_table(front))
        print()
        print(render_account(summary, done.metric))
        print(
            f"\nNext: nas front {done.folder} --knee; nas export {done.folder} --knee --to model"
        )
    # A search that Ctrl-C cut short says so to scripts, though all it finished is kept.
    return 0 if summary.finished else 130
