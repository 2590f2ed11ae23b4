"""Start or resume a search: what ``nas search`` and ``nas resume`` call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

from threadpoolctl import threadpool_limits

from nas.core import interrupts
from nas.core.files import check_writable
from nas.core.retry import patience
from nas.core.versions import Start, note_of
from nas.evaluation.evaluator import Evaluator, TrainingEvaluator
from nas.evaluation.supernet_evaluator import SupernetEvaluator
from nas.evaluation.teacher import (
    check_artifact,
)
from nas.records.config import LARGEST, SearchConfig
from nas.records.device_names import MeterFound, find_meter
from nas.records.supernet import choose_finalists
from nas.searching.controller.refine import Refinement
from nas.searching.controller.sampler_by_name import BaseSampler, make_sampler
from nas.searching.controller.session import Listener, Session
from nas.searching.device_account import DeviceAccount
from nas.searching.early_stopping.stopping import Stopper
from nas.searching.fitting import check_fits
from nas.searching.gating.gate import CandidatePool, Gate
from nas.searching.gating.prior_run import Conditions
from nas.searching.gating.warm_start import WarmStart, collect_warm_start, load_warm_start
from nas.searching.preparing import fill, has_nothing, make_supernet, make_teacher, undone
from nas.store import run as run_module
from nas.store.cluster_address import LOCAL, check_address, name_address
from nas.store.files_host import place_of
from nas.store.lock import WriterLock, sole_writer
from nas.store.run import CLIENT, Driver, Run
from nas.store.storage import (
    StorageError,
    StudyStore,
    first_line,
    is_away,
)
from nas.store.storage_host import name_storage
from nas.tasks.base.metric import metric_of
from nas.tasks.registry import get_task
from predictors.measurement.protocol import Protocol, get_protocol
from predictors.meters.base import Meter, MeterError
from predictors.meters.select import choose_meter
from search_spaces.workload import Workload


class Where(TypedDict):
    """Where and how candidates are evaluated."""

    workers: int
    device: str
    meter: str
    protocol: Protocol
    lock_folder: Path | None
    measured: Sequence[MeterFound]
    timeout_s: float | None
    gpus_per_trial: float | None


def run_search(
    config: SearchConfig,
    folder: Path,
    *,
    workers: int = 2,
    address: str | None = None,
    trial_timeout_s: float | None = None,
    log: str | None = None,
    gpus_per_trial: float | None = None,
    resume: bool = False,
    files: Iterable[Path] = (),
    listener: Listener | None = None,
) -> Run:
    """Search, and return the run. Ctrl-C or SIGTERM ends it early, every finished trial kept.

    A trial that takes longer than ``trial_timeout_s`` fails, and the search goes on. With ``log``
    (``"tensorboard"``) trials are logged in the run's folder of that name, too. A trial takes
    ``gpus_per_trial`` of a GPU, by default such that every GPU of the cluster is used.
    With ``resume``, ``folder`` is a run and ``config`` must be its configuration, but for
    ``trials``, which may be raised to search on, and ``refine``. Of a new run, ``files`` are those
    of the user's that must not change while it lasts, beside those that ``config`` names.

    Raises:
        ValueError: the folder, configuration or task is not what it must be.
        StorageError: the study cannot be opened, or was away for longer than it is waited for.
        RunBusyError: another search writes to the run.
        ClusterError: there is no fitting Ray cluster at ``address``.
        MeterError: no meter can measure the device.
        TeacherError: the teacher or the supernet could not be trained.
    """
    name_storage(config.storage)
    driver = Driver(workers, address or LOCAL, trial_timeout_s, log, gpus_per_trial)
    check_address(driver.address)
    name_address(driver.address)
    if driver.address.startswith(CLIENT):
        return _search_there(config, folder, driver, resume, tuple(files), listener)
    # The driver's matrices are small: with a thread for each core they take longer, and on cores
    # that trials train and are measured on.
    with interrupts.handled(), threadpool_limits(1):
        return _run_search(config, folder, driver, resume, files, listener)


def resume_search(
    folder: Path,
    *,
    trials: int | None = None,
    refine: int | None = None,
    workers: int | None = None,
    address: str | None = None,
    trial_timeout_s: float | None = None,
    log: str | None = None,
    gpus_per_trial: float | None = None,
    storage: str | None = None,
    files_at: str | None = None,
    task: str | Path | None = None,
    listener: Listener | None = None,
) -> Run:
    """Go on with the run in ``folder``, which knows all else that it needs.

    ``trials`` and ``refine`` may be raised to search on; ``workers``, ``address``
    (``"local"`` for a Ray of its own), ``trial_timeout_s``, ``log`` and ``gpus_per_trial`` are
    those of the last driver where they are ``None``. ``storage`` is for a study that has moved, or
    whose password is nowhere else, ``files_at`` for files that have, ``task`` for a task file that
    has.

    Raises:
        ValueError: the folder is not a run, or what it was begun with has changed.
        Exception: see ``run_search``.
    """
    run = run_module.load(folder)
    if task is not None:
        run = run.with_task(task)
    asked = {"trials": trials, "refine": refine, "storage": storage, "files_at": files_at}
    given = {name: value for name, value in asked.items() if value is not None}
    config = replace(run.config, **given)  # type: ignore[arg-type]
    return run_search(
        config,
        folder,
        workers=run.driver.workers if workers is None else workers,
        address=address or run.driver.address,
        trial_timeout_s=trial_timeout_s or run.driver.trial_timeout_s,
        log=log or run.driver.log,
        gpus_per_trial=gpus_per_trial or run.driver.gpus_per_trial,
        resume=True,
        listener=listener,
    )


def _search_there(
    config: SearchConfig,
    folder: Path,
    driver: Driver,
    resume: bool,
    files: Sequence[Path],
    listener: Listener | None,
) -> Run:
    """Search from a process on the cluster, as Ray's client can do no more than start one."""
    from nas.cluster.client import search_there

    def search(folder: Path, listener: Listener | None) -> None:
        with threadpool_limits(1):
            _run_search(config, folder, driver, resume, files, listener)

    search_there(search, folder, driver.address, listener)
    if not run_module.is_run(folder):
        raise ValueError(
            f"run {folder} must be in a folder that this machine sees too, to be shown here: "
            "it is on the cluster"
        )
    return run_module.load(folder)


