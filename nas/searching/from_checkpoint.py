"""The configuration of a search from a checkpoint, and what its trials are expected to take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from nas.core.names import TORCH, runtime_names
from nas.core.plain_yaml import read_yaml
from nas.inheriting.adapt import check_untuned
from nas.inheriting.parent import Imported, imported, load_parent, parent_architecture, parent_on
from nas.records.config import CHECKPOINT, FINALISTS, CheckpointConfig, SearchConfig
from nas.searching.controller.available import Rows, space_for
from nas.searching.expected import Load, epochs_of, expected
from nas.searching.recipes import default_device, fitted
from nas.store.driver import Driver, DriverOptions
from nas.store.new_run import check_new
from nas.store.run_folders import new_run_folder
from nas.tasks.registry import get_task
from nas.training.config import DistillConfig, RecoveryConfig, TrainingConfig
from search_spaces.cost.kernels import rows_read
from search_spaces.pretrained.writing.stock import stock_refusals
from search_spaces.space import SearchSpace
from search_spaces.space.cuts import cuts_of, with_genes, with_plain_parent

if TYPE_CHECKING:
    from nas.searching.controller.session import Listener
    from nas.store.run import Run
    from nas.tasks.base import Task

TRIALS = 24
# Samples of a measured batch, as of a training step, and their outputs over a vocabulary.
_BATCH_SIZE, _MOST_OUTPUTS = 32, 1 << 26
# A third of the training orders cuts as all of it does, with a tau above 0.6 (docs/pretrained.md).
_EPOCHS, _SHARE = 3, 1 / 3
# A learning rate for fine-tuning at a width; narrower networks take larger ones in proportion.
_RATE, _WIDTH, _MOST_RATE = 5e-5, 768, 2e-3
_MAX_SPACE_BYTES = 100_000
_HOUR_S = 3600.0


class CutOptions(TypedDict, total=False):
    """Options of a search from a checkpoint; each has the default of ``nas search --from``.

    ``space`` is a YAML file of genes to change. ``hours`` sets ``trials`` to those that fit.
    ``fields`` are further fields of ``SearchConfig``, such as ``seed`` and ``max_joules``.
    """

    space: str | Path
    loadable: bool
    trials: int
    hours: float
    epochs: int
    is_fine_tuned: bool
    finalists: int
    fields: Mapping[str, Any]


class SearchOptions(DriverOptions, total=False):
    """Options of ``nas.search``: the driver's, and ``cuts`` of a search from a checkpoint."""

    cuts: CutOptions


@dataclass(frozen=True, slots=True)
class Plan:
    """Predicted seconds of a search from a checkpoint on this machine, and how many trials fit.

    ``parent_s`` fine-tunes the checkpoint, ``trial_s`` and ``longest_s`` are of a mean and of the
    largest candidate, ``finalist_s`` of one that is trained for all epochs. Measuring is included
    as the protocol's longest.
    """

    parent_s: float
    trial_s: float
    longest_s: float
    finalist_s: float

    def trials_within(self, hours: float, workers: int, finalists: int) -> int:
        """Return how many trials fit into ``hours`` beside the checkpoint and the finalists."""
        rounds = math.ceil(finalists / workers)
        left_s = hours * _HOUR_S - self.parent_s - rounds * self.finalist_s
        return max(0, int(left_s * workers / self.trial_s))


@contextmanager
def new_parent(source: str | Path, task: str, run: Path) -> Iterator[Imported]:
    """Copy the checkpoint at ``source`` into the new run folder; see ``imported``.

    Raises:
        ValueError: ``run`` is not new, or as ``imported``.
    """
    check_new(run)
    with imported(source, task, run) as parent:
        yield parent


def batch_size_of(task: Task) -> int:
    """Return the samples of a batch: fewer where their outputs would fill the memory."""
    workload, size = task.workload(1), _BATCH_SIZE
    if workload.predicts_tokens:
        n_outputs = workload.input_shape[0] * workload.n_classes
        while size > 1 and size * n_outputs > _MOST_OUTPUTS:
            size //= 2
    return size


