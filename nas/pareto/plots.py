"""The front as a picture for people and papers. matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

# Okabe & Ito's palette, told apart by colour-blind readers; shapes differ as well.
_BLUE, _ORANGE, _GREY, _BLACK = "#0072B2", "#D55E00", "#7F7F7F", "#000000"


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
    joined: bool = True,
) -> None:
    """Draw ``points`` into the image file ``path`` (PNG, PDF or SVG by its ending).

    Members of the front are ``joined`` by a staircase.

    Raises:
        ValueError: there is nothing to draw, or the ending is of no image format.
    """
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ValueError(f"plot must end in .png, .pdf or .svg, got {path}")
    shown = [p for p in points if p.accuracy is not None]
    if not shown:
        raise ValueError("the plot must have a complete trial to show, and there is none")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xscale("log")
    complete = [p for p in shown if p.kind == "complete"]
    baseline = [p for p in shown if p.kind == "baseline"]
    front = sorted((p for p in shown if p.kind == "front"), key=lambda p: p.energy_j)
    _errors(axes, complete, color=_GREY, marker="o", size=4, label="trained")
    if front and joined:
        axes.step(
            [p.energy_j for p in front],
            [p.accuracy or 0.0 for p in front],
            where="post",
            color=_BLUE,
            linewidth=1.2,
            zorder=3,
        )
    if front:
        _errors(axes, front, color=_BLUE, marker="s", size=6, label="front", zorder=4)
    if baseline:
        axes.plot(
            [p.energy_j for p in baseline],
            [p.accuracy or 0.0 for p in baseline],
            "D",
            color=_BLACK,
            markersize=10,
            markerfacecolor="none",
            markeredgewidth=1.6,
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
            color=_ORANGE,
            markersize=9,
            alpha=0.7,
            linestyle="none",
            label="dropped before training (predicted joules)",
        )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _joules(value)))
    span = max(p.energy_j for p in points) / min(p.energy_j for p in points)
    if span < 300:
        # Decades alone would leave the axis almost bare.
        axes.xaxis.set_minor_formatter(
            FuncFormatter(lambda value, _: _joules(value) if _leading(value) in (2, 5) else "")
        )
    else:
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel(energy_label)
    axes.set_ylabel("validation accuracy (± standard error)")
    axes.set_title(title, fontsize=10)
    axes.grid(visible=True, which="major", alpha=0.25)
    axes.legend(loc="lower right", fontsize=8, framealpha=0.9)
    figure.savefig(path, dpi=160)


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
            elinewidth=0.8,
            label=label,
            zorder=zorder,
        )


def _leading(value: float) -> int:
    return int(f"{value:e}"[0])


def _joules(value: float) -> str:
    for unit, scale in (("kJ", 1e3), ("J", 1.0), ("mJ", 1e-3), ("µJ", 1e-6), ("nJ", 1e-9)):
        if value >= scale * 0.999:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.3g} J"