def _run_search(
    config: SearchConfig,
    folder: Path,
    driver: Driver,
    resume: bool,
    files: Iterable[Path],
    listener: Listener | None,
) -> Run:
    # Imported here, so that everything else of a run can be read without ray.
    from nas.cluster.connect import cluster
    from nas.cluster.roles import meet, meet_any
    from nas.cluster.shipping import check_paths
    from nas.cluster.waits import hear_waits

    with ExitStack() as held:
        run: Run | None = None
        if resume:
            run_module.load(folder)
            lock = held.enter_context(sole_writer(folder))
            # Only now: the driver that held the lock before may have changed it.
            run = run_module.load(folder)
            driver = replace(driver, log=driver.log or run.driver.log)
            run = run_module.resumed(run, config, driver)
            run = replace(run, starts=(*run.starts, Start.now()))
        config.load_plugins()
        task = get_task(config.task)
        workload = task.workload(config.batch_size)
        check_fits(config.space, workload)
        config.goals.check_reachable(config.space, workload, config.seed)
        protocol = get_protocol(config.protocol)
        if run is None:
            run_module.check_new(folder)
            if config.teacher not in (None, LARGEST):
                check_artifact(Path(config.teacher), workload)
        address = None if driver.address == LOCAL else driver.address
        names = [asked.name for asked in config.measure_on]
        on_ray = cluster(address, driver.workers, config.device, names)
        meter_name = config.meter if run is None else run.meter
        measured: tuple[MeterFound, ...] = ()
        # Only nodes that measure can say what joules will be of.
        asks_nodes = address is not None or bool(config.measure_on)
        if asks_nodes:
            held.enter_context(on_ray)
        if config.measure_on:
            first, *further = config.measure_on
            if run is not None:
                first = replace(first, meter=run.meter)
            measured = meet((first, *further), config.device, config.meter)
        kept = None if run is None else load_warm_start(folder, config)
        if kept is None:
            if measured:
                meter = measured[0]
            elif address is None:
                meter = find_meter(None, config.device, meter_name)
            else:
                meter = meet_any(config.device, meter_name)
            meter_name = meter.meter
            warm_start = collect_warm_start(config, _conditions(meter, protocol, workload))
        else:
            warm_start = kept
        sampler = make_sampler(
            config.sampler,
            config.seed,
            config.space,
            workload,
            startup_trials=config.gate.startup_trials,
            known=warm_start.prior_rows(config.space),
            stops_early=config.halving is not None,
            goals=config.goals,
        )
        if config.files_at is not None:
            check_writable(place_of(config.files_at))
        # Whatever can be refused is refused before anything is written.
        store = _open_store(run, sampler) if run is not None and _has_study(run) else None
        if not asks_nodes:
            held.enter_context(on_ray)
        if driver.address != LOCAL:
            check_paths(config, files, folder)
        if run is None:
            assert meter_name is not None
            was_there = folder.exists()
            lock = held.enter_context(_first_writer(folder))
            with undone(folder, was_there):
                run = run_module.begin(
                    *(folder, config, meter_name, driver, files),
                    *(metric_of(task), workload.unit, workload),
                )
                fill(run, task, sampler, warm_start)
        else:
            _say_versions(run, listener)
            fill(run, task, sampler, warm_start)
        run_module.go_on(run)
        store = store or _open_store(run, sampler)
        with _said_if_away(run), hear_waits(listener), patience(_storage_waits(listener)):
            store.fence(_checks_of(run, lock, held), lock.token)
            _drive(run, store, workload, protocol, warm_start, measured, listener)
    return run


