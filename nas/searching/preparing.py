"""Preparation of a run before its trials: inputs, study, teacher, supernet."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from nas.core.files import Place, copy_file, write_array
from nas.core.names import first_line
from nas.core.retry import AwayError
from nas.evaluation.executor import Backend
from nas.evaluation.supernet_weights import prepare_supernet
from nas.evaluation.teacher import TeacherError, is_ready, prepare_teacher, read_progress
from nas.inheriting import PARENT
from nas.inheriting.shared_folder import SharedFolder, digests_of
from nas.records.config import EvaluationConfig, SearchConfig
from nas.searching.controller.sampler_by_name import BaseSampler
from nas.searching.controller.session import Listener
from nas.searching.gating.warm_start import WarmStart, load_warm_start
from nas.store.run import Run
from nas.store.storage import StudyStore, records_path
from nas.tasks.base import Task


@contextmanager
def undone(folder: Path, was_there: bool) -> Iterator[None]:
    """Restore ``folder``, empty or absent as before, if a new run cannot be created."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder)
        if was_there:
            folder.mkdir()
        raise


def fill(run: Run, task: Task, sampler: BaseSampler, warm_start: WarmStart) -> None:
    """Write whichever of inputs, study and warm start a run lacks.

    A run whose search was killed at its start lacks some of them. A missing study of a run with
    trials is lost, and is not created again.
    """
    folder, config = run.folder, run.config
    if load_warm_start(folder, config) is None:
        warm_start.save(folder)
    (folder / "trials").mkdir(exist_ok=True)
    if not run.inputs_path.is_file():
        if run.inputs_place.is_file():
            # Earlier trials were measured with these inputs.
            copy_file(run.inputs_place, run.inputs_path)
        else:
            save_inputs(task, config, run.inputs_path)
    if not run.inputs_place.is_file():
        _share_inputs(run)
    if not run.is_created or has_nothing(run):
        StudyStore.create(
            folder, config.storage, run.name, config.space, sampler, config.goals, exists_ok=True
        )


def has_study(run: Run) -> bool:
    """Return whether the run's study must exist; otherwise ``fill`` creates it."""
    return run.is_created and not has_nothing(run)


def open_study(run: Run, sampler: BaseSampler) -> StudyStore:
    """Open the study of a run."""
    config = run.config
    return StudyStore.load(
        run.folder, config.storage, run.name, config.space, sampler, config.goals
    )


def has_nothing(run: Run) -> bool:
    """Return whether the run has neither a study in its folder nor a trial."""
    if run.config.storage is not None or records_path(run.folder).is_file():
        return False
    places = {run.folder / "trials", run.trials_place}
    return not any(list(place.glob("*")) for place in places)


def _share_inputs(run: Run) -> None:
    """Copy the inputs to where workers read them."""
    if run.inputs_place != run.inputs_path:
        run.place.mkdir(parents=True, exist_ok=True)
        copy_file(run.inputs_path, run.inputs_place)


def share_parent(run: Run, section: EvaluationConfig) -> EvaluationConfig:
    """Copy the run's checkpoint to where workers read it; return ``section`` with its place.

    Without a checkpoint, and where workers read the run directory, there is nothing to copy.
    """
    if run.config.checkpoint is None or run.place == run.folder:
        return section
    own, shared = run.folder / PARENT, run.place / PARENT
    files = [path for path in own.iterdir() if path.is_file()]
    shared.mkdir(parents=True, exist_ok=True)
    for path in files:
        if not (shared / path.name).is_file():
            copy_file(path, shared / path.name)
    return replace(section, parent=SharedFolder(shared, digests_of(files)))


def make_teacher(run: Run, config: EvaluationConfig, backend: Backend, listener: Listener) -> None:
    """Train the run's teacher, unless it is ready."""
    folder = run.teacher_folder.resolve()
    if not is_ready(folder):
        report = listener.on_teacher
        _train("teacher", prepare_teacher, config, folder, backend, report)


def make_supernet(
    run: Run, config: EvaluationConfig, backend: Backend, listener: Listener
) -> None:
    """Train the run's supernet, unless it is ready; an interrupted training resumes."""
    if run.supernet() is None:
        folder, report = run.supernet_folder.resolve(), listener.on_supernet
        _train("supernet", prepare_supernet, config, folder, backend, report)


def _train(
    what: str,
    prepare: Callable[..., object],
    config: EvaluationConfig,
    folder: Place,
    backend: Backend,
    report: Callable[[int, int], None],
) -> None:
    def report_progress() -> None:
        progress = read_progress(folder)
        if progress is not None:
            report(*progress)

    try:
        # ``None``: each machine uses its own lock folder.
        backend.run(prepare, config, folder, None, while_waiting=report_progress)
    except AwayError:
        raise
    except Exception as error:
        raise TeacherError(f"the {what} could not be trained: {first_line(error)}") from error


def save_inputs(task: Task, config: SearchConfig, path: Path) -> None:
    """Save a batch of real training inputs, since constant ones would change the power."""
    write_array(path, task.measured_inputs(config.batch_size))
