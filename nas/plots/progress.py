"""Hypervolume against evaluations, and against joules spent."""

from __future__ import annotations

from pathlib import Path

from nas.analysis.history import History
from nas.plots.style import BLUE, ORANGE, drawing, grid, joule_axis


def plot_progress(history: History, path: Path, *, title: str, joules_label: str) -> None:
    """Draw two panels into ``path``: the same curve by what a step is counted in.

    Raises:
        ValueError: the ending is of no image format, or the file cannot be written.
    """
    volumes = [step.hypervolume for step in history.steps]
    with drawing(path, 3.4) as figure:
        by_trials, by_joules = figure.subplots(2, 1)
        for axes, at, color, label in (
            (by_trials, [s.evaluations for s in history.steps], BLUE, "trials evaluated"),
            (by_joules, [s.spent_energy_j for s in history.steps], ORANGE, joules_label),
        ):
            axes.step(at, volumes, where="post", color=color, linewidth=1.2)
            axes.plot(at[-1], volumes[-1], "o", color=color, markersize=3)
            axes.set_xlabel(label)
            axes.set_ylim(0, 1.08 * max(volumes))
            grid(axes)
        by_joules.set_xscale("log")
        spent = [s.spent_energy_j for s in history.steps if s.spent_energy_j > 0]
        if spent:
            joule_axis(by_joules.xaxis, max(spent) / min(spent))
        figure.supylabel("hypervolume (quality × decades)", fontsize=7.5)
        figure.suptitle(title, fontsize=8)
