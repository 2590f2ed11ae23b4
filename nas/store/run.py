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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nas.core.files import Place, as_written, read_json, write_json
from nas.core.names import printable
from nas.core.nearest import did_you_mean
from nas.core.versions import Start
from nas.pareto.queries import Front
from nas.records.config import SearchConfig
from nas.records.fingerprints import moved_task
from nas.records.front_member import figures_of, member_of
from nas.records.goals import Goals
from nas.records.replicas import pooled
from nas.records.spent import with_spent
from nas.records.trained_once import SupernetRecord, TeacherRecord, read_record, read_supernet
from nas.records.trial import TrialRecord, judged
from nas.store.driver import Driver
from nas.store.files_host import place_of
from nas.tasks.base.metric import ACCURACY, Metric
from nas.tasks.registry import get_task, is_task_file
from search_spaces.workload import SAMPLE, Workload

#: The file that makes a folder a run, see ``nas.store.run_file``.
CONFIG = "run.json"
#: Why the search ended before its number of trials.
ENDED = "ended.json"
_FINALISTS = "finalists.json"
_INPUTS = "inputs.npy"


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
        path = self.folder / ENDED
        if not path.is_file():
            return None
        with as_written(str(path)):
            return printable(str(read_json(path)["reason"]))

    def end_early(self, reason: str) -> None:
        """Record that the search ends before its number of trials."""
        write_json(self.folder / ENDED, {"reason": reason})

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
        return (self.folder / CONFIG).is_file()

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


def _read_finalists(path: Path) -> tuple[int, tuple[int, ...]]:
    """Among how many trials finalists were chosen, and their numbers."""
    with as_written(str(path)):
        data = read_json(path)
        of, numbers = data["of"], tuple(data["numbers"])
    if not all(isinstance(n, int) and n >= 0 for n in (of, *numbers)):
        raise ValueError(f"{path} must hold numbers of trials, got {numbers!r}")
    return of, numbers
