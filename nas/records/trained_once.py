"""Records of what a run trains once: its teacher and its supernet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from nas.core.files import Place, as_written, read_json, write_json
from nas.core.plain import from_plain, to_plain
from search_spaces.architecture import Architecture

T = TypeVar("T")
TEACHER_FILE, SUPERNET_FILE = "teacher.json", "supernet.json"


@dataclass(frozen=True, slots=True)
class TeacherRecord:
    """A run's teacher and its cost.

    ``source`` is ``"largest"``, ``"supernet"`` (its largest member) or the artifact's folder.
    ``quality`` is of the fp32 network on the validation split. ``train_energy_j`` is ``None`` for
    an artifact, which some other run paid for, and for a supernet's member, which it is counted
    with; ``outputs_energy_j`` is ``None`` until its outputs are kept. ``tabulated`` says whether
    they are in a file; if not, the teacher runs beside each training step.
    """

    source: str
    architecture: Architecture
    params: int
    quality: float
    train_energy_j: float | None
    outputs_energy_j: float | None = None
    tabulated: bool = False

    @property
    def energy_j(self) -> float:
        """The joules that it cost this run."""
        return (self.train_energy_j or 0.0) + (self.outputs_energy_j or 0.0)


def read_record(folder: Place) -> TeacherRecord | None:
    """Return the record of the teacher in ``folder``, ``None`` before it is trained.

    Raises:
        ValueError: it is not as it was written.
    """
    return _read(TeacherRecord, folder / TEACHER_FILE)


def write_record(folder: Place, record: TeacherRecord) -> None:
    """Write the record of the teacher to ``folder``."""
    write_json(folder / TEACHER_FILE, to_plain(record))


@dataclass(frozen=True, slots=True)
class SupernetRecord:
    """A run's supernet and its cost.

    ``energy_j`` is of all of its training, interrupted parts and the largest member's outputs
    included; ``None`` where that cannot be known.
    """

    params: int
    epochs: int
    energy_j: float | None


def read_supernet(folder: Place) -> SupernetRecord | None:
    """Return the record of the supernet in ``folder``, ``None`` before it is trained.

    Raises:
        ValueError: it is not as it was written.
    """
    return _read(SupernetRecord, folder / SUPERNET_FILE)


def _read(cls: type[T], path: Place) -> T | None:
    if not path.is_file():
        return None
    with as_written(str(path)):
        return from_plain(cls, read_json(path), path.name)
