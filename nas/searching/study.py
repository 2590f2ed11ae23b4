"""Start or resume a search: the entry points of ``nas search`` and ``nas resume``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from nas.core import interrupts
from nas.core.files import check_writable
from nas.core.retry import patience
from nas.core.versions import Start
from nas.evaluation.evaluator import Evaluator, TrainingEvaluator
from nas.evaluation.executor import Backend, Executor, Measuring
from nas.evaluation.supernet_evaluator import SupernetEvaluator
from nas.evaluation.teacher import check_artifact
from nas.inheriting.shipped import packed, unpack
from nas.records.config import CHECKPOINT, LARGEST, SearchConfig
from nas.records.device_names import MeterFound
from nas.searching import writing
from nas.searching.calibrating import calibration_of
from nas.searching.calibration.calibration import pays
from nas.searching.calibration.labels import Labels
from nas.searching.conditions import conditions_under, labels_of, runtimes_of
from nas.searching.controller.refine import Refinement
from nas.searching.controller.sampler_by_name import make_sampler
from nas.searching.controller.session import Listener, Session
from nas.searching.device_account import DeviceAccount, watched_meter
from nas.searching.early_stopping import Stopper
from nas.searching.finalists import add_finalists
from nas.searching.fitting import check_fits, check_teacher
from nas.searching.gating.gate import CandidatePool, Gate
from nas.searching.gating.pruning import Pruning
from nas.searching.gating.surrogates import FIT_SHARE, ArchitectureSurrogates
from nas.searching.gating.warm_start import WarmStart, collect_warm_start, load_warm_start
from nas.searching.gating.warm_start_data import WarmStartData
from nas.searching.loop import adopt_results, refine, search
from nas.searching.preparing import (
    fill,
    has_study,
    make_supernet,
    make_teacher,
    open_study,
    share_parent,
    undone,
)
from nas.store import new_run, run_file
from nas.store.cluster_address import check_address, name_address
from nas.store.driver import CLIENT, Driver
from nas.store.files_host import place_of
from nas.store.run import Run
from nas.store.storage import StudyStore
from nas.store.storage_host import name_storage
from nas.tasks.registry import get_task
from predictors.measurement.protocol import get_protocol
from search_spaces.space.cuts import in_precisions

if TYPE_CHECKING:
    from nas.cluster.tensorboard import TensorBoardLog


@dataclass(frozen=True, slots=True)
class _Knowledge:
    """What a search knows beside its trials, and what it learns of candidates it never trains."""

    warm_start: WarmStart
    labels: Mapping[str, Labels]
    pruning: Pruning
    surrogates: ArchitectureSurrogates


def run_search(
    config: SearchConfig,
    folder: Path,
    driver: Driver | None = None,
    *,
    resume: bool = False,
    files: Iterable[Path] = (),
    listener: Listener | None = None,
) -> Run:
    """Search and return the run; Ctrl-C or SIGTERM ends the search but keeps finished trials.

    ``driver`` contains where trials run and their time limit; by default they run on a local Ray.
    With ``resume``, ``folder`` is a run and ``config`` must be its configuration, except that
    ``trials`` may be raised and ``refine`` changed. The user's ``files`` and those named in
    ``config`` must not change during a run.

    Raises:
        ValueError: the folder, configuration or task is invalid.
        StorageError: the study cannot be opened, or was unavailable until the timeout.
        RunBusyError: another search writes to the run.
        ClusterError: the driver's address has no suitable Ray cluster.
        MeterError: no meter can measure the device.
        TeacherError: the teacher or the supernet could not be trained.
    """
    driver = driver or Driver()
    name_storage(config.storage)
    check_address(driver.address)
    name_address(driver.address)
    if driver.address.startswith(CLIENT):
        return _search_there(config, folder, driver, resume, tuple(files), listener)
    # The driver's matrices are small: more threads are slower and take cores from trials.
    with interrupts.handled(), threadpool_limits(1):
        return _run_search(config, folder, driver, resume, files, listener)


def resume_search(
    folder: Path,
    options: Mapping[str, Any] | None = None,
    *,
    task: str | Path | None = None,
    listener: Listener | None = None,
    **changes: Any,
) -> Run:
    """Resume the run in ``folder``.

    ``options`` are fields of ``Driver``; ``None`` keeps the last driver's value. ``changes`` are
    fields of the configuration: ``trials`` and ``refine`` may be raised; ``storage`` and
    ``files_at`` are the new locations of a moved study and moved files, and ``storage`` may add a
    password. ``task`` is the new location of a moved task file.

    Raises:
        ValueError: the folder is not a run, or a fixed part of its configuration has changed.
        Exception: see ``run_search``.
    """
    run = run_file.load(folder)
    if task is not None:
        run = run.with_task(task)
    changes = {name: value for name, value in changes.items() if value is not None}
    config, driver = replace(run.config, **changes), run.driver.changed(**(options or {}))
    return run_search(config, folder, driver, resume=True, listener=listener)


def _search_there(
    config: SearchConfig,
    folder: Path,
    driver: Driver,
    resume: bool,
    files: Sequence[Path],
    listener: Listener | None,
) -> Run:
    """Search in a process on the cluster that Ray's client starts."""
    from nas.cluster.client import search_there

    # The cluster may not see the folder into which this machine copied the checkpoint.
    files_of_parent = {} if resume else packed(folder)

    def search(folder: Path, listener: Listener | None) -> None:
        unpack(files_of_parent, folder)
        with interrupts.handled(), threadpool_limits(1):
            _run_search(config, folder, driver, resume, files, listener)

    search_there(search, folder, driver.address, listener)
    if not run_file.is_run(folder):
        raise ValueError(
            f"run {folder} is on the cluster only: to read it here, use a folder that both "
            "machines share"
        )
    return run_file.load(folder)


