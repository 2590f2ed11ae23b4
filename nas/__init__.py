"""JouleNAS: neural architecture search for Transformers against measured joules.

The same jobs as the command line: ``search``, ``resume``, ``load`` (then ``.front()``),
``export``, ``calibrate``, ``load_checkpoint`` and ``measure``.
Importing this package imports neither torch, ray nor optuna.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

if TYPE_CHECKING:
    from nas.exporting.export import Exported
    from nas.measuring.call import MeasureOptions
    from nas.measuring.measure import CheckpointEnergy
    from nas.records.config import SearchConfig
    from nas.searching.calibration.calibration import CalibrationState
    from nas.searching.controller.session import Listener
    from nas.searching.from_checkpoint import SearchOptions
    from nas.store.driver import DriverOptions
    from nas.store.run import Run
    from search_spaces.plugins import Plugin
    from search_spaces.pretrained import Checkpoint

__all__ = [
    "calibrate",
    "export",
    "load",
    "load_checkpoint",
    "measure",
    "plugin",
    "recipe",
    "resume",
    "search",
]


def recipe(
    name: str, *, epochs: int | None = None, loadable: str | None = None, **changes: object
) -> SearchConfig:
    """The configuration of the recipe ``name``, with fields changed, fitted to this machine.

    ``loadable`` (``"transformers"``) restricts its space to networks that stock classes load.

    Raises:
        ValueError: there is no such recipe or field, or a value is not allowed.
    """
    from nas.searching.recipes import get_recipe

    return get_recipe(name, epochs=epochs, loadable=loadable, **changes)


def plugin(path: str | Path) -> Plugin:
    """The plug-in file at ``path``, loaded, for ``SearchConfig.plugins``; see docs/plugins.md.

    Raises:
        ValueError: the file cannot be read, or is no plug-in.
    """
    from search_spaces.plugins import name_plugin

    return name_plugin(path)


def calibrate(
    config: SearchConfig,
    labels: int | None = None,
    *,
    on_label: Callable[[CalibrationState], None] = lambda _: None,
) -> CalibrationState:
    """Measure untrained architectures on this machine, for later searches of ``config``.

    Afterwards ``labels`` members of its space have measured joules in the user's cache, by default
    as many as pay. ``on_label`` is called after each measurement.

    Raises:
        ValueError: the configuration or task is invalid, or ``labels`` is below 1.
        MeterError: no meter can measure the device.
    """
    from nas.searching import calibrating

    return calibrating.calibrate(config, labels, on_label=on_label)


def search(
    config: SearchConfig | None = None,
    to: str | Path | None = None,
    *,
    checkpoint: str | Path | None = None,
    task: str | Path | None = None,
    resume: bool = False,
    files: Iterable[str | Path] = (),
    listener: Listener | None = None,
    **options: Unpack[SearchOptions],
) -> Run:
    """Run the search of ``config``, or from ``checkpoint``, and store it in the folder ``to``.

    ``options`` are ``cuts`` and those of ``nas.store.driver.Driver``: ``workers`` trials run at a
    time, 2 by default, on a Ray of the search's own or on the cluster at ``address``; with 0 they
    run in this process, without Ray. A trial that takes longer than ``trial_timeout_s`` fails, and
    the search goes on. With ``log`` (``"tensorboard"``) trials are logged in the run's folder of
    that name, too. A trial takes ``gpus_per_trial`` of a GPU, by default such that every GPU of
    the cluster is used.
    ``files`` are those of yours that must not change while the run lasts, beside those that
    ``config`` names. With ``resume``, ``to`` is a run that must have been searching just so.

    In place of a configuration, ``checkpoint`` (a folder, a GGUF file, or a hub name) and the path
    ``task`` of a task file search the checkpoint's cuts, as ``nas search --from`` does; ``cuts``
    are its options (``nas.searching.from_checkpoint.CutOptions``). ``to`` is then by default the
    next folder ``runs/TASK-N``. See ``nas.searching.study.run_search`` for the errors raised.
    """
    from nas.searching.study import run_search
    from nas.store.driver import Driver

    cuts = options.pop("cuts", None)
    driver, paths = Driver().changed(**options), [Path(file) for file in files]
    if checkpoint is not None:
        from nas.searching.from_checkpoint import search_from

        if config is not None or task is None or resume:
            raise ValueError(
                "checkpoint must be given with task, without config and resume (nas.resume "
                "continues its run)"
            )
        return search_from(
            checkpoint, task, to, cuts or {}, driver=driver, files=paths, listener=listener
        )
    if config is None or to is None or task is not None or cuts is not None:
        raise ValueError("config and to must be given, or checkpoint and task")
    return run_search(config, Path(to), driver, resume=resume, files=paths, listener=listener)


def resume(
    run: str | Path,
    *,
    trials: int | None = None,
    refine: int | None = None,
    storage: str | None = None,
    files_at: str | None = None,
    task: str | Path | None = None,
    listener: Listener | None = None,
    **options: Unpack[DriverOptions],
) -> Run:
    """Go on with the run in the folder ``run``, which contains all that it needs.

    What is ``None`` is as the run was last driven. ``options`` are those of ``search``
    (``address`` may be ``"local"`` for a Ray of its own, ``workers`` 0 for none). See
    ``nas.searching.study.resume_search`` for the errors raised.
    """
    from nas.searching.study import resume_search

    return resume_search(
        Path(run),
        options,
        trials=trials,
        refine=refine,
        storage=storage,
        files_at=files_at,
        task=task,
        listener=listener,
    )


def load(run: str | Path, *, storage: str | None = None, files_at: str | None = None) -> Run:
    """The run in a folder; ``.front()`` is its Pareto front.

    ``storage`` is the URL of the database that its study is in and ``files_at`` where its files
    are. A database is connected to only where a call or the environment names its host.

    Raises:
        ValueError: the folder is not a run.
    """
    from nas.store.run_file import load as load_run

    return load_run(run, storage=storage, files_at=files_at)


def export(
    run: Run,
    trial: int,
    to: str | Path,
    *,
    joule_tolerance: float = 0.3,
    formats: Iterable[str] = ("safetensors",),
    quality_tolerance: float = 0.02,
) -> Exported:
    """Write trial ``trial`` of ``run`` as an artifact, verified in fresh processes.

    Joules measured again may differ by ``joule_tolerance``, relative. ``formats`` are further
    forms to write into the same folder (docs/export.md); one whose outputs are not the network's,
    as int8, may lose ``quality_tolerance`` of validation quality.

    Raises:
        ValueError: there is no such complete trial, ``to`` is not empty, or a format does not
            support the network.
        ExportError: the reloaded artifact's outputs, quality or joules differ, or a format's.
    """
    from nas.exporting.export import export as export_trial

    return export_trial(
        run,
        trial,
        Path(to),
        joule_tolerance=joule_tolerance,
        formats=formats,
        quality_tolerance=quality_tolerance,
    )


def load_checkpoint(source: str | Path) -> Checkpoint:
    """The pretrained checkpoint in a Hugging Face folder, or of a hub name ``owner/name``.

    Its ``architecture`` and ``workload`` are ours; ``build()`` is the network with its weights.

    Raises:
        ValueError: there is no such checkpoint, it is not supported, or a file is not valid.
    """
    from search_spaces.pretrained import load_checkpoint as load_from

    return load_from(source)


def measure(
    checkpoint: Checkpoint | str | Path,
    to: str | Path = "measurements.jsonl",
    **options: Unpack[MeasureOptions],
) -> CheckpointEnergy:
    """Measure the joules of a checkpoint in each precision that is real on the device.

    Records are appended to the file ``to``, and those in it are not measured again. ``options``
    are those of ``nas measure --from`` (``nas.measuring.call.MeasureOptions``).

    Raises:
        ValueError: the checkpoint or an option is not valid, or memory is short.
        MeterError: no meter covers the device.
    """
    from nas.measuring.call import measure_checkpoint

    return measure_checkpoint(checkpoint, Path(to), options)
