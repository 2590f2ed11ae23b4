"""A run folder: where a search keeps all it knows.

``run.json`` the configuration, versions, meter, the driver's options and fingerprints of what the
search was begun with; ``study.journal`` the study, unless a storage
URL was given; ``inputs.npy`` the real inputs that are measured with; ``trials/N/`` the weights of
trial N and its record, written by the worker before the driver hears of it, and those of its
replicas; ``teacher/`` what candidates learn from, where they do; ``supernet/`` what they are parts
of, where they are, and ``finalists.json`` which of them were chosen; ``earlier.json`` and
``predictor.safetensors`` what was known beforehand, where anything was; ``writer.lock`` held by
the one driver (``nas.searching.sole_writer``).

What workers read and write (``inputs.npy``, ``trials/``, ``teacher/``, ``supernet/``) is at the
run's ``place``: its folder, or below ``SearchConfig.files_at`` in a folder of the run's name.
There is a copy here of what fronts are drawn from: the inputs, and results of replicas.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nas.files import Place, as_written, read_json, write_json
from nas.pareto.queries import Front
from nas.recorded import Recorded, recorded
from nas.searching.cluster_address import LOCAL, name_address
from nas.searching.config import SearchConfig
from nas.searching.files_host import place_of
from nas.searching.fingerprints import check_unchanged, fingerprints
from nas.searching.front_member import figures_of, member_of
from nas.searching.goals import Goals
from nas.searching.replicas import pooled
from nas.searching.storage_host import name_storage, recordable
from nas.searching.storage_url import without_password
from nas.searching.supernet_weights import SupernetRecord, read_supernet
from nas.searching.teacher import TeacherRecord, read_record
from nas.searching.trial import TrialRecord, judged
from nas.tasks.metric import ACCURACY, Metric, get_metric
from search_spaces.names import MOST_TEXT, check_name, printable
from search_spaces.nearest import did_you_mean, nearest
from search_spaces.workload import SAMPLE, Workload

SCHEMA_VERSION = 1
_CONFIG = "run.json"
_ENDED = "ended.json"
_FINALISTS = "finalists.json"
_INPUTS = "inputs.npy"
# Characters of a path.
_MOST_PATH = 4096
# Of a configuration, when its run is resumed.
_MAY_CHANGE = ("trials", "refine", "storage", "files_at")
# Of run.json, what runs made before there was such may lack.
_LATER = frozenset({"driver", "fingerprints", "metric", "unit"})
# What an address of Ray's client begins with, which is not a driver's own.
CLIENT = "ray://"
# What trials can be logged to beside the study, each in the run's folder of that name.
LOGS = ("tensorboard",)


@dataclass(frozen=True, slots=True)
class Driver:
    """How a search was last driven, so that going on with it needs no memory of that.

    ``address`` is that of a Ray cluster, ``"local"`` for one on this machine for the search alone.
    A trial that takes longer than ``trial_timeout_s`` fails; ``None`` is any time. ``log`` is one
    of ``LOGS``, to which trials are logged beside the study, or ``None``. A trial takes
    ``gpus_per_trial`` of a GPU; ``None`` is what uses all that a cluster has.
    """

    workers: int = 2
    address: str = LOCAL
    trial_timeout_s: float | None = None
    log: str | None = None
    gpus_per_trial: float | None = None

    def __post_init__(self) -> None:
        """Validate every field."""
        if isinstance(self.workers, bool) or not isinstance(self.workers, int) or self.workers < 1:
            raise ValueError(f"workers must be an integer >= 1, got {self.workers!r}")
        if not isinstance(self.address, str) or not self.address:
            raise ValueError(f"address must be that of a Ray cluster, got {self.address!r}")
        limit_s = self.trial_timeout_s
        if limit_s is not None and not (
            isinstance(limit_s, int | float) and 0 < limit_s < threading.TIMEOUT_MAX
        ):
            raise ValueError(f"trial_timeout_s must be seconds > 0, got {limit_s!r}")
        share = self.gpus_per_trial
        if share is not None and not (isinstance(share, int | float) and 0 < share <= 1):
            raise ValueError(f"gpus_per_trial must be in (0, 1], got {share!r}")
        if self.log is not None and self.log not in LOGS:
            raise ValueError(
                f"log must be {' or '.join(LOGS)}, got {self.log!r}{did_you_mean(self.log, LOGS)}"
            )


@dataclass(frozen=True, slots=True)
class Run:
    """One search on disk; ``fingerprints`` are those of ``nas.searching.fingerprints``.

    ``metric`` says what accuracies are of its task, ``unit`` what its joules are named per.
    ``seen_on`` is the further device by whose joules trials are seen, ``None`` for the one that
    the search was after (see ``on``).
    """

    folder: Path
    config: SearchConfig
    name: str
    started: str
    versions: dict[str, str]
    meter: str
    driver: Driver = Driver()
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    metric: Metric = ACCURACY
    unit: str = SAMPLE
    seen_on: str | None = None

    def on(self, device: str) -> Run:
        """This run by the joules of one of the devices that it was measured on, to be looked at.

        Limits and reference of the search are in joules and seconds of its first device: seen on
        another it has none.

        Raises:
            ValueError: it was not measured on such a device.
        """
        by_name = {asked.name: asked for asked in self.config.measure_on}
        if device not in by_name:
            allowed = f"one of {', '.join(by_name)}" if by_name else "left out: the run names none"
            raise ValueError(
                f"device of run {self.folder} must be {allowed}, got {device!r}"
                f"{did_you_mean(device, by_name)}"
            )
        if device == self.config.measure_on[0].name:
            return self
        config = replace(
            self.config,
            measure_on=(by_name[device],),
            max_joules=None,
            max_latency_s=None,
            reference=None,
        )
        return replace(self, config=config, seen_on=device)

    @property
    def measured_on(self) -> str | None:
        """The name of the device whose joules are shown, ``None`` where the search named none."""
        return self.config.measure_on[0].name if self.config.measure_on else None

    @property
    def task(self) -> str:
        """The task's name."""
        return self.config.task

    @property
    def workload(self) -> Workload:
        """What was measured."""
        from nas.tasks.registry import get_task

        self.config.load_plugins()
        return get_task(self.config.task).workload(self.config.batch_size)

    @property
    def stop_reason(self) -> str | None:
        """Why the search ended before its number of trials, ``None`` where it did not."""
        path = self.folder / _ENDED
        if not path.is_file():
            return None
        with as_written(str(path)):
            return printable(str(read_json(path)["reason"]))

    def end_early(self, reason: str) -> None:
        """Record that the search ends before its number of trials."""
        write_json(self.folder / _ENDED, {"reason": reason})

    def trials(self) -> list[TrialRecord]:
        """Every trial's record, by number; of one evaluated again, means over evaluations.

        Raises:
            StorageError: the study cannot be opened.
        """
        records = self._read()[0]
        if self.config.refine:
            records = [pooled(r, self.trial_folder(r.number)) for r in records]
        return self._seen(records)

    def records(self) -> list[TrialRecord]:
        """Every trial's record as the search ended it, by number.

        Raises:
            StorageError: the study cannot be opened.
        """
        return self._seen(self._read()[0])

    def _read(self) -> tuple[list[TrialRecord], dict[int, float]]:
        from nas.searching.storage import read_trials

        return read_trials(self.folder, self.config.storage, self.name)

    def _seen(self, records: list[TrialRecord]) -> list[TrialRecord]:
        return records if self.seen_on is None else [r.on(self.seen_on) for r in records]

    def ended_at_s(self) -> dict[int, float]:
        """When each trial ended, in seconds since 1970, by number.

        Raises:
            StorageError: the study cannot be opened.
        """
        return self._read()[1]

    def trial(self, number: int) -> TrialRecord:
        """One trial's record, which is that of the weights it keeps.

        Raises:
            ValueError: there is no such trial.
        """
        trials = {record.number: record for record in self.records()}
        if number not in trials:
            last = max(trials, default=None)
            allowed = "none yet" if last is None else f"0 to {last}"
            raise ValueError(f"trial must be one of run {self.folder} ({allowed}), got {number}")
        return trials[number]

    def front(self, limits: Goals | None = None) -> Front:
        """The complete trials that break no limit and that no other such trial dominates.

        ``limits``, by default the search's own, are asked of the trials; objectives are always
        the search's. Of a search by a supernet the trials are finalists, and before there are any
        sub-networks with inherited accuracies and joules that may be predicted; members say so.
        """
        goals = self.config.goals
        asked = goals if limits is None else replace(limits, costs=goals.costs, reference=None)
        workload = self.workload if self.config.supernet is not None else None
        kept = [r for r in judged(self.trials()) if goals.keeps(r) and asked.keeps(r)]
        return Front.of(
            [figures_of(record) for record in kept],
            goals.costs,
            # Of a hundred thousand trials a hundred may be shown.
            lambda at: member_of(
                kept[at],
                self.config.measured_device,
                workload,
                self.metric,
                self.unit,
                self.measured_on,
            ),
        )

    @property
    def place(self) -> Place:
        """Where workers read and write: the run folder, or where ``files_at`` says."""
        files_at = self.config.files_at
        return self.folder if files_at is None else place_of(files_at) / self.name

    @property
    def trials_place(self) -> Place:
        """Where trials keep their files, each in a folder of its number."""
        return self.place / "trials"

    def trial_folder(self, number: int) -> Path:
        """Where the run folder has what it has of trial ``number``."""
        return self.folder / "trials" / str(number)

    def weights_path(self, number: int) -> Place:
        """The trained fp32 weights of trial ``number``."""
        return self.trials_place / str(number) / "model.safetensors"

    @property
    def teacher_folder(self) -> Place:
        """Where the teacher keeps its files, if there is one; see ``nas.searching.teacher``."""
        return self.place / "teacher"

    def teacher(self) -> TeacherRecord | None:
        """The teacher's record, ``None`` where the search has none or has not trained it yet."""
        return read_record(self.teacher_folder)

    @property
    def supernet_folder(self) -> Place:
        """Where the supernet keeps its files, if there is one; see ``supernet_weights``."""
        return self.place / "supernet"

    def supernet(self) -> SupernetRecord | None:
        """The supernet's record, ``None`` where the search has none or has not trained it yet."""
        return read_supernet(self.supernet_folder)

    def finalists(self) -> tuple[int, ...] | None:
        """Which trials were chosen to be finalists, ``None`` before any were."""
        path = self.folder / _FINALISTS
        return _read_finalists(path)[1] if path.is_file() else None

    def keep_finalists(self, numbers: Sequence[int], of: int) -> tuple[int, ...]:
        """Keep a choice among ``of`` trials; returns the one that was kept first, if any was.

        So that a resumed search goes on with the same ones, unless it has searched further.
        """
        path = self.folder / _FINALISTS
        if path.is_file():
            known, kept = _read_finalists(path)
            if known == of:
                return kept
        write_json(path, {"of": of, "numbers": list(numbers)})
        return tuple(numbers)

    @property
    def tensorboard_folder(self) -> Path:
        """Where trials are logged to TensorBoard, if they are; see ``ray_logging``."""
        return self.folder / "tensorboard"

    @property
    def device_account_path(self) -> Path:
        """What the whole device drew, where that can be seen; see ``device_account``."""
        return self.folder / "device.jsonl"

    @property
    def inputs_path(self) -> Path:
        """The real inputs that every candidate is measured with."""
        return self.folder / _INPUTS

    @property
    def inputs_place(self) -> Place:
        """Where workers find them."""
        return self.place / _INPUTS


