"""All trials of a run, its front and its baselines, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nas.plots.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    check_ending,
    drawing,
    grid,
    joule_axis,
    legend_below,
)
from nas.tasks.metric import ACCURACY, Metric


@dataclass(frozen=True, slots=True)
class PlotPoint:
    """One trial to draw. Dropped ones stand at what was predicted of them.

    A baseline is drawn around the point that it is besides, so that both are seen.

    ``accuracy`` is ``None`` where a candidate was dropped before it had one: it is then marked on
    the energy axis only.
    """

    kind: Literal["complete", "front", "dropped", "baseline"]
    energy_j: float
    energy_low_j: float
    energy_high_j: float
    accuracy: float | None = None
    accuracy_se: float = 0.0


def plot_front(
    points: Sequence[PlotPoint],
    path: Path,
    *,
    title: str,
    energy_label: str,
    metric: Metric = ACCURACY,
    joined: bool = True,
) -> None:
    """Draw ``points`` into the image file ``path`` (PNG, PDF or SVG by its ending).

    Members of the front are ``joined`` by a staircase. Accuracies are shown in the unit of
    ``metric``.

    Raises:
        ValueError: there is nothing to draw, or the ending is of no image format.
    """
    check_ending(path)
    shown = [p for p in points if p.accuracy is not None]
    if not shown:
        raise ValueError("the plot must have a complete trial to show, and there is none")
    from matplotlib.ticker import FuncFormatter

    with drawing(path, 2.9) as figure:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        complete = [p for p in shown if p.kind == "complete"]
        baseline = [p for p in shown if p.kind == "baseline"]
        front = sorted((p for p in shown if p.kind == "front"), key=lambda p: p.energy_j)
        _errors(axes, complete, color=GREY, marker="o", size=3, label="trained")
        if front and joined:
            axes.step(
                [p.energy_j for p in front],
                [p.accuracy or 0.0 for p in front],
                where="post",
                color=BLUE,
                linewidth=1.0,
                zorder=3,
            )
        _errors(axes, front, color=BLUE, marker="s", size=4, label="front", zorder=4)
        if baseline:
            axes.plot(
                [p.energy_j for p in baseline],
                [p.accuracy or 0.0 for p in baseline],
                "D",
                color=BLACK,
                markersize=7,
                markerfacecolor="none",
                markeredgewidth=1.1,
                label="baseline",
                zorder=5,
            )
        low = min((p.accuracy or 0) - p.accuracy_se for p in shown)
        high = max((p.accuracy or 0) + p.accuracy_se for p in shown)
        margin = max(0.06 * (high - low), 0.005)
        axes.set_ylim(low - 2 * margin, high + margin)
        dropped = [p for p in points if p.kind == "dropped"]
        if dropped:
            axes.plot(
                [p.energy_j for p in dropped],
                [low - 1.3 * margin] * len(dropped),
                "|",
                color=ORANGE,
                markersize=6,
                alpha=0.7,
                linestyle="none",
                label="dropped (predicted joules)",
            )
        energies = [p.energy_j for p in points]
        joule_axis(axes.xaxis, max(energies) / min(energies))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: metric.text(v, digits=0)))
        axes.set_xlabel(energy_label)
        axes.set_ylabel(f"validation {metric.name} (± s.e.)")
        axes.set_title(title)
        grid(axes)
        legend_below(figure)


def _errors(
    axes: Any,
    points: Sequence[PlotPoint],
    *,
    color: str,
    marker: str,
    size: int,
    label: str,
    zorder: int = 2,
) -> None:
    if points:
        axes.errorbar(
            [p.energy_j for p in points],
            [p.accuracy for p in points],
            xerr=[
                [p.energy_j - p.energy_low_j for p in points],
                [p.energy_high_j - p.energy_j for p in points],
            ],
            yerr=[p.accuracy_se for p in points],
            fmt=marker,
            color=color,
            markersize=size,
            linewidth=0,
            elinewidth=0.7,
            label=label,
            zorder=zorder,
        )