def training_of(
    space: SearchSpace, batch_size: int, *, epochs: int | None = None, has_labels: bool = True
) -> TrainingConfig:
    """Return the training of the checkpoint on its task; candidates take a third of the epochs.

    Without labels the checkpoint's outputs are the task's own targets.
    """
    assert space.parent is not None
    rate = min(_MOST_RATE, _RATE * _WIDTH / space.parent.d_model)
    return TrainingConfig(
        epochs=_EPOCHS if epochs is None else epochs,
        batch_size=batch_size,
        learning_rate=rate,
        weight_decay=0.01,
        label_smoothing=0.0,
        shift_pixels=0,
        distill=DistillConfig(temperature=2.0, standardise=False) if has_labels else None,
        recovery=RecoveryConfig(inherit_share=_SHARE, share=_SHARE, learning_rate_factor=1.0),
    )


def config_from(
    parent: Imported,
    checkpoint: CheckpointConfig,
    *,
    space: str | Path | None = None,
    loadable: bool = False,
    epochs: int | None = None,
    **changes: Any,
) -> SearchConfig:
    """Return the configuration of a search from the checkpoint in ``parent``.

    The space has the checkpoint's cuts with the precisions and sparsities that are real on the
    device. ``space`` is a YAML file with genes that replace its own. The checkpoint itself is
    always a member and the first baseline.

    Raises:
        ValueError: the task's data are not valid, or a value is not allowed.
    """
    task = get_task(parent.task)
    device = changes.pop("device", None) or default_device()
    batch_size = changes.pop("batch_size", None) or batch_size_of(task)
    workload = task.workload(batch_size)
    architecture = parent_architecture(load_parent(parent.folder), workload, loadable=loadable)
    workload.check_fits(architecture)
    if not checkpoint.is_fine_tuned:
        check_untuned(parent_on(task, workload, parent.folder, architecture, seed=0))
    refusals = partial(stock_refusals, workload=workload) if loadable else None
    cuts = cuts_of(architecture, workload, refusals=refusals)
    rows: Rows = (rows_read(cuts, workload),)
    named = changes.get("runtime", ())
    if space is not None and not named:
        named = _with_file(cuts, Path(space)).runtime
    cuts, _ = space_for(cuts, device, rows, runtime_names(named) or (TORCH,), only_real=True)
    if space is not None:
        cuts = _with_file(cuts, Path(space))
    cuts = with_plain_parent(cuts)
    config = SearchConfig(
        task=parent.task,
        space=cuts,
        trials=changes.pop("trials", None) or TRIALS,
        batch_size=batch_size,
        device=device,
        protocol=changes.pop("protocol", "quick" if device == "cpu" else "screening"),
        training=training_of(
            cuts, batch_size_of(task), epochs=epochs, has_labels=not workload.is_embedding
        ),
        baselines=(architecture,),
        teacher=CHECKPOINT,
        checkpoint=checkpoint,
        **changes,
    )
    return fitted(config)


def search_from(
    checkpoint: str | Path,
    task: str | Path,
    to: str | Path | None,
    options: CutOptions,
    *,
    driver: Driver,
    files: Sequence[Path] = (),
    listener: Listener | None = None,
) -> Run:
    """Search the cuts of ``checkpoint`` on the task in the file ``task``; see ``nas.search``.

    Raises:
        ValueError: the checkpoint, the task or an option is not valid; nothing is left behind.
        Exception: see ``nas.searching.study.run_search``.
    """
    from nas.searching.study import run_search

    unknown = sorted(options.keys() - CutOptions.__annotations__.keys())
    if unknown:
        allowed = ", ".join(CutOptions.__annotations__)
        raise ValueError(f"cuts must have options of {allowed}, got {', '.join(unknown)}")
    if "hours" in options and "trials" in options:
        raise ValueError("hours and trials both set the number of trials: leave one out")
    space = options.get("space")
    settings = CheckpointConfig(
        source_of(checkpoint),
        is_fine_tuned=options.get("is_fine_tuned", True),
        finalists=options.get("finalists", FINALISTS),
    )
    with ExitStack() as stack:
        if to is None:
            folder = stack.enter_context(new_run_folder(Path(task).stem, "to"))
        else:
            folder = Path(to)
        parent = stack.enter_context(new_parent(checkpoint, str(task), folder))
        config = config_from(
            parent,
            settings,
            space=space,
            loadable=options.get("loadable", False),
            epochs=options.get("epochs"),
            trials=options.get("trials"),
            **options.get("fields", {}),
        )
        if "hours" in options:
            config = within_hours(config, plan_of(config), options["hours"], driver.workers)
        kept = [*files, *([] if space is None else [Path(space)])]
        return run_search(config, folder, driver, files=kept, listener=listener)