def create(
    folder: Path,
    config: SearchConfig,
    meter: str,
    driver: Driver | None = None,
    files: Iterable[Path] = (),
    metric: Metric = ACCURACY,
    unit: str = SAMPLE,
) -> Run:
    """Make the folder of a new run; ``files`` of the user's may not change while it lasts.

    ``metric`` is the task's, ``unit`` that of its workload.

    Raises:
        ValueError: the folder exists and is not empty, or cannot be written.
    """
    check_new(folder)
    check_name("the name of a run folder", folder.resolve().name, most=MOST_TEXT)
    run = Run(
        folder=folder,
        config=config,
        name=f"{folder.name}-{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{os.getpid()}",
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=versions(),
        meter=meter,
        driver=driver or Driver(),
        fingerprints=fingerprints(config, files),
        metric=metric,
        unit=unit,
    )
    try:
        (folder / "trials").mkdir(parents=True)
        name_address(run.driver.address)
        if config.files_at is not None:
            place_of(config.files_at)
        write_json(folder / _CONFIG, _to_dict(run))
    except OSError as error:
        raise ValueError(f"run folder must be writable, got {folder}: {error.strerror}") from None
    return run


def check_new(folder: Path) -> None:
    """Raise ``ValueError`` if ``folder`` exists and is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"run folder must be new or empty, got {folder} (nas resume goes on with a run)"
        )


def is_run(folder: Path) -> bool:
    """Whether a run has been begun in ``folder``."""
    return (folder / _CONFIG).is_file()


def load(path: str | Path, *, storage: str | None = None, files_at: str | None = None) -> Run:
    """Read a run folder; ``storage`` and ``files_at`` are where its study and files are now.

    Raises:
        ValueError: the folder is not a run, its files are corrupt, or the run keeps no study in a
            database or no files elsewhere.
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
            f"run must be the folder of a search, with {_CONFIG} in it, got {path}{_near(folder)}"
        )
    data = read_json(folder / _CONFIG)
    allowed = {"schema", "config", "name", "started", "versions", "meter", *_LATER}
    if not isinstance(data, dict) or data.keys() | _LATER != allowed:
        raise ValueError(
            f"{folder / _CONFIG} must have exactly the keys {', '.join(sorted(allowed))}"
        )
    if data["schema"] != SCHEMA_VERSION:
        raise ValueError(
            f"{folder / _CONFIG} must have schema {SCHEMA_VERSION}, got {data['schema']!r}"
        )
    for name in ("name", "started", "meter", "unit"):
        check_name(f"{folder / _CONFIG}: {name}", data.get(name, SAMPLE), most=MOST_TEXT)
    if data["name"] in ("", ".", "..") or "/" in data["name"]:
        # It names a folder, too.
        raise ValueError(f"{folder / _CONFIG}: name must be a plain one, got {data['name']!r}")
    for name in ("versions", "fingerprints"):
        table = data.get(name, {})
        if not isinstance(table, dict):
            raise ValueError(f"{folder / _CONFIG}: {name} must be a table of texts")
        for text in (*table, *table.values()):
            check_name(f"{folder / _CONFIG}: {name}", text, most=_MOST_PATH)
    if isinstance(data["config"], dict):
        check_name(f"{folder / _CONFIG}: task", data["config"].get("task"), most=_MOST_PATH)
    with as_written(str(folder / _CONFIG)):
        return Run(
            folder=folder,
            config=_recorded(SearchConfig.from_dict(data["config"])),
            name=data["name"],
            started=data["started"],
            versions=data["versions"],
            meter=data["meter"],
            driver=_read_driver(data.get("driver", {})),
            fingerprints=data.get("fingerprints", {}),
            metric=get_metric(data.get("metric", ACCURACY.key)),
            unit=data.get("unit", SAMPLE),
        )


