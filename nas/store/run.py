"""A run folder: where a search keeps all it knows.

``run.json`` the configuration, versions of each start, meter, options of the driver and
fingerprints of what the search was begun with, written once all that a new run needs is there;
it is ``creating.json`` before that; ``study.journal`` the study, unless a storage
URL was given; ``inputs.npy`` the real inputs that are measured with; ``trials/N/`` the weights of
trial N and its record, written by the worker before the driver hears of it, and those of its
replicas; ``teacher/`` what candidates learn from, where they do; ``supernet/`` what they are parts
of, where they are, and ``finalists.json`` which of them were chosen; ``warm_start.json`` and
``predictor.safetensors`` what was known beforehand, where anything was; ``writer.lock`` held by
the one driver (``nas.store.lock``).

What workers read and write (``inputs.npy``, ``trials/``, ``teacher/``, ``supernet/``) is at the
run's ``place``: its folder, or below ``SearchConfig.files_at`` in a folder of the run's name.
There is a copy here of what fronts are drawn from: the inputs, and results of replicas.
"""

from __future__ import annotations

import datetime
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nas.core.files import Place, as_written, read_json, write_json
from nas.core.names import MOST_TEXT, check_name, printable
from nas.core.nearest import did_you_mean, nearest
from nas.core.recorded import Recorded, recorded
from nas.core.versions import Start
from nas.pareto.queries import Front
from nas.records.config import SearchConfig
from nas.records.fingerprints import check_unchanged, fingerprints, moved_task
from nas.records.front_member import figures_of, member_of
from nas.records.goals import Goals
from nas.records.replicas import pooled
from nas.records.spent import with_spent
from nas.records.trained_once import SupernetRecord, TeacherRecord, read_record, read_supernet
from nas.records.trial import TrialRecord, judged
from nas.store.cluster_address import LOCAL, name_address
from nas.store.files_host import place_of
from nas.store.storage_host import name_storage, recordable
from nas.store.storage_url import without_password
from nas.tasks.base.metric import ACCURACY, Metric, get_metric
from nas.tasks.registry import get_task, is_task_file
from search_spaces.workload import SAMPLE, Workload

SCHEMA_VERSION = 1
_CONFIG = "run.json"
# What it is called until all else that a new run needs is there.
_CREATING = "creating.json"
# How names begin of what may be in a folder where a search ended before that.
_BEFORE_CREATING = ("writer.lock", ".writer.lock.", f".{_CREATING}.")
_ENDED = "ended.json"
_FINALISTS = "finalists.json"
_INPUTS = "inputs.npy"
# Characters of a path.
_MOST_PATH = 4096
# Of a configuration, when its run is resumed.
_MAY_CHANGE = ("trials", "refine", "storage", "files_at")
# Of run.json, what runs made before there was such may lack.
_LATER = frozenset({"driver", "fingerprints", "metric", "unit", "starts", "workload"})
# What an address of Ray's client begins with, which is not a driver's own.
CLIENT = "ray://"
# What trials can be logged to beside the study, each in the run's folder of that name.
LOGS = ("tensorboard",)


