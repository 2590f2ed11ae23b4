"""A run: the run directory of a search, and its trials.

=======================  ======================================================================
``run.json``             configuration, versions of each start, meter, options of the driver and
                         fingerprints; named ``creating.json`` until the run is complete
``records.jsonl``        the study, unless a storage URL was given (``nas.store.records_file``)
``inputs.npy``           the real inputs for measuring every candidate
``calibration.jsonl``    measured records of untrained architectures and of the reference
``pruning.json``         numbers of candidates that were considered and pruned
``trials/N/``            weights and result of trial N, and those of its replicas
``parent/``              the checkpoint that the search started from, and the task as it reads it
``teacher/``             the teacher of the candidates, where the search has one
``supernet/``            the shared weights of the candidates, where the search has them
``finalists.json``       the sub-networks to fine-tune
``warm_start.json``      prior trials, with ``predictor.safetensors``
``writer.lock``          the driver's lock (``nas.store.lock``)
=======================  ======================================================================

Workers read and write ``inputs.npy``, ``trials/``, ``teacher/`` and ``supernet/`` at the run's
``place``: its folder, or below ``SearchConfig.files_at``. The folder has copies of the inputs and
of the results of replicas, which fronts need.
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
from nas.records.spent import spent_in
from nas.records.trained_once import SupernetRecord, TeacherRecord, read_record, read_supernet
from nas.records.trial import Trial, judged
from nas.store.driver import Driver
from nas.store.files_host import place_of
from nas.tasks.base.metric import ACCURACY, Metric
from nas.tasks.registry import get_task, is_task_file
from search_spaces.workload import SAMPLE, Workload

#: The file that makes a folder a run, see ``nas.store.run_file``.
CONFIG = "run.json"
#: The file with the reason of an early end.
ENDED = "ended.json"
_FINALISTS = "finalists.json"
_INPUTS = "inputs.npy"


@dataclass(frozen=True, slots=True)
class Run:
    """One search on disk.

    ``versions`` are those of the first start, ``starts`` describe every start. ``metric`` is the
    task's, and joules are per ``unit``. ``fingerprints`` are those of
    ``nas.records.fingerprints``. ``seen_on`` is the further device whose joules trials show,
    ``None`` for the device that the search optimises for (see ``on``).
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
        """Return this run with its joules on another measured device, for display.

        Limits and the reference point are in joules and seconds of the first device, so they are
        removed for another.

        Raises:
            ValueError: the run was not measured on such a device.
        """
        by_name = {measured.name: measured for measured in self.config.measure_on}
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
        """The name of the device whose joules are shown, ``None`` if the search has no names."""
        return self.config.measure_on[0].name if self.config.measure_on else None

    @property
    def task(self) -> str:
        """The task's name."""
        return self.config.task

    @property
    def workload(self) -> Workload:
        """The measured workload."""
        if self.stored_workload is not None and self._lacks_task():
            return self.stored_workload
        self.config.load_plugins()
        return get_task(self.config.task).workload(self.config.batch_size)

    def _lacks_task(self) -> bool:
        return is_task_file(self.config.task) and not Path(self.config.task).is_file()

    def check_task(self) -> None:
        """Raise ``ValueError`` if the task's file is gone; the message names the option."""
        if self._lacks_task():
            raise ValueError(
                f"task file {self.config.task} of run {self.folder} is gone: name where it is "
                f"now with --task"
            )

    def with_task(self, task: str | Path) -> Run:
        """Return this run with its task file at another path.

        Raises:
            ValueError: the run's task is not a file, or ``task`` is another task or has other
                data.
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
        """The reason of an early end, ``None`` if there was none."""
        path = self.folder / ENDED
        if not path.is_file():
            return None
        with as_written(str(path)):
            return printable(str(read_json(path)["reason"]))

    def end_early(self, reason: str) -> None:
        """Store the reason of an early end."""
        write_json(self.folder / ENDED, {"reason": reason})

    def trials(self) -> list[Trial]:
        """Return every trial's record by number, with means over repeated evaluations.

        A running trial has the costs of its attempts so far.

        Raises:
            StorageError: the study cannot be opened.
        """
        records = self._read()[0]
        if self.config.refine:
            records = [pooled(r, self.trial_folder(r.number)) for r in records]
        place = self.trials_place
        records = [
            replace(r, so_far=spent_in(place / str(r.number))) if r.outcome is None else r
            for r in records
        ]
        return self._seen(records)

    def records(self) -> list[Trial]:
        """Return every trial's record by number, as the search stored it.

        Raises:
            StorageError: the study cannot be opened.
        """
        return self._seen(self._read()[0])

    def _read(self) -> tuple[list[Trial], dict[int, float]]:
        from nas.store.storage import read_trials

        return read_trials(self.folder, self.config.storage, self.name, self.config.space)

    def _seen(self, records: list[Trial]) -> list[Trial]:
        return records if self.seen_on is None else [r.on(self.seen_on) for r in records]

    def ended_at_s(self) -> dict[int, float]:
        """Return the end of each trial in seconds since 1970, by number.

        Raises:
            StorageError: the study cannot be opened.
        """
        return self._read()[1]

    def trial(self, number: int) -> Trial:
        """Return the record of trial ``number``, which describes the weights in its folder.

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
        self, limits: Goals | None = None, holds: Callable[[Trial], bool] | None = None
    ) -> Front:
        """Return the Pareto front of complete trials within ``limits`` that satisfy ``holds``.

        ``limits`` are the search's by default; objectives are always the search's. With a
        supernet, trials are its finalists. Before there are any, they are sub-networks with
        inherited quality and possibly predicted joules; each member states this.
        """
        goals = self.config.goals
        requested = goals if limits is None else replace(limits, costs=goals.costs, reference=None)
        # The task is not prepared for it: its data may be elsewhere.
        workload = self.workload if self.config.supernet is not None else self.stored_workload
        trials = [
            r for r in judged(self.trials()) if goals.meets_limits(r) and requested.meets_limits(r)
        ]
        trials = trials if holds is None else [record for record in trials if holds(record)]
        return Front.of(
            [figures_of(record) for record in trials],
            goals.costs,
            # Members are made when shown, since few of many thousand trials are.
            lambda at: member_of(
                trials[at],
                self.config.measured_device,
                workload,
                self.metric,
                self.unit,
                self.measured_on,
                self.config.runtimes[0],
            ),
        )

    @property
    def is_created(self) -> bool:
        """Whether the run is complete; see ``run_file.go_on``."""
        return (self.folder / CONFIG).is_file()

    @property
    def place(self) -> Place:
        """The place of workers' files: the run directory, or a folder below ``files_at``."""
        files_at = self.config.files_at
        return self.folder if files_at is None else place_of(files_at) / self.name

    @property
    def trials_place(self) -> Place:
        """The folders of trials, each named by its number."""
        return self.place / "trials"

    def trial_folder(self, number: int) -> Path:
        """Return the folder of trial ``number`` in the run directory."""
        return self.folder / "trials" / str(number)

    def weights_path(self, number: int) -> Place:
        """Return the path of the trained fp32 weights of trial ``number``."""
        return self.trials_place / str(number) / "model.safetensors"

    @property
    def teacher_folder(self) -> Place:
        """The folder of the teacher, if there is one; see ``nas.evaluation.teacher``."""
        return self.place / "teacher"

    def teacher(self) -> TeacherRecord | None:
        """Return the teacher's record, ``None`` without a trained teacher."""
        return read_record(self.teacher_folder)

    @property
    def supernet_folder(self) -> Place:
        """The folder of the supernet, if there is one; see ``nas.evaluation.supernet_weights``."""
        return self.place / "supernet"

    def supernet(self) -> SupernetRecord | None:
        """Return the supernet's record, ``None`` without a trained supernet."""
        return read_supernet(self.supernet_folder)

    def finalists(self) -> tuple[int, ...] | None:
        """Return the numbers of the finalists, ``None`` before their choice."""
        path = self.folder / _FINALISTS
        return _read_finalists(path)[1] if path.is_file() else None

    def keep_finalists(self, numbers: Sequence[int], of: int) -> tuple[int, ...]:
        """Store the finalists among ``of`` trials, unless there is a stored choice; return it.

        A resumed search thus has the same finalists, unless it has more trials.
        """
        path = self.folder / _FINALISTS
        if path.is_file():
            n_trials, stored = _read_finalists(path)
            if n_trials == of:
                return stored
        write_json(path, {"of": of, "numbers": list(numbers)})
        return tuple(numbers)

    @property
    def tensorboard_folder(self) -> Path:
        """The TensorBoard log, if there is one; see ``nas.cluster.tensorboard``."""
        return self.folder / "tensorboard"

    @property
    def device_account_path(self) -> Path:
        """Joules of the whole device, if a meter reads them; see ``device_account``."""
        return self.folder / "device.jsonl"

    @property
    def calibration_path(self) -> Path:
        """The records of untrained architectures and references that the search measured."""
        return self.folder / "calibration.jsonl"

    @property
    def pruning_path(self) -> Path:
        """The counts of candidates that the search considered and pruned."""
        return self.folder / "pruning.json"

    @property
    def inputs_path(self) -> Path:
        """The real inputs for measuring every candidate."""
        return self.folder / _INPUTS

    @property
    def inputs_place(self) -> Place:
        """The workers' path of the inputs."""
        return self.place / _INPUTS


def _read_finalists(path: Path) -> tuple[int, tuple[int, ...]]:
    """Return the number of trials at the choice of finalists, and the finalists' numbers."""
    with as_written(str(path)):
        data = read_json(path)
        of, numbers = data["of"], tuple(data["numbers"])
    if not all(isinstance(n, int) and n >= 0 for n in (of, *numbers)):
        raise ValueError(f"{path} must hold numbers of trials, got {numbers!r}")
    return of, numbers