def _recorded(config: SearchConfig) -> SearchConfig:
    """``config`` whose hosts were named by whoever wrote the file, which need not be the user."""
    storage, files_at = recorded(config.storage), recorded(config.files_at)
    return replace(config, storage=storage, files_at=files_at)


def _near(folder: Path) -> str:
    """The run whose name is nearest to the folder's, beside it or in ``runs``, as a hint."""
    places = [folder.parent] if folder.parent != Path() else [folder.parent, Path("runs")]
    found = {path.parent.name: path.parent for at in places for path in at.glob(f"*/{_CONFIG}")}
    near = nearest(folder.name, found)
    return "" if near is None else f" (did you mean {str(found[near])!r}?)"


def _read_finalists(path: Path) -> tuple[int, tuple[int, ...]]:
    """Among how many trials finalists were chosen, and their numbers."""
    with as_written(str(path)):
        data = read_json(path)
        of, numbers = data["of"], tuple(data["numbers"])
    if not all(isinstance(n, int) and n >= 0 for n in (of, *numbers)):
        raise ValueError(f"{path} must hold numbers of trials, got {numbers!r}")
    return of, numbers


def _read_driver(data: Any) -> Driver:
    allowed = {f.name for f in fields(Driver)}
    if not isinstance(data, dict) or data.keys() - allowed:
        raise ValueError(f"driver must have no keys but {', '.join(sorted(allowed))}")
    driver = Driver(**data)
    return replace(driver, address=Recorded(driver.address))


