"""Create the run directory of a new run."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterable
from pathlib import Path

from nas.core.files import write_json
from nas.core.names import MOST_TEXT, check_name
from nas.core.versions import Start
from nas.inheriting import PARENT, TASK
from nas.inheriting.shipped import STAGING
from nas.records.config import SearchConfig
from nas.records.fingerprints import fingerprints
from nas.store.cluster_address import name_address
from nas.store.driver import Driver
from nas.store.files_host import place_of
from nas.store.run import Run
from nas.store.run_file import CREATING, go_on, to_dict
from nas.tasks.base.metric import ACCURACY, Metric
from search_spaces.workload import SAMPLE, Workload

# Prefixes of files in the folder of a search that was killed before it wrote CREATING.
_BEFORE_CREATING = ("writer.lock", ".writer.lock.", f".{CREATING}.", STAGING)


def create(
    folder: Path,
    config: SearchConfig,
    meter: str,
    driver: Driver | None = None,
    files: Iterable[Path] = (),
) -> Run:
    """Create the run directory of a new run in one step; see ``begin``."""
    run = begin(folder, config, meter, driver, files)
    go_on(run)
    return run


def begin(
    folder: Path,
    config: SearchConfig,
    meter: str,
    driver: Driver | None = None,
    files: Iterable[Path] = (),
    metric: Metric = ACCURACY,
    workload: Workload | None = None,
) -> Run:
    """Begin a run directory; ``go_on`` completes it once its other files exist.

    The user's ``files`` must not change during the run. ``metric`` and ``workload`` are the
    task's; the run stores them in case the task's file is removed.

    Raises:
        ValueError: the folder exists and is not empty, or cannot be written.
    """
    check_new(folder)
    check_name("the name of a run folder", folder.resolve().name, most=MOST_TEXT)
    start = Start.now()
    run = Run(
        folder=folder,
        config=config,
        # Unique, since it names a study and a prefix of an object store, which runs share.
        name=f"{folder.name}-{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}"
        f"-{uuid.uuid4().hex[:12]}",
        started=start.started,
        versions=dict(start.versions),
        meter=meter,
        driver=driver or Driver(),
        fingerprints=fingerprints(config, files),
        metric=metric,
        unit=SAMPLE if workload is None else workload.unit,
        stored_workload=workload,
        starts=(start,),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name_address(run.driver.address)
        if config.files_at is not None:
            place_of(config.files_at)
        write_json(folder / CREATING, to_dict(run))
        (folder / "trials").mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"run folder must be writable, got {folder}: {error.strerror}") from None
    return run


def check_new(folder: Path) -> None:
    """Raise ``ValueError`` if ``folder`` exists and is not empty.

    What a search writes before its configuration does not count: its lock, which one that was
    killed leaves behind, and its checkpoint.
    """
    if folder.exists() and (
        not folder.is_dir() or not all(map(_is_before_creating, folder.iterdir()))
    ):
        raise ValueError(
            f"run folder must be new or empty, got {folder} (nas resume goes on with a run)"
        )


def _is_before_creating(path: Path) -> bool:
    is_parent = path.name == PARENT and (path / TASK).is_file()
    return is_parent or path.name.startswith(_BEFORE_CREATING)
