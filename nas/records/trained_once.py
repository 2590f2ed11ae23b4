"""Records of what a run trains once: its teacher and its supernet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from nas.core.files import Place, as_written, read_json, write_json
from nas.core.typed import check_plain_fields
from search_spaces.architecture import Architecture

TEACHER_FILE, SUPERNET_FILE = "teacher.json", "supernet.json"


@dataclass(frozen=True, slots=True)
class TeacherRecord:
    """What a run's teacher is and what it cost the run.

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
        """What it cost this run."""
        return (self.train_energy_j or 0.0) + (self.outputs_energy_j or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` reads it back."""
        return asdict(self) | {"architecture": self.architecture.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TeacherRecord:
        """Read ``to_dict``'s form.

        Raises:
            ValueError: keys are unknown or missing, or a value is not allowed.
        """
        allowed = {f.name for f in fields(cls)}
        if not isinstance(data, Mapping) or data.keys() != allowed:
            keys = ", ".join(sorted(allowed))
            raise ValueError(f"{TEACHER_FILE} must have exactly the keys {keys}")
        architecture = Architecture.from_dict(data["architecture"])
        record = cls(**(dict(data) | {"architecture": architecture}))
        check_plain_fields(record)
        return record


def read_record(folder: Place) -> TeacherRecord | None:
    """The record of the teacher in ``folder``, ``None`` before it is trained."""
    path = folder / TEACHER_FILE
    if not path.is_file():
        return None
    with as_written(str(path)):
        return TeacherRecord.from_dict(read_json(path))


def write_record(folder: Place, record: TeacherRecord) -> None:
    """Keep the record of the teacher in ``folder``."""
    write_json(folder / TEACHER_FILE, record.to_dict())


@dataclass(frozen=True, slots=True)
class SupernetRecord:
    """What a run's supernet is and what it cost the run.

    Accuracies are of its largest and smallest members on the validation split, in fp32.
    ``energy_j`` is of all of its training, interrupted parts and the largest member's outputs
    included; ``None`` where that cannot be known.
    """

    params: int
    epochs: int
    largest_quality: float
    smallest_quality: float
    energy_j: float | None

    @classmethod
    def from_dict(cls, data: Any) -> SupernetRecord:
        """Read what ``dataclasses.asdict`` wrote; ``ValueError`` where it is another form."""
        allowed = {f.name for f in fields(cls)}
        if not isinstance(data, Mapping) or data.keys() != allowed:
            keys = ", ".join(sorted(allowed))
            raise ValueError(f"{SUPERNET_FILE} must have exactly the keys {keys}")
        record = cls(**data)
        check_plain_fields(record)
        return record


def read_supernet(folder: Place) -> SupernetRecord | None:
    """The record of the supernet in ``folder``, ``None`` before it is trained."""
    path = folder / SUPERNET_FILE
    if not path.is_file():
        return None
    with as_written(str(path)):
        return SupernetRecord.from_dict(read_json(path))