def _run_search(
    config: SearchConfig,
    folder: Path,
    driver: Driver,
    resume: bool,
    files: Iterable[Path],
    listener: Listener | None,
) -> Run:
    with ExitStack() as stack:
        run: Run | None = None
        if resume:
            run_file.load(folder)
            lock = stack.enter_context(writing.writer(folder, listener))
            # Load again under the lock: the last driver may have changed the run.
            run = run_file.load(folder)
            if driver.workers:
                driver = replace(driver, log=driver.log or run.driver.log)
            run = run_file.resumed(run, config, driver)
            run = replace(run, starts=(*run.starts, Start.now()))
        config.load_plugins()
        task = get_task(config.task)
        workload = task.workload(config.batch_size)
        check_fits(config.space, workload)
        check_teacher(config.teacher is not None, workload)
        config.goals.check_reachable(config.space, workload, config.seed)
        protocol = get_protocol(config.protocol)
        if run is None:
            new_run.check_new(folder)
            if config.space.loadable is not None:
                # It imports torch, which other drivers need not.
                from nas.searching.installed import check_installed

                check_installed(config.space, workload)
            if config.teacher not in (None, LARGEST, CHECKPOINT):
                check_artifact(Path(config.teacher), workload)
        backend = _backend(driver, config, listener)
        meter_name = config.meter if run is None else run.meter
        measured: tuple[MeterFound, ...] = ()
        if backend.meters_are_remote:
            stack.enter_context(backend)
        if config.measure_on:
            first, *further = config.measure_on
            if run is not None:
                first = replace(first, meter=run.meter)
            measured = backend.find_meters((first, *further), config.device, config.meter)
        meter = measured[0] if measured else None
        saved = None if run is None else load_warm_start(folder, config)
        if saved is None:
            meter = meter or backend.find_meter(config.device, meter_name)
            meter_name = meter.meter
            conditions = conditions_under(meter, protocol, workload, config.runtimes)
            warm_start = collect_warm_start(config, *conditions)
        else:
            warm_start = saved
        pruning = Pruning(config.space, seed=config.seed)
        prior = _prior_data(config, warm_start)
        surrogates = ArchitectureSurrogates(
            workload,
            goals=config.goals,
            seed=config.seed,
            warm_start=prior[config.runtimes[0]],
            fit_share=FIT_SHARE,
            runtimes=prior if len(prior) > 1 else None,
            choices=config.runtime_choices,
        )
        sampler = make_sampler(config, surrogates, warm_start.prior_rows(config.space), pruning)
        if config.files_at is not None:
            check_writable(place_of(config.files_at))
        # All checks come before the first write.
        store = open_study(run, sampler) if run is not None and has_study(run) else None
        if not backend.meters_are_remote:
            stack.enter_context(backend)
        backend.check_paths(config, files, folder)
        if run is None:
            assert meter_name is not None
            was_there = folder.exists()
            lock = stack.enter_context(writing.first_writer(folder))
            with undone(folder, was_there):
                run = new_run.begin(
                    *(folder, config, meter_name, driver, files),
                    *(task.metric, workload),
                )
                with writing.new_folder(folder):
                    fill(run, task, sampler, warm_start)
        else:
            writing.say_versions(run, listener)
            with writing.said_if_not_writable(folder):
                fill(run, task, sampler, warm_start)
        with writing.said_if_not_writable(folder):
            run_file.go_on(run)
        store = store or open_study(run, sampler)
        labels = labels_of(run, meter, backend, workload)
        measuring = Measuring(
            *(config.device, run.meter, protocol),
            measured=measured,
            runtimes=runtimes_of(config.runtimes, labels),
        )
        with writing.said_if_away(run), patience(writing.storage_waits(listener)):
            store.fence(writing.checks_of(run, lock, stack), lock.token)
            knowledge = _Knowledge(warm_start, labels, pruning, surrogates)
            _drive(run, store, backend, measuring, knowledge, listener)
    return run


