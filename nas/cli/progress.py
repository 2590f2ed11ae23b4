"""Live progress of a search on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.searching.session import Snapshot
    from nas.searching.trial import TrialRecord


class SearchProgress:
    """A bar where stderr is a terminal, else a line for each trial that ends."""

    def __init__(self, *, quiet: bool = False) -> None:
        """``quiet`` shows nothing at all."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._quiet = quiet
        self._console = Console(stderr=True)
        self._live = not quiet and self._console.is_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[status]}"),
            console=self._console,
            disable=not self._live,
        )
        self._task = self._bar.add_task("search", total=None, status="starting")
        self._started = time.perf_counter()
        self._ended_before: int | None = None

    def __enter__(self) -> SearchProgress:
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

    def on_change(self, snapshot: Snapshot, record: TrialRecord | None) -> None:
        """See ``nas.searching.session.Listener``."""
        if self._quiet:
            return
        ended = snapshot.complete + snapshot.failed
        if self._ended_before is None:
            # A resumed search starts with trials done; they say nothing of today's speed.
            self._ended_before = ended
        status = self._status(snapshot, ended)
        if self._live:
            self._bar.update(self._task, total=snapshot.total, completed=ended, status=status)
        elif record is not None and record.state in ("complete", "failed"):
            print(f"trial {record.number} {record.state}: {status}", file=sys.stderr, flush=True)

    def _status(self, snapshot: Snapshot, ended: int) -> str:
        parts = [f"done {ended}/{snapshot.total}"]
        parts.append(f"dropped {snapshot.dropped}")
        parts.append(f"failed {snapshot.failed}")
        parts.append(f"front {snapshot.front}")
        if snapshot.best_accuracy is not None:
            parts.append(f"best {snapshot.best_accuracy:.1%}")
        parts.append(f"spent {snapshot.spent_energy_j:,.0f} J")
        done_now = ended - (self._ended_before or 0)
        if done_now > 0:
            per_trial_s = (time.perf_counter() - self._started) / done_now
            remaining_s = max(0.0, per_trial_s * (snapshot.total - ended))
            parts.append(f"ETA {remaining_s:.0f} s")
        return " | ".join(parts)
