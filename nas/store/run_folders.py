"""Default folders of runs: ``runs/NAME-N``, numbered in the order that they were started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

RUNS = Path("runs")


def started_runs(name: str) -> list[Path]:
    """Return the default folders of a recipe's or task's started runs, in order."""
    return [path for _, path in _numbered(name) if (path / "run.json").is_file()]


def last_run(name: str) -> Path:
    """Return the folder of the last started run of ``name``.

    Raises:
        ValueError: there is none.
    """
    runs = started_runs(name)
    if not runs:
        raise ValueError(f"there is no run of {name} in {RUNS}{os.sep} to resume")
    return runs[-1]


@contextmanager
def new_run_folder(name: str, option: str) -> Iterator[Path]:
    """Create the next folder of ``name`` and yield it; ``option`` names another.

    It is created at once, so that two concurrent searches never share one, and removed if it
    stays empty.

    Raises:
        ValueError: it cannot be created.
    """
    folder = _reserved(name, option)
    try:
        yield folder
    finally:
        # Removal fails if the folder is not empty: then it is a run.
        with suppress(OSError):
            folder.rmdir()


def _numbered(name: str) -> list[tuple[int, Path]]:
    suffixes = ((path.name.removeprefix(f"{name}-"), path) for path in RUNS.glob(f"{name}-*"))
    return sorted((int(suffix), path) for suffix, path in suffixes if suffix.isdigit())


def _reserved(name: str, option: str) -> Path:
    number = max((n for n, _ in _numbered(name)), default=0)
    while True:
        number += 1
        folder = RUNS / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            if isinstance(error, FileExistsError) and RUNS.is_dir():
                continue
            raise ValueError(
                f"run folder must be writable, got {folder}: {error.strerror} "
                f"({option} names another)"
            ) from None
        return folder
