"""Progress of searches and measurements on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from nas.cli.output.eta import Eta
from nas.core.names import TORCH
from nas.core.units import format_joules

if TYPE_CHECKING:
    from rich.progress import Progress

    from nas.records.trial import Trial
    from nas.searching.controller.session import Snapshot
    from predictors.campaign.plan import PlanItem
    from predictors.campaign.slices import SliceProgress
    from predictors.measurement.records import EnergyRecord, Role
    from predictors.measurement.side_by_side import Result


class _Bar:
    """Progress bar on a terminal; elsewhere, lines on stderr. A ``quiet`` one shows nothing."""

    def __init__(self, name: str, status: str, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar = _make_bar(quiet=quiet)
        self._live = not self._bar.disable
        self._task = self._bar.add_task(name, total=None, status=status)
        self._started_s = time.perf_counter()

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bar's last state on the screen."""
        self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self._live:
            self._bar.console.print(text, highlight=False, markup=False)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def _show(
        self, status: str, done: int | None = None, total: int | None = None, *, line: str = ""
    ) -> None:
        """Update the bar, or print ``line`` (if any) where there is none."""
        if self._live:
            self._bar.update(self._task, status=status, completed=done, total=total)
        elif line:
            self.say(line)


class SearchProgress(_Bar):
    """Progress of a search: a bar on a terminal, else a line per ended trial.

    Both show the phase, the joules spent so far, and an estimate of the time that is left.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        before: Callable[[], Iterable[str]] = tuple,
        beside: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """``quiet`` shows nothing.

        ``before`` returns notes to print when the search starts. ``beside`` is called in a thread
        once the first trial starts, also if quiet, and returns further notes.
        """
        super().__init__("search", "starting", quiet=quiet)
        self._before, self._beside = before, beside
        self._thread: threading.Thread | None = None
        self._is_first = True
        self._is_calibrated = False
        self._eta = Eta()
        self._spent = ""
        # Tenths of the supernet's epochs that a line was printed for.
        self._tenths = -1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the bar's last state on the screen."""
        if self._thread is not None:
            self._thread.join()
        super().__exit__(kind, error, trace)

    def on_change(self, snapshot: Snapshot, record: Trial | None) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        if self._is_first and not self._quiet:
            for line in self._before():
                self.on_wait(line)
        self._is_first = False
        calibration = snapshot.calibration
        if calibration is not None and calibration.is_done and not self._is_calibrated:
            self._is_calibrated = True
            self.on_wait(calibration.describe())
        if record is not None and record.state == "running":
            self._eta.start(record.number)
            self._start_thread()
        elif record is not None:
            self._eta.end(record.number)
        ended = snapshot.complete + snapshot.stopped + snapshot.failed
        status, line = self._status(snapshot, ended), ""
        if record is not None and record.state in ("complete", "stopped", "failed"):
            why = f" ({record.reason})" if record.state == "failed" else ""
            line = f"trial {record.number} {record.state}{why}: {status}"
        self._show(status, ended, snapshot.total, line=line)

    def on_teacher(self, epoch: int, epochs: int) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        self._show(f"training the teacher, epoch {epoch}/{epochs}{self._spent}")

    def on_supernet(self, epoch: int, epochs: int) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        text = f"training the supernet, epoch {epoch}/{epochs}{self._spent}"
        tenths = 10 * epoch // epochs
        self._show(text, line=text if tenths > self._tenths else "")
        self._tenths = max(self._tenths, tenths)

    def on_wait(self, reason: str) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        self.say(f"note: {reason}")

    def on_refine(self, done: int, total: int) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        status = f"re-evaluating the trials least certain to be on the front{self._spent}"
        self._show(status, done, total, line=f"refined {done}/{total}: {status}")

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run_beside, daemon=True)
            self._thread.start()

    def _run_beside(self) -> None:
        for line in self._beside():
            self.on_wait(line)

    def _status(self, snapshot: Snapshot, ended: int) -> str:
        self._spent = f" | spent {snapshot.spent_energy_j:,.0f} J"
        parts = [f"done {ended}/{snapshot.total}"]
        if snapshot.stopped:
            parts.append(f"stopped {snapshot.stopped}")
        calibration = snapshot.calibration
        if calibration is not None and not calibration.is_done:
            parts.append(f"calibrated {calibration.n_labels}")
        if snapshot.pruning.considered:
            parts.append(f"pruned {snapshot.pruning.share:.0%} of {snapshot.pruning.considered:,}")
        else:
            parts.append(f"dropped {snapshot.dropped}")
        parts.append(f"failed {snapshot.failed}")
        parts.append(f"front {snapshot.front}")
        if snapshot.best_quality is not None:
            best = snapshot.metric.text(snapshot.best_quality, digits=1)
            parts.append(f"best {best}")
        text = " | ".join(parts) + self._spent
        remaining_s = self._eta.remaining_s(max(0, snapshot.total - ended))
        return text if remaining_s is None else f"{text} | ETA {remaining_s:.0f} s"