def _checks_of(run: Run, lock: WriterLock, held: ExitStack) -> Callable[[], None]:
    """Lock where workers write, too, and return what raises where a lock is lost.

    A copy of the run directory names the same files elsewhere.
    """
    if run.config.files_at is None:
        return lock.check
    run.place.mkdir(parents=True, exist_ok=True)
    files_lock = held.enter_context(sole_writer(run.place))

    def check() -> None:
        lock.check()
        files_lock.check()

    return check


def _storage_waits(listener: Listener | None) -> Callable[[str], None] | None:
    """Who hears why storage is waited for."""
    if listener is None:
        return None
    return lambda reason: listener.on_wait(f"the search waits for storage: {reason}")


@contextmanager
def _said_if_away(run: Run) -> Iterator[None]:
    """Turn what storage says that stayed away into one line: nothing is wrong with the search."""
    try:
        yield
    except Exception as error:
        if not is_away(error):
            raise
        raise StorageError(
            f"storage of run {run.folder} is full or away, longer than it is waited for "
            f"({first_line(error, run.config.storage)}); nothing is lost: nas resume "
            f"{run.folder} goes on when there is room or it is back"
        ) from None


def _drive(
    run: Run,
    store: StudyStore,
    workload: Workload,
    protocol: Protocol,
    warm_start: WarmStart,
    measured: Sequence[MeterFound],
    listener: Listener | None,
) -> None:
    """Run the search of ``run`` to its end, on the Ray that is there, or until Ctrl-C."""
    from nas.cluster.driver import adopt_results, run_replicas, run_trials
    from nas.cluster.roles import EnergyShare, Trainers
    from nas.cluster.tensorboard import TensorBoardLog

    folder, config, workers = run.folder, run.config, run.driver.workers
    # Workers need no study, nor the password that may open it.
    told = replace(config, storage=None, device=run.driver.trained_on(config.device))
    gate = Gate(
        workload,
        config.gate,
        goals=config.goals,
        seed=config.seed,
        warm_start=warm_start.for_gate(config.space, seed=config.seed),
        pool=CandidatePool.sample(
            config.space,
            config.seed,
            allows=lambda batch: config.goals.allows(batch, workload),
        ),
    )
    watched = _watched(run)
    with DeviceAccount(run.device_account_path, watched, listener) as account:
        first = warm_start.initial_candidates(config.space, config.trials)
        session = Session(config, workload, store, gate, account, first, run.metric)
        adopt_results(session, run.trials_place)
        # Each machine has its own folder of locks, whatever this one's is called.
        locks = None
        if config.teacher is not None:
            try:
                make_teacher(run, told, locks, account)
            except KeyboardInterrupt:
                return
        teacher = None if config.teacher is None else run.teacher_folder.resolve()
        trainers = Trainers.here(workers, config.device)
        if not trainers.cpus:
            account.on_wait(f"no node of the cluster can train on {config.device} yet")
        trainer = TrainingEvaluator(
            told,
            run.inputs_place.resolve(),
            locks,
            teacher,
            EnergyShare(workers, trainers.gpu_share(run.driver.gpus_per_trial)),
        )
        evaluator: Evaluator = trainer
        if config.supernet is not None:
            try:
                make_supernet(run, told, locks, account)
            except KeyboardInterrupt:
                return
            evaluator = SupernetEvaluator.of(told, trainer, run.supernet_folder.resolve())
        trials_folder = run.trials_place.resolve()
        told_of = None
        if run.driver.log is not None:
            told_of = TensorBoardLog(session, config.space, run.tensorboard_folder, run.unit)
        where: Where = {
            "workers": workers,
            "device": config.device,
            "meter": run.meter,
            "protocol": protocol,
            "lock_folder": locks,
            "measured": measured,
            "timeout_s": run.driver.trial_timeout_s,
            "gpus_per_trial": run.driver.gpus_per_trial,
        }
        run_trials(
            session,
            evaluator,
            trials_folder,
            **where,
            stopper=None if config.halving is None else Stopper(config.halving, session, gate),
            log=told_of,
        )
        if config.supernet is not None and session.is_searched() and not interrupts.is_ending():
            _add_finalists(run, config, session, gate)
            run_trials(session, evaluator, trials_folder, **where, log=told_of)
        if config.refine and session.is_over and not interrupts.is_ending():
            refinement = Refinement(
                session.records(),
                (folder / "trials").resolve(),
                config.goals,
                config.device,
                config.refine,
                kept=trials_folder,
            )
            with suppress(KeyboardInterrupt):
                run_replicas(refinement, evaluator, trials_folder, **where, listener=account)
    if session.stop_reason is not None:
        store.check_writer()
        run.end_early(session.stop_reason)