@dataclass(frozen=True, slots=True)
class Driver:
    """How a search was last driven, so that going on with it needs no memory of that.

    Of ``workers`` each evaluates a trial at a time on Ray; with 0 this process does, without Ray.
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
        if isinstance(self.workers, bool) or not isinstance(self.workers, int) or self.workers < 0:
            raise ValueError(f"workers must be an integer >= 0, got {self.workers!r}")
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
        if self.workers == 0:
            self._check_needs_no_ray()

    def _check_needs_no_ray(self) -> None:
        asked = {
            "address": None if self.address == LOCAL else self.address,
            "log": self.log,
            "gpus_per_trial": self.gpus_per_trial,
        }
        for name, value in asked.items():
            if value is not None:
                raise ValueError(
                    f"workers must be >= 1 with {name} {value}, got 0: trials that run in this "
                    "process have no Ray"
                )

    def changed(self, **options: Any) -> Driver:
        """These options where they are not ``None``, else this driver's as far as they apply.

        Without workers none of Ray's do.
        """
        named = {name: value for name, value in options.items() if value is not None}
        kept = Driver(trial_timeout_s=self.trial_timeout_s) if named.get("workers") == 0 else self
        return replace(kept, **named)

    def trained_on(self, device: str) -> str:
        """What workers call the device that they train on, where a search is on ``device``.

        A cluster shows a worker the one GPU that it gives it; a Ray for this search alone shows
        all that this process sees.
        """
        return "cuda:0" if self.address != LOCAL and device.startswith("cuda") else device


@dataclass(frozen=True, slots=True)
class Run:
    """One search on disk; ``fingerprints`` are those of ``nas.records.fingerprints``.

    ``versions`` are those that it was begun with, ``starts`` those of every driver so far.
    ``metric`` says what qualities are of its task, ``unit`` what its joules are named per.
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
    stored_workload: Workload | None = None
    starts: tuple[Start, ...] = ()

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
        if self.stored_workload is not None and self._lacks_task():
            return self.stored_workload
        self.config.load_plugins()
        return get_task(self.config.task).workload(self.config.batch_size)

    def _lacks_task(self) -> bool:
        return is_task_file(self.config.task) and not Path(self.config.task).is_file()

    def check_task(self) -> None:
        """Raise ``ValueError`` if the task's file is gone, which says how to name another."""
        if self._lacks_task():
            raise ValueError(
                f"task file {self.config.task} of run {self.folder} is gone: name where it is "
                f"now with --task"
            )

    def with_task(self, task: str | Path) -> Run:
        """This run with its task file at another place.

        Raises:
            ValueError: the run's task is no file, or the one at ``task`` is another task, or has
                other data.
        """
        if not is_task_file(self.config.task):
            raise ValueError(
                f"task must be left out: that of run {self.folder} is {self.config.task}, which "
                f"is no file, got {str(task)!r}"
            )
        before, now = Path(self.config.task).resolve(), Path(task).resolve()
        return replace(
            self,
            config=replace(self.config, task=str(now)),
            fingerprints=moved_task(self.folder, self.fingerprints, before, now),
        )

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

        Of a trial that has not ended there is what its attempts have spent until now.

        Raises:
            StorageError: the study cannot be opened.
        """
        records = self._read()[0]
        if self.config.refine:
            records = [pooled(r, self.trial_folder(r.number)) for r in records]
        # Those that run, or were interrupted, have no record yet of what they spent.
        place = self.trials_place
        records = [
            with_spent(r, place / str(r.number)) if r.state == "running" else r for r in records
        ]
        return self._seen(records)

    def records(self) -> list[TrialRecord]:
        """Every trial's record as the search ended it, by number.

        Raises:
            StorageError: the study cannot be opened.
        """
        return self._seen(self._read()[0])

    def _read(self) -> tuple[list[TrialRecord], dict[int, float]]:
        from nas.store.storage import read_trials

        return read_trials(self.folder, self.config.storage, self.name, self.config.space)

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

    def front(
        self, limits: Goals | None = None, holds: Callable[[TrialRecord], bool] | None = None
    ) -> Front:
        """The complete trials that break no limit and that no other such trial dominates.

        Where ``holds`` is given, of those for which it returns true.

        ``limits``, by default the search's own, are asked of the trials; objectives are always
        the search's. Of a search by a supernet the trials are finalists, and before there are any
        sub-networks with inherited qualities and joules that may be predicted; members say so.
        """
        goals = self.config.goals
        asked = goals if limits is None else replace(limits, costs=goals.costs, reference=None)
        workload = self.workload if self.config.supernet is not None else None
        kept = [r for r in judged(self.trials()) if goals.keeps(r) and asked.keeps(r)]
        kept = kept if holds is None else [record for record in kept if holds(record)]
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
    def is_created(self) -> bool:
        """Whether all is there that a new run needs; see ``go_on``."""
        return (self.folder / _CONFIG).is_file()

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
        """Where the teacher keeps its files, if there is one; see ``nas.evaluation.teacher``."""
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
    workload: Workload | None = None,
) -> Run:
    """Make the folder of a new run at once; see ``begin``."""
    run = begin(folder, config, meter, driver, files, metric, unit, workload)
    go_on(run)
    return run


def begin(
    folder: Path,
    config: SearchConfig,
    meter: str,
    driver: Driver | None = None,
    files: Iterable[Path] = (),
    metric: Metric = ACCURACY,
    unit: str = SAMPLE,
    workload: Workload | None = None,
) -> Run:
    """Begin the folder of a new run, which ``go_on`` ends once all else that it needs is there.

    ``files`` of the user's may not change while it lasts. ``metric`` is the task's, ``unit`` that
    of its ``workload``, which is kept for when the task's file is gone.

    Raises:
        ValueError: the folder exists and is not empty, or cannot be written.
    """
    check_new(folder)
    check_name("the name of a run folder", folder.resolve().name, most=MOST_TEXT)
    start = Start.now()
    run = Run(
        folder=folder,
        config=config,
        # It names a study and a prefix of an object store, which runs elsewhere share.
        name=f"{folder.name}-{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}"
        f"-{uuid.uuid4().hex[:12]}",
        started=start.started,
        versions=dict(start.versions),
        meter=meter,
        driver=driver or Driver(),
        fingerprints=fingerprints(config, files),
        metric=metric,
        unit=unit,
        stored_workload=workload,
        starts=(start,),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name_address(run.driver.address)
        if config.files_at is not None:
            place_of(config.files_at)
        write_json(folder / _CREATING, _to_dict(run))
        (folder / "trials").mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"run folder must be writable, got {folder}: {error.strerror}") from None
    return run


def check_new(folder: Path) -> None:
    """Raise ``ValueError`` if ``folder`` exists and is not empty.

    What a search has left that was killed before it had written what it was to do is nothing.
    """
    if folder.exists() and (
        not folder.is_dir()
        or not all(path.name.startswith(_BEFORE_CREATING) for path in folder.iterdir())
    ):
        raise ValueError(
            f"run folder must be new or empty, got {folder} (nas resume goes on with a run)"
        )


def is_run(folder: Path) -> bool:
    """Whether a run has been begun in ``folder``."""
    return _file_of(folder).is_file()


def _file_of(folder: Path) -> Path:
    """What ``load`` reads."""
    created = folder / _CONFIG
    return created if created.is_file() else folder / _CREATING


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
    path_of_run = _file_of(folder)
    data = read_json(path_of_run)
    allowed = {"schema", "config", "name", "started", "versions", "meter", *_LATER}
    if not isinstance(data, dict) or data.keys() | _LATER != allowed:
        raise ValueError(f"{path_of_run} must have exactly the keys {', '.join(sorted(allowed))}")
    if data["schema"] != SCHEMA_VERSION:
        raise ValueError(
            f"{path_of_run} must have schema {SCHEMA_VERSION}, got {data['schema']!r}"
        )
    for name in ("name", "started", "meter", "unit"):
        check_name(f"{path_of_run}: {name}", data.get(name, SAMPLE), most=MOST_TEXT)
    if data["name"] in ("", ".", "..") or "/" in data["name"]:
        # It names a folder, too.
        raise ValueError(f"{path_of_run}: name must be a plain one, got {data['name']!r}")
    for name in ("versions", "fingerprints"):
        table = data.get(name, {})
        if not isinstance(table, dict):
            raise ValueError(f"{path_of_run}: {name} must be a table of texts")
        for text in (*table, *table.values()):
            check_name(f"{path_of_run}: {name}", text, most=_MOST_PATH)
    if isinstance(data["config"], dict):
        check_name(f"{path_of_run}: task", data["config"].get("task"), most=_MOST_PATH)
    with as_written(str(path_of_run)):
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
            starts=tuple(Start.from_dict(start) for start in data.get("starts", ())),
            stored_workload=_read_workload(data.get("workload")),
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


def _read_workload(data: Any) -> Workload | None:
    return None if data is None else Workload.from_dict(data)


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
    """Write what ``load`` reads, and forget why the search ended before.

    A new run is created by that: ``fill`` has made the rest.
    """
    (run.folder / _ENDED).unlink(missing_ok=True)
    write_json(run.folder / _CONFIG, _to_dict(run))
    (run.folder / _CREATING).unlink(missing_ok=True)


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
        "starts": [asdict(start) for start in run.starts],
        "workload": run.stored_workload and run.stored_workload.to_dict(),
    }
