"""From the arguments of ``nas search`` to the configuration of a search."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.options.common import named_plugins
from nas.cli.options.limits import limits_of, parse_reference
from nas.cli.options.search_options import EVALUATORS, SUPERNET_TRIALS
from nas.cli.options.storage import storage_of

if TYPE_CHECKING:
    from nas.inheriting.parent import Imported
    from nas.records.config import SearchConfig

# Options that set the field of ``SearchConfig`` with the same name.
_FIELDS = (
    *("task", "trials", "seed", "sampler", "device", "meter"),
    *("carbon_g_per_kwh", "predictor", "refine", "runtime"),
)
# Share of the epochs for candidates that start from the teacher's weights.
INHERIT_SHARE = 0.25


def config_of(arguments: argparse.Namespace, parent: Imported | None = None) -> SearchConfig:
    """Return the configuration: a recipe or a resumed run, changed by the arguments.

    ``parent`` is the checkpoint of a new search from one.

    Raises:
        ValueError: a value is not allowed, or it names something that does not exist.
    """
    from dataclasses import replace

    from nas.core.units import parse_joules
    from nas.records.config import SearchConfig
    from nas.records.device_names import MeasuredDevice
    from nas.records.rungs import HalvingConfig
    from nas.searching.recipes import default_device, fitted, get_recipe, with_loadable
    from nas.store.run_file import load
    from nas.tasks.registry import is_task_file
    from search_spaces.space.loadable import TRANSFORMERS
    from search_spaces.space.presets import get_space

    changes: dict[str, Any] = {
        name: value for name in _FIELDS if (value := getattr(arguments, name)) is not None
    }
    loadable = TRANSFORMERS if arguments.loadable else None
    changes |= storage_of(arguments.storage)
    if arguments.no_calibration:
        changes["calibration"] = False
    if arguments.plugin:
        changes["plugins"] = named_plugins(arguments)
    if "task" in changes and is_task_file(changes["task"]):
        # Absolute: workers and a resumed search may run in another folder.
        changes["task"] = str(Path(changes["task"]).resolve())
    if arguments.max_joules is not None:
        changes["max_joules"] = parse_joules(arguments.max_joules, "max_joules")
    changes |= limits_of(arguments)
    if arguments.objective is not None:
        changes["objectives"] = tuple(arguments.objective)
    if arguments.measure_on is not None:
        changes["measure_on"] = tuple(map(MeasuredDevice.parse, arguments.measure_on))
    if arguments.warm_start is not None:
        changes["warm_start"] = tuple(arguments.warm_start)
    if arguments.checkpoint is not None:
        # The run has its own task file and space.
        changes.pop("task", None)
    elif arguments.space is not None:
        changes["space"] = get_space(arguments.space)
        # The recipe's baselines belong to its own space.
        changes["baselines"] = ()
    if arguments.resume and arguments.run is not None:
        # Only the options of this command are compared with the run's configuration.
        config = load(arguments.run).config
        _check_source(arguments, config)
        config = with_loadable(replace(config, **changes), loadable)
    elif parent is not None:
        config = _config_from(arguments, parent, changes)
    elif arguments.recipe is not None:
        # The recipe adapts its trials to the epochs.
        config = get_recipe(
            arguments.recipe, epochs=arguments.epochs, loadable=loadable, **changes
        )
    else:
        for name in ("task", "space", "trials"):
            if getattr(arguments, name) is None:
                raise ValueError(
                    f"name a recipe, or give --task, --space and --trials: {name} is missing"
                )
        changes.setdefault("device", default_device())
        config = fitted(with_loadable(SearchConfig(**changes), loadable))
    training: dict[str, Any] = {
        "epochs": arguments.epochs,
        "shift_pixels": arguments.shift,
        "flip_images": arguments.flip or None,
    }
    training = {field: value for field, value in training.items() if value is not None}
    config = replace(config, training=replace(config.training, **training))
    if arguments.halving and config.halving is None:
        config = replace(config, halving=HalvingConfig.for_epochs(config.training.epochs))
    if arguments.reference is not None:
        point = parse_reference(arguments.reference, config.goals.names)
        config = replace(config, reference=point)
    config = _with_supernet(config, arguments)
    return _with_baselines(_with_teacher(config, arguments), arguments.baseline)


def _check_source(arguments: argparse.Namespace, config: SearchConfig) -> None:
    """Raise ``ValueError`` unless a resumed run has the checkpoint that ``--from`` names."""
    from nas.searching.from_checkpoint import source_of

    if arguments.checkpoint is None:
        return
    source = None if config.checkpoint is None else config.checkpoint.source
    if source != source_of(arguments.checkpoint):
        begun = "no checkpoint" if source is None else source
        raise ValueError(
            f"--from must be what run {arguments.run} was started from, {begun}, got "
            f"{arguments.checkpoint}"
        )


def _config_from(
    arguments: argparse.Namespace, parent: Imported, changes: dict[str, Any]
) -> SearchConfig:
    """Return the configuration of a new search from a checkpoint."""
    from nas.records.config import CheckpointConfig
    from nas.searching.from_checkpoint import config_from, source_of

    further = {} if arguments.finalists is None else {"finalists": arguments.finalists}
    checkpoint = CheckpointConfig(
        source_of(arguments.checkpoint), not arguments.no_fine_tune, **further
    )
    return config_from(
        parent,
        checkpoint,
        space=arguments.space,
        loadable=arguments.loadable,
        epochs=arguments.epochs,
        **changes,
    )


def _with_supernet(config: SearchConfig, arguments: argparse.Namespace) -> SearchConfig:
    """Return ``config`` with the requested evaluator."""
    from dataclasses import replace

    from nas.core.nearest import did_you_mean
    from nas.records.supernet import SupernetConfig

    if config.checkpoint is not None:
        return config
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
    """Return ``config`` with the distinct architectures in ``files`` after its own baselines."""
    from dataclasses import replace

    from nas.cli.options.architecture_files import read_named
    from nas.tasks.registry import get_task
    from search_spaces.space.encoding import encode

    if not files:
        return config
    workload = get_task(config.task).workload(config.batch_size)
    baselines = {baseline.hash: baseline for baseline in config.baselines}
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
            baselines.setdefault(architecture.hash, architecture)
    return replace(config, baselines=tuple(baselines.values()))


def _with_teacher(config: SearchConfig, arguments: argparse.Namespace) -> SearchConfig:
    """Return ``config`` with the requested teacher."""
    from dataclasses import replace

    from nas.records.config import LARGEST
    from nas.training.config import DistillConfig

    source: str | None
    if arguments.teacher is not None:
        # Absolute: workers and a resumed search may run in another folder.
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
