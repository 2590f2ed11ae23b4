"""The supernet of a run: trained once, stored in the run directory, sent to each worker once.

Files in ``supernet/``:

* ``supernet.safetensors``: the weights;
* ``supernet.json``: its size and cost, written last;
* ``progress.json``: the epoch and cost of its training so far;
* ``loop.safetensors``: the training checkpoint, removed at the end;
* ``teacher/``: the largest sub-network and its outputs on the training split, from which finalists
  learn (see ``nas.evaluation.teacher``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.core.files import Place, as_local, read_json, write_json
from nas.core.plain import to_plain
from nas.evaluation.teacher import keep_outputs
from nas.records.config import EvaluationConfig
from nas.records.trained_once import (
    SUPERNET_FILE,
    SupernetRecord,
    TeacherRecord,
    read_supernet,
    write_record,
)
from search_spaces.space.sampling import largest

if TYPE_CHECKING:
    from search_spaces.architecture import Architecture
    from search_spaces.models.supernet import Supernet
    from search_spaces.space import SearchSpace
    from search_spaces.workload import Workload

_WEIGHTS = "supernet.safetensors"
_PROGRESS, _LOOP, _TEACHER = "progress.json", "loop.safetensors", "teacher"


def teacher_of(folder: Place) -> Place:
    """Return the folder of the largest sub-network, stored as a teacher."""
    return folder / _TEACHER


def prepare_supernet(config: EvaluationConfig, folder: Place, lock_folder: Path | None) -> None:
    """Train the supernet of ``folder`` if it is missing; runs on a training worker."""
    import torch

    from nas.tasks.registry import get_task
    from nas.training.checkpoint import CheckpointManager
    from nas.training.loop import LoopOptions
    from nas.training.objective import objective_of
    from nas.training.supernet_loop import train_supernet
    from nas.training.weights import save_weights
    from predictors.measurement.accounting import EnergySpan
    from predictors.measurement.exclusive import DeviceLock
    from search_spaces.models.device import use_device
    from search_spaces.models.supernet import Supernet

    assert config.supernet is not None
    if read_supernet(folder) is not None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    use_device(config.device)
    if config.device == "cpu":
        # One thread, as for candidates, so that joules are comparable.
        torch.set_num_threads(1)
    lock = DeviceLock(lock_folder, config.device)
    task = get_task(config.task)
    workload = task.workload(config.batch_size)
    recipe = config.supernet.recipe
    epochs = recipe.epochs(config.training)
    # Epochs that are repeated after an interruption count towards the cost, too.
    earlier_j = spent_before(folder)
    supernet = Supernet.seeded(config.space, workload, config.seed)
    with EnergySpan(config.device) as span:

        def spent_j() -> float | None:
            lap_j = span.lap()
            return None if lap_j is None or earlier_j is None else earlier_j + lap_j

        def write_progress(epoch: int, _: float) -> None:
            progress = {"epoch": epoch, "epochs": epochs, "energy_j": spent_j()}
            write_json(folder / _PROGRESS, progress)

        train_supernet(
            supernet,
            task.split("train"),
            config.training,
            recipe,
            seed=config.seed,
            objective=objective_of(task, workload),
            options=LoopOptions(
                config.device, lock.shared, CheckpointManager(folder / _LOOP), write_progress
            ),
        )
        save_weights(supernet, folder / _WEIGHTS)
        with lock.shared():
            _write_teacher(supernet, config, teacher_of(folder))
        energy_j = spent_j()
    record = SupernetRecord(
        params=sum(parameter.numel() for parameter in supernet.parameters()),
        epochs=epochs,
        energy_j=energy_j,
    )
    write_json(folder / SUPERNET_FILE, to_plain(record))
    (folder / _LOOP).unlink(missing_ok=True)


def spent_before(folder: Place) -> float | None:
    """Return the joules of all earlier training, ``None`` if unknown."""
    path = folder / _PROGRESS
    return read_json(path)["energy_j"] if path.is_file() else 0.0


def _quality(supernet: Supernet, architecture: Architecture, config: EvaluationConfig) -> float:
    from nas.tasks.registry import get_task
    from nas.training.evaluate import evaluate
    from nas.training.objective import objective_of
    from search_spaces.models.extract import extract

    task = get_task(config.task)
    return evaluate(
        extract(supernet, architecture).eval(),
        task.split("validation"),
        batch_size=config.batch_size,
        objective=objective_of(task, supernet.workload),
        device=config.device,
    ).value


def _write_teacher(supernet: Supernet, config: EvaluationConfig, folder: Place) -> None:
    """Write the largest sub-network as a teacher, unless the search has a teacher already."""
    from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, save_weights
    from search_spaces.cost.counting import count
    from search_spaces.models.extract import extract

    if config.teacher is not None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    architecture = largest(config.space)
    write_json(folder / ARCHITECTURE, architecture.to_dict())
    write_json(folder / WORKLOAD, supernet.workload.to_dict())
    save_weights(extract(supernet, architecture), folder / WEIGHTS)
    tabulated = keep_outputs(config, folder)
    write_record(
        folder,
        TeacherRecord(
            source="supernet",
            architecture=architecture,
            params=count(architecture, supernet.workload).params,
            quality=_quality(supernet, architecture, config),
            train_energy_j=None,
            outputs_energy_j=0.0,
            tabulated=tabulated,
        ),
    )


@dataclass(frozen=True)
class SharedWeights:
    """A supernet's weights as arrays, which Ray's object store shares without copies.

    Instances with the same ``digest`` are equal, so that each worker rebuilds the supernet once.
    """

    digest: str
    arrays: Mapping[str, NDArray[Any]] = field(compare=False, repr=False)

    @classmethod
    def load(cls, folder: Place) -> SharedWeights:
        """Load the weights of the supernet in ``folder``.

        Raises:
            ValueError: the file is missing or corrupt.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = folder / _WEIGHTS
        try:
            with as_local(path) as local:
                arrays = load_file(local)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} must hold a supernet's weights: {error}") from None
        digest = hashlib.sha256()
        for name in sorted(arrays):
            digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
        return cls(digest.hexdigest(), arrays)


@lru_cache(maxsize=1)
def rebuilt(
    space: SearchSpace, workload: Workload, weights: SharedWeights, device: str
) -> Supernet:
    """Rebuild the supernet of ``weights``, once per process.

    Raises:
        RuntimeError: the weights belong to another space or workload.
    """
    import torch

    from search_spaces.models.supernet import Supernet

    with torch.device("meta"):
        supernet = Supernet(space, workload)
    # Copied: arrays in the object store are read-only.
    tensors = {name: torch.tensor(array) for name, array in weights.arrays.items()}
    supernet.load_state_dict(tensors, assign=True)
    return supernet.to(device).eval()
