"""All trials of a run, its front and its baselines, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nas.plots.axis import joule_frame, position, position_error, quality_axis
from nas.plots.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    Bars,
    check_ending,
    draw_bars,
    drawing,
    grid,
    joule_axis,
    legend_below,
)
from nas.tasks.base.metric import ACCURACY, Metric


@dataclass(frozen=True, slots=True)
class PlotPoint:
    """One trial to draw. Dropped ones stand at what was predicted of them.

    A baseline is drawn around the point that it is besides, so that both are seen.

    ``quality`` is ``None`` where a candidate was dropped before it had one: it is then marked on
    the energy axis only.
    """

    kind: Literal["complete", "front", "dropped", "baseline"]
    energy_j: float
    energy_low_j: float
    energy_high_j: float
    quality: float | None = None
    quality_se: float = 0.0


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
    shown = [p for p in points if p.quality is not None]
    if not shown:
        raise ValueError("the plot must have a complete trial to show, and there is none")
    quality = quality_axis(
        metric, [p.quality or 0.0 for p in shown], [p.quality_se for p in shown]
    )
    with drawing(path, 2.9) as figure:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.set_xlim(
            *joule_frame(
                [p.energy_j for p in points],
                [p.energy_low_j for p in shown],
                [p.energy_high_j for p in shown],
            )
        )
        axes.set_ylim(quality.low, quality.high)
        for kind, color, marker, size, label in (
            ("complete", GREY, "o", 3.0, "trained"),
            ("front", BLUE, "s", 4.0, "front"),
        ):
            members = sorted((p for p in shown if p.kind == kind), key=lambda p: p.energy_j)
            bars = [_bars(p, metric, quality.low) for p in members]
            if kind == "front" and joined and bars:
                at = [b.x for b in bars], [b.y for b in bars]
                axes.step(*at, where="post", color=color, linewidth=1.0, zorder=3)
            draw_bars(
                axes,
                bars,
                color=color,
                marker=marker,
                size=size,
                label=label,
                zorder=4 if kind == "front" else 2,
            )
        _baselines(axes, [_bars(p, metric, quality.low) for p in shown if p.kind == "baseline"])
        _dropped(axes, [p.energy_j for p in points if p.kind == "dropped"])
        energies = [p.energy_j for p in points]
        joule_axis(axes.xaxis, max(energies) / min(energies))
        axes.set_yticks([at for at, _ in quality.ticks], [text for _, text in quality.ticks])
        axes.set_xlabel(energy_label)
        axes.set_ylabel(f"validation {metric.name} (± s.e.)")
        axes.set_title(title)
        grid(axes)
        legend_below(figure)


def _bars(point: PlotPoint, metric: Metric, bottom: float) -> Bars:
    """A point with its bars, where the axes show them; without a finite score at the bottom."""
    share = point.quality or 0.0
    at, error = position(metric, share), position_error(metric, share, point.quality_se)
    low, high = at - error, at + error
    if not math.isfinite(at):
        # It goes on below the frame, and not above it.
        at, low, high = bottom, -math.inf, bottom
    return Bars(point.energy_j, at, point.energy_low_j, point.energy_high_j, low, high)


def _baselines(axes: Any, bars: Sequence[Bars]) -> None:
    if bars:
        axes.plot(
            [b.x for b in bars],
            [b.y for b in bars],
            "D",
            color=BLACK,
            markersize=7,
            markerfacecolor="none",
            markeredgewidth=1.1,
            label="baseline",
            zorder=5,
        )


def _dropped(axes: Any, energies_j: Sequence[float]) -> None:
    if energies_j:
        axes.plot(
            energies_j,
            [0.03] * len(energies_j),
            "|",
            color=ORANGE,
            markersize=6,
            alpha=0.7,
            linestyle="none",
            label="dropped (predicted joules)",
            transform=axes.get_xaxis_transform(),
        )
