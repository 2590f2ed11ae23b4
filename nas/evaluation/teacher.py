"""The teacher of a run: trained or imported once, stored in the run directory, read by all trials.

Files in ``teacher/``:

* ``architecture.json``, ``workload.json``, ``model.safetensors``: the network, as in artifacts;
* ``scores.safetensors``: the scores by which candidates are cut from it (``nas.training.scores``),
  where they start from its weights;
* ``outputs.safetensors``: its outputs for every training sample, if they fit into a file;
* ``teacher.json``: its size, quality and cost, written after the weights and again after the
  outputs, so that a resumed search repeats neither;
* ``progress.json``, ``loop.safetensors``: the epoch and the state of its training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any

from nas.core.files import Place, read_json, write_json
from nas.inheriting.shared_folder import SharedFolder, digests_of
from nas.records.config import CHECKPOINT, LARGEST, EvaluationConfig
from nas.records.spent import Spending
from nas.records.trained_once import TEACHER_FILE, TeacherRecord, read_record, write_record
from search_spaces.space.sampling import largest

if TYPE_CHECKING:
    from nas.inheriting.adapt import Adapted
    from nas.tasks.base import Task
    from nas.training.config import TrainingConfig
    from nas.training.fit import TrainedTeacher
    from nas.training.weights import Network
    from search_spaces.workload import Workload

_OUTPUTS, _PROGRESS, _SCORES = "outputs.safetensors", "progress.json", "scores.safetensors"
_LOOP = "loop.safetensors"


class TeacherError(RuntimeError):
    """The teacher could not be prepared; the message is one line."""


def check_artifact(folder: Path, workload: Workload) -> Network:
    """Load the network in ``folder``, which must be of the search's task.

    Raises:
        ValueError: the folder is no artifact or belongs to another task; one line that names it.
    """
    from nas.training.weights import load_network

    try:
        network = load_network(folder)
    except ValueError as error:
        raise ValueError(
            f"teacher must be the folder of an exported artifact, got {folder}: {error}"
        ) from None
    if network.workload.with_batch_size(workload.batch_size) != workload:
        raise ValueError(
            f"teacher must be of the task {workload.name} with inputs {workload.input_shape} and "
            f"{workload.n_classes} classes, got {folder} of {network.workload.name} with inputs "
            f"{network.workload.input_shape} and {network.workload.n_classes} classes"
        )
    return network


def read_progress(folder: Place) -> tuple[int, int] | None:
    """Return the current and the last epoch of a teacher's or supernet's training."""
    path = folder / _PROGRESS
    if not path.is_file():
        return None
    data = read_json(path)
    return int(data["epoch"]), int(data["epochs"])


def is_ready(folder: Place) -> bool:
    """Return whether candidates can learn from the teacher in ``folder``."""
    record = read_record(folder)
    return record is not None and record.outputs_energy_j is not None


def prepare_teacher(
    config: EvaluationConfig, folder: Place, lock_folder: Path | None
) -> TeacherRecord:
    """Create the missing files of the teacher in ``folder``; runs on a training worker."""
    import torch

    from predictors.measurement.accounting import EnergySpan
    from predictors.measurement.exclusive import DeviceLock
    from search_spaces.models.device import use_device

    config = config.here(has_weights=True)
    use_device(config.device)
    folder.mkdir(parents=True, exist_ok=True)
    if config.device == "cpu":
        # One thread, as for candidates, so that joules are comparable.
        torch.set_num_threads(1)
    lock = DeviceLock(lock_folder, config.device)
    record = read_record(folder)
    if record is None:
        record = _trained(config, folder, lock)
        write_record(folder, record)
    if record.outputs_energy_j is None:
        with EnergySpan(config.device) as span, lock.shared():
            keep_scores(config, folder)
            # Without distillation no student learns from the outputs of a checkpoint.
            tabulated = config.training.distill is not None and keep_outputs(config, folder)
        record = replace(
            record,
            outputs_energy_j=span.energy_j,
            tabulated=tabulated,
            digests=_digests_in(folder),
        )
        write_record(folder, record)
    return record


def _digests_in(folder: Place) -> dict[str, str]:
    """Return the digests of the teacher's files, if nodes must fetch them."""
    if isinstance(folder, Path):
        return {}
    from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD

    names = (ARCHITECTURE, WORKLOAD, WEIGHTS, _SCORES, _OUTPUTS)
    return dict(digests_of(folder / name for name in names if (folder / name).is_file()))


def needs_features(training: TrainingConfig) -> bool:
    """Whether students of ``training`` learn from hidden states, not from outputs alone."""
    return training.distill is not None and training.distill.feature_weight > 0


@lru_cache(maxsize=1)
def load_teacher(
    folder: Place, task: str, device: str, has_features: bool = True
) -> TrainedTeacher:
    """Load the teacher that ``prepare_teacher`` wrote, once per worker process.

    From an object store each node fetches it once.

    Raises:
        ValueError: a file is missing or corrupt.
        OSError: the store is unavailable.
    """
    from nas.tasks.registry import get_task
    from nas.training.distill import LiveTeacher, Teacher, TeacherTable
    from nas.training.fit import TrainedTeacher
    from nas.training.scores import load_scores
    from nas.training.weights import load_network

    record = read_record(folder)
    if record is None:
        raise ValueError(f"{folder / TEACHER_FILE} must exist, and does not")
    if record.digests:
        folder = SharedFolder(folder, tuple(record.digests.items())).here()
    network = load_network(folder)
    outputs: Teacher
    if record.tabulated:
        outputs = TeacherTable.load(folder / _OUTPUTS).to(device)
    else:
        train = get_task(task).split("train")
        outputs = LiveTeacher(network.model, train, device=device, has_features=has_features)
    scores = folder / _SCORES
    return TrainedTeacher(
        network.model.to(device),
        network.architecture,
        outputs,
        load_scores(scores) if scores.is_file() else None,
        is_parent=record.source == CHECKPOINT,
    )


