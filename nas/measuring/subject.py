"""What is measured of a checkpoint: its workloads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.core.files import read_json
from nas.core.names import printable
from nas.core.nearest import did_you_mean
from nas.tasks.base import Task
from nas.tasks.embeddings.task import Embeddings
from search_spaces.architecture import PRECISIONS, Precision
from search_spaces.workload import PHASES, Phase, Workload

if TYPE_CHECKING:
    from search_spaces.pretrained import Checkpoint

# A checkpoint may read 8,192 tokens, which most of its inputs do not have.
DEFAULT_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes to measure a checkpoint at; ``None`` and empty are the defaults.

    A ``task`` gives the name and the length of inputs, a ``workload`` the file of a workload that
    the checkpoint can read. ``image_size`` is height and width in pixels. ``phases`` are those of
    a language model, by default both.
    """

    task: Task | None = None
    workload: Path | None = None
    batch_size: int | None = None
    sequence_length: int | None = None
    image_size: tuple[int, int] | None = None
    phases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint at the length of its workloads, one for each phase.

    ``notes`` are the defaults that were chosen, one line each.
    """

    checkpoint: Checkpoint
    workloads: tuple[Workload, ...]
    notes: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """Where the architecture came from, for records."""
        name = printable(self.checkpoint.folder.name)
        return f"checkpoint {name} ({self.checkpoint.model_type})"


def subject_of(checkpoint: Checkpoint, sizes: Sizes) -> Subject:
    """Return what is measured of ``checkpoint`` at ``sizes``.

    Raises:
        ValueError: a size, phase, task or workload does not fit the checkpoint.
    """
    notes: list[str] = []
    if sizes.image_size is not None:
        checkpoint = checkpoint.with_image_size(*sizes.image_size)
    workload = checkpoint.workload
    if sizes.workload is not None:
        workload = _from_file(sizes.workload, checkpoint)
    elif sizes.task is not None:
        workload = _of_task(sizes.task, checkpoint)
    length = sizes.sequence_length
    if workload.is_image:
        if length is not None:
            raise ValueError(f"sequence_length must be left out for images, got {length}")
    else:
        longest = checkpoint.workload.input_shape[0]
        if length is None and sizes.workload is None:
            length = min(longest, DEFAULT_TOKENS)
            if length < longest:
                notes.append(
                    f"inputs have {length} of at most {longest} tokens; --sequence-length "
                    f"changes it"
                )
        checkpoint = checkpoint.with_length(length or workload.input_shape[0])
        workload = replace(workload, input_shape=checkpoint.workload.input_shape)
    if sizes.batch_size is not None:
        workload = workload.with_batch_size(sizes.batch_size)
    elif sizes.workload is None:
        notes.append("batches have 1 sample; --batch-size changes it")
    workload.check_fits(checkpoint.architecture)
    return Subject(checkpoint, _phases(workload, sizes.phases), tuple(notes))


def precision_named(name: str) -> Precision:
    """Return the precision called ``name``; raise ``ValueError`` if there is none."""
    for precision in PRECISIONS:
        if name == precision:
            return precision
    hint = did_you_mean(name, PRECISIONS)
    raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {name!r}{hint}")


def _phases(workload: Workload, names: Sequence[str]) -> tuple[Workload, ...]:
    if names:
        return tuple(workload.with_phase(_phase(name)) for name in dict.fromkeys(names))
    if workload.is_causal and workload.phase is None:
        return tuple(workload.with_phase(phase) for phase in PHASES)
    return (workload,)


def _phase(name: str) -> Phase:
    for phase in PHASES:
        if name == phase:
            return phase
    raise ValueError(f"phase must be one of {', '.join(PHASES)}, got {name!r}")


def _from_file(path: Path, checkpoint: Checkpoint) -> Workload:
    """Read a workload that the checkpoint's network can run."""
    try:
        workload = Workload.from_dict(read_json(path))
        own = checkpoint.workload
        for name in ("kind", "n_classes", "vocab_size"):
            value, allowed = getattr(workload, name), getattr(own, name)
            if value != allowed:
                raise ValueError(
                    f"{name} must be {allowed!r}, as of {checkpoint.folder.name}, got {value!r}"
                )
        if own.is_image and workload.input_shape != own.input_shape:
            raise ValueError(
                f"input_shape must be {own.input_shape}, as of {checkpoint.folder.name}, got "
                f"{workload.input_shape}"
            )
    except (ValueError, TypeError) as error:
        raise ValueError(f"workload {path}: {error}") from None
    return workload


def _of_task(task: Task, checkpoint: Checkpoint) -> Workload:
    """Return the checkpoint's workload on inputs of ``task``."""
    own = checkpoint.workload
    name = f"{own.name}-{task.name}"
    if isinstance(task, Embeddings) and not own.is_image:
        # Its texts are read without the checkpoint that its targets need.
        return replace(own, name=name)
    of_task = task.workload(1)
    if own.is_image:
        if of_task.input_shape != own.input_shape:
            raise ValueError(
                f"task {task.name} must have inputs {own.input_shape}, as of "
                f"{checkpoint.folder.name} (--image-size changes height and width), got "
                f"{of_task.input_shape}"
            )
        return replace(own, name=name)
    if of_task.is_image:
        raise ValueError(
            f"task {task.name} must have texts, which {checkpoint.folder.name} reads, got images"
        )
    return replace(own, name=name)
