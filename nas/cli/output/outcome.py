"""The end of a search: reasons of failures, next commands, and the exit code."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core import interrupts

if TYPE_CHECKING:
    from nas.analysis.summary import SearchSummary
    from nas.pareto.queries import Front
    from nas.records.trial import Trial
    from nas.store.run import Run

# Number of reasons shown, the most frequent first, and of trials named for each.
_MOST_REASONS, _MOST_TRIALS = 5, 8


def failures(records: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return each reason of failure with its trials, the most frequent first."""
    by_reason: dict[str, list[int]] = {}
    for record in records:
        if record.state == "failed":
            by_reason.setdefault(record.reason or "no reason given", []).append(record.number)
    ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    return [{"reason": reason, "trials": trials} for reason, trials in ordered]


def render_failures(records: Sequence[Trial]) -> str:
    """Render a line for each reason of failure; empty if no trial failed."""
    reasons = failures(records)
    lines = [_line(each["reason"], each["trials"]) for each in reasons[:_MOST_REASONS]]
    if len(reasons) > _MOST_REASONS:
        lines.append(f"failed: {len(reasons) - _MOST_REASONS} more reasons (--json has them all)")
    return "\n".join(lines)


def _line(reason: str, trials: Sequence[int]) -> str:
    named = ", ".join(map(str, trials[:_MOST_TRIALS]))
    more = f" and {len(trials) - _MOST_TRIALS} more" if len(trials) > _MOST_TRIALS else ""
    return f"failed: {'trial' if len(trials) == 1 else 'trials'} {named}{more}: {reason}"


def next_steps(done: Run, summary: SearchSummary, front: Front) -> list[str]:
    """Return the commands that make sense next: resume, front, export."""
    path = str(done.folder)
    # A folder that begins with a hyphen would be read as an option.
    folder = shlex.quote(f"./{path}" if path.startswith("-") else path)
    steps = []
    if not summary.finished:
        steps.append(f"nas resume {folder}{_plugins(done)}")
    if len(front):
        steps.append(f"nas front {folder} --recommended")
        if _can_be_exported(done, front.recommended().trial):
            steps.append(f"nas export {folder} --to {_new_folder()}{_plugins(done)}")
    elif summary.finished:
        more = done.config.trials + max(1, summary.failed)
        steps.append(
            f"fix the reasons above, then nas resume {folder} --trials {more}"
            f"{_more_time(done)}{_plugins(done)}"
        )
    return steps


def exit_code(summary: SearchSummary) -> int:
    """Return 0 for a finished search, 1 if no trial is complete, else the signal's code."""
    if not summary.finished:
        return interrupts.exit_code()
    return 0 if summary.complete else 1


def _more_time(done: Run) -> str:
    """Return the option for a longer timeout, if a trial exceeded it."""
    limit_s = done.driver.trial_timeout_s
    is_late = any("took longer than" in each["reason"] for each in failures(done.records()))
    return f" --trial-timeout-s {10 * limit_s:g}" if limit_s is not None and is_late else ""


def _plugins(done: Run) -> str:
    """Return the options that name the run's plug-ins; only named ones are run."""
    return "".join(f" --plugin {shlex.quote(str(p.path))}" for p in done.config.plugins)


def _can_be_exported(done: Run, trial: int) -> bool:
    try:
        record = done.trial(trial)
        return record.weights == "own" and done.weights_path(trial).is_file()
    except (ValueError, OSError, RuntimeError):
        return False


def _new_folder() -> str:
    """Return the name of a folder that does not exist, for the artifact."""
    names = ["model", *(f"model-{n}" for n in range(2, 100))]
    return next((name for name in names if not Path(name).exists()), "model-100")