def resumed(run: Run, config: SearchConfig, driver: Driver) -> Run:
    """``run``, to go on with; ``trials``, ``refine`` and where the study is may differ.

    Raises:
        ValueError: its configuration is another one, or what it was begun with has changed.
    """
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
    """Raise ``ValueError`` unless study and files are kept where those of ``run`` are."""
    if (run.config.storage is None) != (config.storage is None):
        kept = "in its folder" if run.config.storage is None else "in a database"
        raise ValueError(
            f"storage of run {run.folder} must stay what it is: its study is {kept}, got "
            f"{config.storage and without_password(config.storage)!r}"
        )
    if (run.config.files_at is None) != (config.files_at is None):
        kept = "in its folder" if run.config.files_at is None else str(run.place)
        raise ValueError(
            f"storage of run {run.folder} must stay what it is: its files are {kept}, got "
            f"{config.files_at!r}"
        )


def go_on(run: Run) -> None:
    """Write what ``load`` reads, if it has changed, and forget why the search ended before."""
    (run.folder / _ENDED).unlink(missing_ok=True)
    path, data = run.folder / _CONFIG, _to_dict(run)
    if read_json(path) != data:
        write_json(path, data)


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    names = ("joulenas", "torch", "torchao", "optuna", "ray", "numpy")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _to_dict(run: Run) -> dict[str, Any]:
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
        "driver": asdict(run.driver),
        "fingerprints": dict(run.fingerprints),
        "metric": run.metric.key,
        "unit": run.unit,
    }