class MeasureProgress(_Bar):
    """Progress of measurements: a bar with the current interval, or a line per result."""

    def __init__(self, *, quiet: bool = False) -> None:
        """``quiet`` shows nothing."""
        super().__init__("measure", "building", quiet=quiet)
        self._done = ""

    def on_window(self, n_repeats: int, half_width: float | None) -> None:
        """Show one more window of the current measurement; the half-width is relative."""
        width = "" if half_width is None else f" ±{half_width:.1%}"
        self._show(f"{self._done}repeat {n_repeats}{width}".strip())

    def on_pair(self, n: int, half_width: float | None, n_most: int) -> None:
        """Show one more pair of a comparison, at most ``n_most``; the half-width is relative."""
        width = "" if half_width is None else f" | ratio ±{half_width:.1%}"
        left_s = (time.perf_counter() - self._started_s) / n * (n_most - n)
        status = f"pair {n} of {n_most} at most{width} | ETA {left_s:.0f} s at most"
        self._show(status, n, n_most, line=status)

    def on_item(
        self, progress: SliceProgress, item: PlanItem, role: Role, result: EnergyRecord | str
    ) -> None:
        """See ``predictors.campaign.slices.SliceListener``."""
        eta = "" if progress.eta_s is None else f" | ETA {progress.eta_s:.0f} s"
        failed = f" | failed {progress.failed}" if progress.failed else ""
        self._done = f"done {progress.done}/{progress.total}{failed}{eta} | "
        name = "reference" if role == "reference" else item.architecture.describe()
        if isinstance(result, str):
            text = f"{name}: failed: {result}"
        else:
            reading = result.reading
            mark = "" if reading.converged else ", not converged"
            text = (
                f"{name}: {format_joules(reading.energy_j)} ±{reading.half_width:.1%} "
                f"({reading.n_repeats} repeats{mark})"
            )
        self._show(self._done, progress.done + progress.failed, progress.total)
        self.say(text if self._live else f"{self._done}{text}")

    def on_turn(self, done: int, total: int) -> None:
        """See ``predictors.campaign.rounds.RoundListener``."""
        self._show(f"{self._done}turn {done + 1} of {total}")

    def on_round(self, done: int, total: int, results: Sequence[tuple[PlanItem, Result]]) -> None:
        """See ``predictors.campaign.rounds.RoundListener``."""
        left_s = (time.perf_counter() - self._started_s) / done * (total - done)
        self._done = f"round {done}/{total} | ETA {left_s:.0f} s | "
        self._show(self._done, done, total)
        for item, result in results:
            phase = "" if item.workload.phase is None else f" {item.workload.phase}"
            runtime = "" if item.runtime == TORCH else f"{item.runtime} "
            name = f"{runtime}{item.architecture.describe()}{phase}"
            if isinstance(result, Exception):
                text = f"{name}: failed: {result}"
            else:
                text = f"{name}: {format_joules(result.reading.energy_j)}"
            self.say(text if self._live else f"{self._done}{text}")


class StepProgress(_Bar):
    """Progress of counted steps: a bar on a terminal, else a line every few seconds."""

    # Seconds between two lines without a bar.
    _EACH_S = 5.0

    def __init__(self, name: str, *, quiet: bool = False) -> None:
        """``quiet`` shows nothing."""
        super().__init__(name, "reading", quiet=quiet)
        self._name = name
        self._printed_s = self._started_s

    def on_step(self, done: int, total: int, status: str) -> None:
        """Show that ``done`` of ``total`` steps are complete."""
        now_s = time.perf_counter()
        is_due = now_s - self._printed_s > self._EACH_S
        self._show(status, done, total, line=f"{self._name} {done}/{total}: {status}" * is_due)
        self._printed_s = now_s if is_due else self._printed_s


def _make_bar(*, quiet: bool) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    console = Console(stderr=True)
    return Progress(
        # No markup: text in brackets may come from a file.
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        console=console,
        # With FORCE_COLOR rich treats any file as a terminal; a bar is useless in a log.
        disable=quiet or not (sys.stderr.isatty() and console.is_terminal),
    )
