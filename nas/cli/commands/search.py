"""``nas search``: start a search, or resume one."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.options.from_checkpoint import check_from
from nas.cli.options.search_config import config_of
from nas.cli.options.search_options import add_search_options, driver_fields
from nas.cli.output.tables import print_result
from nas.core.names import place_of

if TYPE_CHECKING:
    from nas.records.config import SearchConfig
    from nas.searching.controller.available import Rows
    from nas.store.run import Run
    from search_spaces.compression.realness import RealnessReport
    from search_spaces.space import SearchSpace

HELP = "search architectures; the front is stored in a run folder"
add_options = add_search_options


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    # Check cheap options first, so that a mistake is reported at once.
    from nas.store.cluster_address import LOCAL
    from nas.store.driver import Driver

    Driver(
        arguments.workers,
        arguments.address or LOCAL,
        log=arguments.log,
        gpus_per_trial=arguments.gpus_per_trial,
    )
    check_from(arguments)
    arguments.resume = arguments.resume and _has_begun(arguments)
    if arguments.checkpoint is not None and not arguments.resume:
        return _run_from(arguments)
    with _probing(arguments):
        config = config_of(arguments)
        notes = () if arguments.quiet else _notes(arguments, config)
    name = arguments.recipe or Path(config.task).stem
    with _run_folder(arguments, name) as folder:
        return _search(arguments, config, folder, notes)


def _run_from(arguments: argparse.Namespace) -> int:
    """Start a search from a checkpoint: copy it into the run folder first."""
    from nas.searching.from_checkpoint import new_parent, plan_lines, plan_of, within_hours

    workers, hours = arguments.workers, arguments.hours
    name = Path(arguments.task).stem
    with (
        _run_folder(arguments, name) as folder,
        new_parent(arguments.checkpoint, arguments.task, folder) as parent,
    ):
        with _probing(arguments):
            config = config_of(arguments, parent)
        notes = list(parent.notes)
        if hours is not None or not arguments.quiet:
            plan = plan_of(config)
            if hours is not None:
                config = within_hours(config, plan, hours, workers)
            notes += plan_lines(config, plan, hours, workers)
        return _search(arguments, config, folder, notes)


def _search(
    arguments: argparse.Namespace, config: SearchConfig, folder: Path, notes: Sequence[str]
) -> int:
    import nas
    from nas.cli.output.progress import SearchProgress

    if not arguments.quiet:
        print(
            f"searching {config.space.name} on {arguments.task or config.task}, "
            f"{_place(config)}: {folder}",
            file=sys.stderr,
        )
        for line in (*notes, *_before(arguments, config), *_warm_start_notes(arguments, config)):
            print(f"note: {line}", file=sys.stderr)
    # The estimate takes a second or two, so it follows all checks.
    expected = partial(_expected, arguments, config)
    server = ExitStack()

    def beside() -> Sequence[str]:
        server.enter_context(_measuring_server(arguments, config))
        return () if arguments.quiet or arguments.workers == 0 else expected()

    progress = SearchProgress(
        quiet=arguments.quiet,
        # Without workers this process trains, and a thread would slow it down.
        before=expected if arguments.workers == 0 else tuple,
        beside=beside,
    )
    # Leaving the progress first waits for its thread.
    with server, progress:
        done = nas.search(
            config,
            folder,
            **driver_fields(arguments),
            resume=arguments.resume,
            files=_files(arguments),
            listener=progress,
        )
    return report(done, as_json=arguments.json)


def _measuring_server(
    arguments: argparse.Namespace, config: SearchConfig
) -> AbstractContextManager[None]:
    """Import what measuring on this CPU needs while the first trials train."""
    if arguments.address is not None or config.device != "cpu" or config.measure_on:
        return nullcontext()
    from predictors.measurement.forked_worker import kept_server
    from predictors.measurement.process import worker_environment

    return kept_server(worker_environment("cpu", 1))


@contextmanager
def _probing(arguments: argparse.Namespace) -> Iterator[None]:
    """Probe kernels on a node of the cluster if this machine lacks the device.

    A head node that trains nothing may lack it.
    """
    if arguments.address is None or _is_here(arguments.device):
        yield
        return
    from nas.cluster.shipping import call_there
    from nas.records.device_names import MeasuredDevice
    from nas.searching.controller.available import probe_here, probed_by

    reports: dict[Any, RealnessReport] = {}
    named = arguments.measure_on
    name = MeasuredDevice.parse(named[0]).name if named else None

    def probe_there(space: SearchSpace, device: str, rows: Rows, runtime: str) -> RealnessReport:
        key = (json.dumps(space.to_dict(), sort_keys=True), device, rows, runtime)
        if key not in reports:
            reports[key] = call_there(
                arguments.address, name, probe_here, space, device, rows, runtime
            )
        return reports[key]

    with probed_by(probe_there):
        yield


def _is_here(device: str | None) -> bool:
    """Return whether this machine has ``device``; without a name, it has its default."""
    if device is None or not device.startswith("cuda"):
        return True
    import torch

    return torch.cuda.is_available()


def _files(arguments: argparse.Namespace) -> list[Path]:
    """Return the user's files that the configuration does not name."""
    from search_spaces.space.presets import PRESETS

    named = arguments.space is not None and arguments.space not in PRESETS
    return [Path(arguments.space)] if named else []


