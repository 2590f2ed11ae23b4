"""The checkpoint of a search in its run directory, which needs no other folder from then on.

``parent/`` contains the checkpoint in Hugging Face's format (``config.json``, safetensors, the
tokenizer and its other files), and ``task.yaml``, the task in its tokens or pixels.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from nas.core.names import first_line
from nas.inheriting import PARENT, TASK
from nas.inheriting.adapt import Adapted, adapted, style_for
from nas.inheriting.shipped import STAGING
from nas.inheriting.task_of_parent import task_of_parent
from nas.tasks.base import Task
from search_spaces.architecture import Architecture
from search_spaces.pretrained import Checkpoint, load_checkpoint
from search_spaces.pretrained.writing.folder import write_checkpoint
from search_spaces.workload import Workload


@dataclass(frozen=True, slots=True)
class Imported:
    """The folder of a parent in a run, and lines on what it changes in the task."""

    folder: Path
    notes: tuple[str, ...]

    @property
    def task(self) -> str:
        """Path of the task file."""
        return str(self.folder / TASK)


@contextmanager
def imported(source: str | Path, task: str, run: Path) -> Iterator[Imported]:
    """Copy the checkpoint at ``source`` and the task in the file ``task`` into a new run.

    The folder is complete or absent, whenever this is killed. It is removed if no run has begun
    when the context ends.

    Raises:
        ValueError: there is no such checkpoint, it cannot do the task, or ``run`` is not new or
            cannot be written; nothing is left behind.
    """
    checkpoint = load_checkpoint(source)
    described = task_of_parent(checkpoint, task)
    was_there, folder = run.exists(), run / PARENT
    staging = run / f"{STAGING}{os.getpid()}"
    try:
        for left in (folder, *run.glob(f"{STAGING}*")):
            shutil.rmtree(left, ignore_errors=True)
        try:
            staging.mkdir(parents=True)
            network = checkpoint.build()
            write_checkpoint(checkpoint, network, checkpoint.architecture, staging)
            described.write(staging)
            staging.rename(folder)
        except OSError as error:
            raise ValueError(
                f"run folder must be writable, got {run}: {first_line(error)}"
            ) from None
        del network
        yield Imported(folder.resolve(), described.notes)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not any((run / name).is_file() for name in ("run.json", "creating.json")):
            shutil.rmtree(folder, ignore_errors=True)
            if not was_there:
                # Others' files stay.
                with suppress(OSError):
                    run.rmdir()


def load_parent(folder: Path) -> Checkpoint:
    """Load the checkpoint of a run.

    Raises:
        ValueError: a file is missing or not valid.
    """
    return load_checkpoint(folder)


def parent_architecture(
    checkpoint: Checkpoint, workload: Workload, *, loadable: bool = False
) -> Architecture:
    """Return the architecture of the checkpoint's network on a task of ``workload``."""
    style = style_for(checkpoint, workload.kind, loadable=loadable)
    return replace(checkpoint.architecture, style=style)


def parent_on(
    task: Task, workload: Workload, folder: Path, architecture: Architecture, seed: int
) -> Adapted:
    """Build the network of the parent in ``folder`` on ``task``; see ``adapt.adapted``."""
    labels = task.about().get("classes", ())
    return adapted(load_parent(folder), architecture, workload, labels=labels, seed=seed)
