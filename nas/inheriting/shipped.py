"""The files of a run's checkpoint as bytes, for a cluster that does not see the run directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from nas.inheriting import PARENT, TASK

# Folders that are filled, and those of attempts that were killed, begin so.
STAGING = f".{PARENT}."


def packed(run: Path) -> dict[str, bytes]:
    """Return the files of the parent in ``run``, by name; none without a parent."""
    folder = run / PARENT
    if not folder.is_dir():
        return {}
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def unpack(files: Mapping[str, bytes], run: Path) -> None:
    """Write ``files`` as the parent in ``run`` on this machine, unless it is there.

    Raises:
        OSError: the run directory cannot be written.
    """
    folder = run / PARENT
    if not files or (folder / TASK).is_file():
        return
    staging = run / f"{STAGING}{os.getpid()}"
    try:
        staging.mkdir(parents=True)
        for name, content in files.items():
            (staging / name).write_bytes(content)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
