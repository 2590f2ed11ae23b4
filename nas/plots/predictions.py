"""Predicted joules against measured ones, with how often the interval held."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.analysis.predictions import Predicted, coverage_of
from nas.plots.style import (
    BLACK,
    BLUE,
    ORANGE,
    Bars,
    draw_bars,
    drawing,
    grid,
    joule_axis,
    legend_below,
)


def plot_predictions(
    predictions: Sequence[Predicted], path: Path, *, confidence: float, meter_label: str, unit: str
) -> None:
    """Draw each trial once, with both intervals; those that missed are diamonds.

    Joules are per ``unit``.

    Raises:
        ValueError: nothing was predicted and measured, or the file cannot be written.
    """
    coverage = coverage_of(predictions)
    if coverage is None:
        raise ValueError("the plot must have a trial that was predicted and measured, got none")
    share = coverage.share
    held = [p for p in predictions if p.inside]
    missed = [p for p in predictions if not p.inside]
    with drawing(path, 3.5) as figure:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.set_yscale("log")
        ends = [x for p in predictions for x in (p.measured_j, p.predicted_j)]
        low, high = min(ends) / 1.3, max(ends) * 1.3
        axes.set_xlim(low, high)
        # Intervals of the first trials, of which nothing was known, may leave the picture.
        axes.set_ylim(low / 1.5, high * 1.5)
        axes.plot([low, high], [low, high], color=BLACK, linewidth=0.8, linestyle="--", zorder=1)
        for points, color, marker, label in (
            (held, BLUE, "o", f"interval held ({len(held)})"),
            (missed, ORANGE, "D", f"interval missed ({len(missed)})"),
        ):
            if not points:
                continue
            bars = [
                Bars(
                    p.measured_j,
                    p.predicted_j,
                    p.measured_low_j,
                    p.measured_high_j,
                    p.low_j,
                    p.high_j,
                )
                for p in points
            ]
            draw_bars(axes, bars, color=color, marker=marker, size=3.5, label=label)
        joule_axis(axes.xaxis, high / low)
        joule_axis(axes.yaxis, high / low)
        axes.set_xlabel(f"measured, per {unit} ({meter_label})")
        axes.set_ylabel(f"predicted before training ({confidence:.0%} interval)")
        axes.set_title(
            f"{share.mean:.0%} of {coverage.n} intervals held\n"
            f"(95% interval {share.low:.0%} to {share.high:.0%}, asked {confidence:.0%})"
        )
        grid(axes)
        legend_below(figure)