def _prior_data(config: SearchConfig, warm_start: WarmStart) -> dict[str, WarmStartData]:
    """Return the prior data of the gate in each runtime, the main one first."""
    return {
        name: replace(own.for_gate(seed=config.seed), device=config.measured_device)
        for name, own in warm_start.in_runtimes(config.runtimes).items()
    }


def _backend(driver: Driver, config: SearchConfig, listener: Listener | None) -> Backend:
    """Return the backend: this process if there are no workers, else Ray."""
    if driver.workers == 0:
        from nas.searching.in_process import InProcessBackend

        return InProcessBackend(driver, listener)
    # A local import, so that all else works without Ray.
    from nas.cluster.backend import RayBackend

    return RayBackend(driver, config, listener)


def _drive(
    run: Run,
    store: StudyStore,
    backend: Backend,
    measuring: Measuring,
    knowledge: _Knowledge,
    listener: Listener | None,
) -> None:
    """Run the search of ``run`` to its end on ``backend``, or until Ctrl-C."""
    config, warm_start, pruning = run.config, knowledge.warm_start, knowledge.pruning
    labels, surrogates = knowledge.labels, knowledge.surrogates
    workload, calibration = surrogates.workload, None
    if labels and pays(config):
        for own in labels.values():
            surrogates.add_observations(own.observations(), own.runtime)
        calibration = calibration_of(run, labels, backend, measuring)
    gate = Gate(
        surrogates,
        config.gate,
        pool=CandidatePool.sample(
            config.space,
            config.seed,
            allows=lambda batch: config.goals.allows(batch, workload),
        ),
        pruning=pruning,
    )
    pruning.store_at(run.pruning_path)
    log = _log(run, listener)
    with DeviceAccount(run.device_account_path, watched_meter(run), log or listener) as account:
        first = warm_start.initial_candidates(config.space, config.trials)
        if config.checkpoint is not None:
            # A cut must be cheaper than quantisation alone. Most trials are left for cuts.
            first = [*in_precisions(config.space)[: config.trials // 4], *first]
        session = Session(
            *(config, workload, store, gate, account, first, run.metric),
            calibration=calibration,
        )
        adopt_results(session, run.trials_place)
        if log is not None:
            log.take_up(session.records())
        try:
            evaluator = _evaluator(run, backend, account)
        except KeyboardInterrupt:
            return
        with (
            closing(
                backend.executor(evaluator, run.trials_place.resolve(), measuring)
            ) as executor,
            nullcontext() if calibration is None else closing(calibration),
        ):
            _search_and_refine(run, session, surrogates, executor, account)
    if session.stop_reason is not None:
        store.check_writer()
        run.end_early(session.stop_reason)


def _search_and_refine(
    run: Run,
    session: Session,
    surrogates: ArchitectureSurrogates,
    executor: Executor,
    listener: Listener,
) -> None:
    """Search, then fine-tune finalists, then evaluate replicas."""
    config, trials_folder = run.config, run.trials_place.resolve()
    stopper = None if config.halving is None else Stopper(config.halving, session, surrogates)
    is_complete = search(session, executor, trials_folder, stopper)
    if is_complete and config.has_finalists and session.is_searched():
        add_finalists(run, session, surrogates)
        is_complete = search(session, executor, trials_folder)
    if is_complete and config.refine and session.is_over:
        refinement = Refinement(
            session.records(),
            (run.folder / "trials").resolve(),
            config.goals,
            config.refine,
            kept=trials_folder,
        )
        refine(refinement, executor, trials_folder, listener)


def _evaluator(run: Run, backend: Backend, listener: Listener) -> Evaluator:
    """Return the evaluator, after training the teacher and the supernet that it needs."""
    config = run.config
    section = share_parent(run, config.evaluation(run.driver.trained_on(config.device)))
    if config.teacher is not None:
        make_teacher(run, section, backend, listener)
    trainer = TrainingEvaluator(
        section,
        run.inputs_place.resolve(),
        # ``None``: each machine uses its own lock folder.
        None,
        None if config.teacher is None else run.teacher_folder.resolve(),
        backend.energy_share(),
    )
    if config.supernet is None:
        return trainer
    make_supernet(run, section, backend, listener)
    return SupernetEvaluator.of(section, trainer, run.supernet_folder.resolve())


def _log(run: Run, listener: Listener | None) -> TensorBoardLog | None:
    """Return the TensorBoard log of the run's trials, ``None`` without one."""
    if run.driver.log is None:
        return None
    from nas.cluster.tensorboard import TensorBoardLog

    return TensorBoardLog(run.config.space, run.tensorboard_folder, run.unit, listener)
