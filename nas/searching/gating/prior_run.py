"""A prior run: its complete trials, and whether their figures are comparable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.core.plain import to_plain
from nas.inheriting import TASK
from nas.inheriting.shared_folder import Digests, digests_of
from nas.pareto.dominance import non_dominated_mask
from nas.records.config import LARGEST, SearchConfig
from nas.records.trial import judged
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture
from search_spaces.space.sampling import largest
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from nas.store.run import Run


@dataclass(frozen=True, slots=True)
class Conditions:
    """What joules depend on beside the model: joules under equal conditions are pooled.

    ``device`` is the device, with its runtime where that is not torch (``EnergyReading.place``).
    ``limits`` are those of the board in words, empty where it reports none.
    """

    device: str
    source: str
    protocol_hash: str
    workload: Workload
    limits: str = ""

    @classmethod
    def of(cls, reading: EnergyReading, workload: Workload) -> Conditions:
        """The conditions of a reading."""
        limits = reading.limits_text
        return cls(reading.place, reading.source, reading.protocol_hash, workload, limits)

    def differences(self, other: Conditions) -> str:
        """How ``other`` differs, in words; empty if it does not."""
        names = {
            "device": (self.device, other.device),
            "meter": (self.source, other.source),
            "protocol": (self.protocol_hash, other.protocol_hash),
            "workload": (self.workload.key, other.workload.key),
            "limits": (self.limits, other.limits),
        }
        return ", ".join(
            f"{name} {theirs!r}, here {ours!r}"
            for name, (ours, theirs) in names.items()
            if ours != theirs
        )


@dataclass(frozen=True, slots=True)
class PriorRunTrial:
    """A complete trial of a prior run; ``others`` are its readings in other runtimes.

    Raises:
        ValueError: the quality is outside [0, 1], or its error below 0.
    """

    architecture: Architecture
    quality: float
    quality_se: float
    reading: EnergyReading
    on_front: bool
    others: tuple[EnergyReading, ...] = ()

    @property
    def readings(self) -> tuple[EnergyReading, ...]:
        """The readings in all runtimes."""
        return (self.reading, *self.others)

    def __post_init__(self) -> None:
        """Refuse what no complete trial can have."""
        if not 0 <= self.quality <= 1:
            raise ValueError(f"quality must be in [0, 1], got {self.quality!r}")
        if not (math.isfinite(self.quality_se) and self.quality_se >= 0):
            raise ValueError(f"quality_se must be finite and >= 0, got {self.quality_se!r}")


@dataclass(frozen=True, slots=True)
class PriorRun:
    """A prior run: its path, name, workload and complete trials.

    ``qualities_differ_by`` is the reason why its qualities are not comparable with the search's,
    ``None`` if they are.
    """

    path: str
    name: str
    workload: Workload
    qualities_differ_by: str | None
    trials: tuple[PriorRunTrial, ...]

    @classmethod
    def of(cls, path: str, run: Run, config: SearchConfig) -> PriorRun:
        """Read ``run`` for a search of ``config``.

        Raises:
            ValueError: it has no complete trial.
            StorageError: its study cannot be opened.
        """
        # In a search by a supernet, only finalists have weights and figures of their own. From a
        # checkpoint they trained for longer than candidates do.
        is_from_checkpoint = run.config.checkpoint is not None
        complete = [
            r
            for r in judged(run.trials())
            if r.reading is not None and not (is_from_checkpoint and r.finalist_of is not None)
        ]
        if not complete:
            raise ValueError("the run must have a complete trial, and has none")
        mask = non_dominated_mask([r.objectives for r in complete], (True, False))
        trials = []
        for record, on_front in zip(complete, mask, strict=True):
            assert record.quality is not None and record.reading is not None
            trials.append(
                PriorRunTrial(
                    record.architecture,
                    record.quality,
                    record.quality_se or 0.0,
                    record.reading,
                    bool(on_front),
                    tuple(r for r in record.in_runtimes.values() if r is not record.reading),
                )
            )
        return cls(
            path, run.name, run.workload, _training_differs(config, run.config), tuple(trials)
        )


def measured_under(run: Run, conditions: Conditions) -> Run:
    """``run`` with the joules of its device under ``conditions``, or unchanged if none matches."""
    names = [requested.name for requested in run.config.measure_on]
    if len(names) < 2:
        return run
    for view in (run, *(run.on(name) for name in names[1:])):
        readings = [record.reading for record in view.trials() if record.reading is not None]
        if readings and Conditions.of(readings[0], run.workload) == conditions:
            return view
    return run


def _is_of_checkpoint(ours: SearchConfig, theirs: SearchConfig) -> bool:
    """Whether both searches start from the same checkpoint, or both from none."""
    if ours.checkpoint is None or theirs.checkpoint is None:
        return ours.checkpoint is theirs.checkpoint
    is_same_use = ours.checkpoint.is_fine_tuned == theirs.checkpoint.is_fine_tuned
    return (
        is_same_use
        and ours.space.parent == theirs.space.parent
        and _checkpoint_of(ours) == _checkpoint_of(theirs)
    )


def _checkpoint_of(config: SearchConfig) -> Digests:
    """Return the digests of the checkpoint in the run directory of ``config``, if it is there."""
    folder = Path(config.task).parent
    if not folder.is_dir():
        return ()
    return digests_of(path for path in folder.iterdir() if path.is_file() and path.name != TASK)


def _training_differs(ours: SearchConfig, theirs: SearchConfig) -> str | None:
    """Why qualities are not comparable, ``None`` if they are."""
    if theirs.supernet is not None:
        return "its networks started from a supernet"
    mine, other = to_plain(ours.training), to_plain(theirs.training)
    changed = [name for name in mine if mine[name] != other[name]]
    if changed:
        return f"{', '.join(changed)} of its training differ"
    if ours.teacher != theirs.teacher:
        return "its networks were distilled from another teacher"
    if not _is_of_checkpoint(ours, theirs):
        return "its networks started from another checkpoint"
    if ours.teacher == LARGEST and largest(ours.space) != largest(theirs.space):
        return "its teacher is the largest member of another space"
    return None
