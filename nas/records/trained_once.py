"""Records of networks that a run trains once: its teacher and its supernet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from nas.core.files import Place, as_written, read_json, write_json
from nas.core.plain import from_plain, to_plain
from search_spaces.architecture import Architecture

T = TypeVar("T")
TEACHER_FILE, SUPERNET_FILE = "teacher.json", "supernet.json"


@dataclass(frozen=True, slots=True)
class TeacherRecord:
    """Record of a run's teacher and its cost.

    ``source`` is ``"largest"``, ``"supernet"`` (its largest sub-network) or the artifact's folder.
    ``quality`` is of the fp32 network on the validation split. ``train_energy_j`` is ``None`` for
    an artifact, which another run trained, and for a sub-network, whose cost the supernet's record
    includes. ``outputs_energy_j`` is ``None`` until the outputs are computed. ``tabulated`` is
    whether a file contains the outputs; if not, the teacher runs at each training step.
    ``digests`` are the SHA-256 of its files in an object store, by name, from which each node
    fetches them once.
    """

    source: str
    architecture: Architecture
    params: int
    quality: float
    train_energy_j: float | None
    outputs_energy_j: float | None = None
    tabulated: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def energy_j(self) -> float:
        """Joules that the teacher cost this run."""
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
    """Record of a run's supernet and its cost.

    ``energy_j`` includes interrupted attempts and the outputs of the largest sub-network; it is
    ``None`` if unknown.
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