def source_of(named: str | Path) -> str:
    """Return the absolute path of a checkpoint, or its name on the hub."""
    return str(Path(named).resolve()) if Path(named).exists() else str(named)


def _with_file(space: SearchSpace, path: Path) -> SearchSpace:
    """Return ``space`` with the genes of the YAML file at ``path``."""
    if path.suffix not in (".yaml", ".yml"):
        raise ValueError(
            f"space must be a .yaml file of genes with a checkpoint, whose cuts it changes, got "
            f"{str(path)!r}"
        )
    try:
        data = read_yaml(path, max_bytes=_MAX_SPACE_BYTES)
        if not isinstance(data, Mapping):
            raise ValueError(f"must be a mapping of genes to lists, got {data!r}")
        return with_genes(space, {"name": space.name, **data})
    except ValueError as error:
        raise ValueError(f"space file {path}: {error}") from None


def plan_of(config: SearchConfig) -> Plan:
    """Predict what the search of ``config`` takes here, from a few training steps.

    Raises:
        ValueError: the task or the device does not exist.
    """
    from nas.training.timing import timed_step_s
    from predictors.measurement.protocol import get_protocol

    parent = config.space.parent
    assert parent is not None
    task = get_task(config.task)
    load = Load.of(task, config.batch_size)
    size = config.training.batch_size
    modelled_s = float(load.step_s([parent], size)[0])
    timed_s = timed_step_s(parent, load.workload, task, config.training, config.device)
    times = expected(config, load).scaled(timed_s / modelled_s)
    protocol = get_protocol(config.protocol)
    measure_s = protocol.max_repeats * protocol.window_s
    measure_s += protocol.warmup_s + protocol.idle_s + protocol.cooldown_s
    # At most: predictions rule out some.
    measure_s *= len(config.runtimes)
    steps = math.ceil(load.n_samples / size)
    whole = config.training.epochs
    longer = whole / epochs_of(config)
    return Plan(
        parent_s=timed_s * steps * whole,
        trial_s=times.mean_s + measure_s,
        longest_s=times.most_s + measure_s,
        finalist_s=times.mean_s * longer + measure_s,
    )


def plan_lines(config: SearchConfig, plan: Plan, hours: float | None, workers: int) -> list[str]:
    """Return the lines by which a search from a checkpoint says what it will take."""
    assert config.checkpoint is not None
    lines = [
        f"expected here: fine-tuning the checkpoint, if it must be, takes {_text(plan.parent_s)}, "
        f"a trial {_text(plan.trial_s)} ({_text(plan.longest_s)} at most), each of up to "
        f"{config.checkpoint.finalists} finalists {_text(plan.finalist_s)} (estimates: steps of "
        f"the checkpoint, scaled by operations; compiling not included)"
    ]
    if hours is not None:
        lines.append(f"{config.trials} trials fit into {hours:g} h, {max(1, workers)} at a time")
    return lines


def within_hours(config: SearchConfig, plan: Plan, hours: float, workers: int) -> SearchConfig:
    """Return ``config`` with as many trials as fit into ``hours``.

    Raises:
        ValueError: fewer than two fit: the checkpoint and one candidate.
    """
    assert config.checkpoint is not None
    n = plan.trials_within(hours, max(1, workers), config.checkpoint.finalists)
    if n < 2:
        raise ValueError(
            f"hours must leave time for two trials of about {_text(plan.trial_s)} beside the "
            f"checkpoint's {_text(plan.parent_s)} and the finalists, got {hours:g}: raise it, or "
            f"lower --epochs or --finalists"
        )
    return replace(config, trials=n)


def _text(seconds: float) -> str:
    if seconds < 1:
        return "less than 1 s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