def _notes(arguments: argparse.Namespace, config: SearchConfig) -> tuple[str, ...]:
    """Return notes on choices of a space that are only simulated, or not in every runtime."""
    from dataclasses import replace

    from nas.searching.controller.available import unmeasured_choices, unreal_choices
    from nas.tasks.registry import get_task
    from search_spaces.cost.kernels import rows_read
    from search_spaces.space.presets import get_space

    is_own = arguments.space is not None and config.checkpoint is None
    if not is_own and not config.runtime_choices:
        return ()
    space = config.space
    if is_own:
        space = replace(get_space(arguments.space), loadable=space.loadable)
    workload = get_task(config.task).workload(config.batch_size)
    rows = (rows_read(space, workload),)
    if config.runtime_choices:
        return unmeasured_choices(space, config.device, rows, config.runtime_choices)
    return unreal_choices(space, config.device, rows, config.runtimes[0])


def _place(config: SearchConfig) -> str:
    """Return the device, with the runtimes where they are not torch alone."""
    if len(config.runtimes) == 1:
        return place_of(config.device, config.runtimes[0])
    return f"{config.device} in {', '.join(config.runtimes)}"


def _before(arguments: argparse.Namespace, config: SearchConfig) -> list[str]:
    """Return notes on the data and the recipe of a new search."""
    if arguments.resume:
        return []
    from nas.searching.recipes import recipe_notes
    from nas.tasks.base.checks import search_notes
    from nas.tasks.registry import get_task

    lines = search_notes(get_task(config.task))
    if arguments.recipe is not None and arguments.space is None:
        lines += recipe_notes(arguments.recipe, config, arguments.epochs)
    return lines


def _expected(arguments: argparse.Namespace, config: SearchConfig) -> list[str]:
    """Return the expected duration of a trial, if this machine trains them."""
    is_here = arguments.address is None and _is_here(config.device)
    is_said = config.supernet is not None or config.checkpoint is not None
    if arguments.resume or is_said or not is_here:
        return []
    from nas.searching.expected_here import expected_line

    return [expected_line(config)]


def _warm_start_notes(arguments: argparse.Namespace, config: SearchConfig) -> list[str]:
    """Return notes on the prior trials and the predictor of a new search."""
    if arguments.resume or not (config.warm_start or config.predictor):
        return []
    if config.measure_on or arguments.address is not None:
        return ["warm start: only the measuring nodes can match the joules of prior runs"]
    from nas.searching.conditions import conditions_of
    from nas.searching.gating.warm_start import collect_warm_start

    return collect_warm_start(config, *conditions_of(config)).notes(config)


def _has_begun(arguments: argparse.Namespace) -> bool:
    """Return whether there is a run to resume; without recipe and task there must be one."""
    if arguments.recipe is None and arguments.task is None:
        return True
    from nas.store.run_file import is_run
    from nas.store.run_folders import started_runs

    if arguments.run is None:
        return bool(started_runs(arguments.recipe or Path(arguments.task).stem))
    if arguments.checkpoint is not None:
        # A search that was killed before it began has left its checkpoint at most.
        return is_run(arguments.run)
    # A folder that is not a run is refused when it is loaded.
    return arguments.run.is_dir() and any(arguments.run.iterdir())


@contextmanager
def _run_folder(arguments: argparse.Namespace, name: str) -> Iterator[Path]:
    """Yield the named folder, the last run's, or a new one, which is removed if it stays empty."""
    from nas.store.run_folders import last_run, new_run_folder

    if arguments.run is not None:
        yield arguments.run
    elif arguments.resume:
        yield last_run(name)
    else:
        with new_run_folder(name, "--run") as folder:
            yield folder


def report(done: Run, *, as_json: bool) -> int:
    """Print the result of a search; return the exit code, 0 if it finished."""
    from nas.analysis.account import render_account
    from nas.analysis.summary import summarise
    from nas.cli.commands.front import render_json, render_table
    from nas.cli.output.outcome import exit_code, failures, next_steps, render_failures

    front, summary, records = done.front(), summarise(done), done.records()
    data = {
        "run": str(done.folder),
        "summary": summary.to_dict(),
        "front": render_json(front),
        "failures": failures(records),
    }
    lines = [render_table(front), "", render_account(summary, done.metric)]
    if failed := render_failures(records):
        lines.append(failed)
    lines += ["", f"Next: {'; '.join(next_steps(done, summary, front))}"]
    print_result(data, "\n".join(lines), as_json=as_json)
    # An interrupted search has a non-zero exit code, although its trials are stored.
    return exit_code(summary)