def conditions_of(config: SearchConfig) -> Conditions:
    """Where the search's joules will come from, by the meter that it would choose here.

    Raises:
        ValueError: there is no such task, protocol, device or meter.
        MeterError: no meter can measure the device.
    """
    meter = find_meter(None, config.device, config.meter)
    workload = get_task(config.task).workload(config.batch_size)
    return _conditions(meter, get_protocol(config.protocol), workload)


def _conditions(meter: MeterFound, protocol: Protocol, workload: Workload) -> Conditions:
    return Conditions(meter.hardware, meter.source, protocol.hash, workload, meter.limits)


def _watched(run: Run) -> Meter | None:
    """A meter of what the search trains on, whose whole account is kept.

    Of a remote cluster's devices, this process sees none.
    """
    if run.driver.address != LOCAL:
        return None
    if not run.config.measure_on:
        return choose_meter(run.meter, run.config.device)
    try:
        return choose_meter(None, run.config.device)
    except MeterError:
        # Trials may train on what has no meter, where they are measured on another device.
        return None


def _has_study(run: Run) -> bool:
    """Whether a study must be there to go on with; ``fill`` makes that of a run without any."""
    return run.is_created and not has_nothing(run)


def _open_store(run: Run, sampler: BaseSampler) -> StudyStore:
    """The study of a run."""
    config = run.config
    return StudyStore.load(
        run.folder, config.storage, run.name, config.space, sampler, config.goals
    )


@contextmanager
def _first_writer(folder: Path) -> Iterator[WriterLock]:
    """Make the folder of a new run and hold its lock.

    Raises:
        ValueError: it cannot be written, or another search has begun a run there meanwhile.
        RunBusyError: another search is beginning one.
    """
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(sole_writer(folder))
        except OSError as error:
            raise ValueError(
                f"run folder must be writable, got {folder}: {error.strerror}"
            ) from None
        run_module.check_new(folder)
        yield lock


def _say_versions(run: Run, listener: Listener | None) -> None:
    """Say where libraries are others than those that the run was last driven with."""
    note = note_of(run.starts)
    if note is None:
        return
    if listener is None:
        logging.getLogger(__name__).warning(note)
    else:
        listener.on_wait(note)


def _add_finalists(run: Run, config: SearchConfig, session: Session, gate: Gate) -> None:
    """Choose what is fine-tuned, by joules as far as they are measured or now predicted."""
    assert config.supernet is not None
    complete = [
        record
        for record in session.searched()
        if record.state == "complete" and (record.baseline or config.goals.keeps(record))
    ]
    chosen: list[int] = []
    if complete:
        predicted_j = gate.energies_j([record.architecture for record in complete])
        energies_j = [
            float(predicted) if record.reading is None else record.reading.energy_j
            for record, predicted in zip(complete, predicted_j, strict=True)
        ]
        chosen = choose_finalists(complete, energies_j, config.supernet)
    session.add_finalists(run.keep_finalists(chosen, len(complete)))