def _trained(config: EvaluationConfig, folder: Place, lock: Any) -> TeacherRecord:
    """Train the space's largest architecture, or load the artifact, and write the network."""
    from nas.tasks.registry import get_task
    from nas.training.checkpoint import CheckpointManager
    from nas.training.distill import teacher_recipe
    from nas.training.evaluate import evaluate
    from nas.training.loop import LoopOptions, train
    from nas.training.objective import objective_of
    from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, save_weights
    from predictors.measurement.accounting import EnergySpan
    from search_spaces.cost.counting import count
    from search_spaces.models.build import build

    task = get_task(config.task)
    workload = task.workload(config.batch_size)
    objective = objective_of(task, workload)
    assert config.teacher is not None
    recipe: TrainingConfig | None = None
    with EnergySpan(config.device) as span, Spending(folder, config.device) as spending:
        if config.teacher == LARGEST:
            architecture = largest(config.space)
            model = build(architecture, workload, generator_seed=config.seed).to(config.device)
            # The search's learning rate suits the geometric mean of its widths.
            widths = config.space.values("d_model")
            ratio = architecture.d_model / geometric_mean(widths)
            recipe = teacher_recipe(config.training, ratio)
        elif config.teacher == CHECKPOINT:
            with lock.shared():
                parent = _parent_on(config, task, workload)
            architecture, model = parent.architecture, parent.network.to(config.device)
            if _is_tuned(config, workload, parent.new):
                recipe = replace(config.training, distill=None)
        else:
            network = check_artifact(Path(config.teacher), workload)
            architecture, model = network.architecture, network.model.to(config.device).eval()
        if recipe is not None:
            train(
                model,
                task.split("train"),
                recipe,
                seed=config.seed,
                objective=objective,
                options=LoopOptions(
                    config.device,
                    lock.shared,
                    CheckpointManager(folder / _LOOP, {recipe.epochs}),
                    on_epoch=_progress_writer(folder, recipe.epochs),
                ),
            )
        with lock.shared():
            validation = evaluate(
                model,
                task.split("validation"),
                batch_size=config.batch_size,
                objective=objective,
                device=config.device,
            )
    write_json(folder / ARCHITECTURE, architecture.to_dict())
    write_json(folder / WORKLOAD, workload.to_dict())
    save_weights(model, folder / WEIGHTS)
    (folder / _LOOP).unlink(missing_ok=True)
    return TeacherRecord(
        source=config.teacher,
        architecture=architecture,
        params=count(architecture, workload).params,
        quality=validation.value,
        train_energy_j=None if recipe is None else spending.total(span.energy_j).train_energy_j,
    )


def _progress_writer(folder: Place, epochs: int) -> Callable[[int, float], None]:
    return lambda epoch, _: write_json(folder / _PROGRESS, {"epoch": epoch, "epochs": epochs})


def _parent_on(config: EvaluationConfig, task: Task, workload: Workload) -> Adapted:
    """Build the network of the run's checkpoint on its task."""
    from nas.inheriting.parent import parent_on

    assert config.space.parent is not None
    folder = Path(config.task).parent
    return parent_on(task, workload, folder, config.space.parent, config.seed)


def _is_tuned(config: EvaluationConfig, workload: Workload, new: Sequence[str]) -> bool:
    """Whether the checkpoint is trained on the task: fresh parameters must be, texts should be."""
    assert config.checkpoint is not None
    return bool(new) or (workload.is_causal and config.checkpoint.is_fine_tuned)


def keep_scores(config: EvaluationConfig, folder: Place) -> None:
    """Write the scores by which candidates are cut from the teacher, where they are."""
    from nas.tasks.registry import get_task
    from nas.training.objective import objective_of
    from nas.training.scores import save_scores, score
    from nas.training.weights import load_network

    if config.training.recovery.inherit_share is None or (folder / _SCORES).is_file():
        return
    task, network = get_task(config.task), load_network(folder)
    space = config.space
    has_rank = any(
        value is not None
        for block in ("attention", "ffn")
        for value in space.values(f"{block}_rank")
    )
    scores = score(
        network.model,
        task.split("train"),
        objective_of(task, network.workload),
        device=config.device,
        has_rank=has_rank,
    )
    save_scores(scores, folder / _SCORES)


def keep_outputs(config: EvaluationConfig, folder: Place) -> bool:
    """Write the teacher's outputs if they fit into a table; return whether they do."""
    from nas.tasks.registry import get_task
    from nas.training.distill import TABLE_LIMIT_BYTES, table_bytes, tabulate
    from nas.training.weights import load_network

    split = get_task(config.task).split("train")
    model = load_network(folder).model
    size = table_bytes(model, split, config.training)
    if size is None or size > TABLE_LIMIT_BYTES:
        return False
    tabulate(model, split, config.training, device=config.device).save(folder / _OUTPUTS)
    return True
