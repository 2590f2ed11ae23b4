"""``run.json``: read a run, check the changes of a resumed search, and write it again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.core.files import as_written, read_json, write_json
from nas.core.names import MOST_TEXT, check_name
from nas.core.nearest import nearest
from nas.core.plain import from_plain, to_plain
from nas.core.versions import Start
from nas.inheriting import PARENT, TASK
from nas.records.config import SearchConfig
from nas.records.fingerprints import check_unchanged
from nas.store.driver import Driver
from nas.store.recorded import Recorded, recorded
from nas.store.run import CONFIG, ENDED, Run
from nas.store.storage_host import name_storage, recordable
from nas.store.storage_url import without_password
from nas.tasks.base.metric import get_metric
from nas.tasks.registry import is_task_file
from search_spaces.workload import Workload

SCHEMA_VERSION = 1
# The name of the file until the new run's other files exist.
CREATING = "creating.json"
# Characters of a path.
_MOST_PATH = 4096
# Fields of a configuration that may differ when its run is resumed.
_MAY_CHANGE = ("trials", "refine", "storage", "files_at")
_KEYS = frozenset(
    {
        "schema",
        "config",
        "name",
        "started",
        "versions",
        "meter",
        "driver",
        "fingerprints",
        "metric",
        "unit",
        "starts",
        "workload",
    }
)


def is_run(folder: Path) -> bool:
    """Return whether ``folder`` contains a run, complete or not."""
    return _file_of(folder).is_file()


def _file_of(folder: Path) -> Path:
    """Return the file that ``load`` reads."""
    created = folder / CONFIG
    return created if created.is_file() else folder / CREATING


def load(path: str | Path, *, storage: str | None = None, files_at: str | None = None) -> Run:
    """Read a run directory; ``storage`` and ``files_at`` are new places of study and files.

    Raises:
        ValueError: the folder is not a run, its files are corrupt, or ``storage`` or ``files_at``
            is given and its study or its files are in the folder.
    """
    run = _load(path)
    name_storage(storage)
    config = replace(
        run.config,
        storage=run.config.storage if storage is None else storage,
        files_at=run.config.files_at if files_at is None else files_at,
    )
    _check_same_kind(run, config)
    return replace(run, config=config)


def _load(path: str | Path) -> Run:
    folder = Path(path)
    if not is_run(folder):
        raise ValueError(
            f"run must be the folder of a search, with {CONFIG} in it, got {path}{_near(folder)}"
        )
    path_of_run = _file_of(folder)
    data = read_json(path_of_run)
    if not isinstance(data, dict) or data.keys() != _KEYS:
        raise ValueError(f"{path_of_run} must have exactly the keys {', '.join(sorted(_KEYS))}")
    if data["schema"] != SCHEMA_VERSION:
        raise ValueError(
            f"{path_of_run} must have schema {SCHEMA_VERSION}, got {data['schema']!r}"
        )
    for name in ("name", "started", "meter", "unit"):
        check_name(f"{path_of_run}: {name}", data[name], most=MOST_TEXT)
    if data["name"] in ("", ".", "..") or "/" in data["name"]:
        # It names a folder below ``files_at``.
        raise ValueError(f"{path_of_run}: name must be a plain one, got {data['name']!r}")
    for name in ("versions", "fingerprints"):
        table = data[name]
        if not isinstance(table, dict):
            raise ValueError(f"{path_of_run}: {name} must be a table of texts")
        for text in (*table, *table.values()):
            check_name(f"{path_of_run}: {name}", text, most=_MOST_PATH)
    if isinstance(data["config"], dict):
        check_name(f"{path_of_run}: task", data["config"].get("task"), most=_MOST_PATH)
    with as_written(str(path_of_run)):
        return Run(
            folder=folder,
            config=_in_its_folder(_recorded(SearchConfig.from_dict(data["config"])), folder),
            name=data["name"],
            started=data["started"],
            versions=data["versions"],
            meter=data["meter"],
            driver=_read_driver(data["driver"]),
            fingerprints=data["fingerprints"],
            metric=get_metric(data["metric"]),
            unit=data["unit"],
            starts=tuple(from_plain(Start, start, "starts") for start in data["starts"]),
            stored_workload=None
            if data["workload"] is None
            else Workload.from_dict(data["workload"]),
        )


def _recorded(config: SearchConfig) -> SearchConfig:
    """Mark the hosts in ``config`` as untrusted: anyone may have written the file."""
    storage, files_at = recorded(config.storage), recorded(config.files_at)
    return replace(config, storage=storage, files_at=files_at)


def _in_its_folder(config: SearchConfig, folder: Path) -> SearchConfig:
    """Return ``config`` with the task file of its checkpoint, which is in the run directory."""
    if config.checkpoint is None:
        return config
    return replace(config, task=str((folder / PARENT / TASK).resolve()))


def _near(folder: Path) -> str:
    """Suggest the run of the nearest name beside the folder or in ``runs``."""
    parents = [folder.parent] if folder.parent != Path() else [folder.parent, Path("runs")]
    runs = {path.parent.name: path.parent for at in parents for path in at.glob(f"*/{CONFIG}")}
    near = nearest(folder.name, runs)
    return "" if near is None else f" (did you mean {str(runs[near])!r}?)"


def _read_driver(data: Any) -> Driver:
    driver = from_plain(Driver, data, "driver")
    return replace(driver, address=Recorded(driver.address))


def resumed(run: Run, config: SearchConfig, driver: Driver) -> Run:
    """Return ``run`` with the changes of a resumed search: trials, refine, places, driver.

    Raises:
        ValueError: another part of its configuration differs, or a file that it depends on.
    """
    if config.task != run.config.task and is_task_file(run.config.task):
        run = run.with_task(config.task)
    run.check_task()
    before, now = run.config.to_dict(), config.to_dict()
    changed = [key for key in before if key not in _MAY_CHANGE and before[key] != now[key]]
    if changed:
        raise ValueError(
            f"a resumed search must keep its configuration; {', '.join(changed)} of {run.folder} "
            f"differ from what is asked now"
        )
    _check_same_kind(run, config)
    check_unchanged(run.folder, run.config.space, run.fingerprints)
    return replace(run, config=config, driver=driver)


def _check_same_kind(run: Run, config: SearchConfig) -> None:
    """Raise ``ValueError`` if a study or files would move between the folder and elsewhere."""
    if (run.config.storage is None) != (config.storage is None):
        current = "in its folder" if run.config.storage is None else "in a database"
        raise ValueError(
            f"storage of run {run.folder} must stay what it is: its study is {current}, got "
            f"{config.storage and without_password(config.storage)!r}"
        )
    if (run.config.files_at is None) != (config.files_at is None):
        current = "in its folder" if run.config.files_at is None else str(run.place)
        raise ValueError(
            f"storage of run {run.folder} must stay what it is: its files are {current}, got "
            f"{config.files_at!r}"
        )


def go_on(run: Run) -> None:
    """Write the file and remove why the search ended before.

    It is the last file of a new run, so that ``run.json`` marks a complete one.
    """
    (run.folder / ENDED).unlink(missing_ok=True)
    write_json(run.folder / CONFIG, to_dict(run))
    (run.folder / CREATING).unlink(missing_ok=True)


def to_dict(run: Run) -> dict[str, Any]:
    """Return the content of the file."""
    config = run.config.to_dict()
    if config["storage"] is not None:
        config["storage"] = recordable(without_password(config["storage"]))
    return {
        "schema": SCHEMA_VERSION,
        "config": config,
        "name": run.name,
        "started": run.started,
        "versions": run.versions,
        "meter": run.meter,
        "driver": to_plain(run.driver),
        "fingerprints": dict(run.fingerprints),
        "metric": run.metric.key,
        "unit": run.unit,
        "starts": [to_plain(start) for start in run.starts],
        "workload": run.stored_workload and run.stored_workload.to_dict(),
    }
