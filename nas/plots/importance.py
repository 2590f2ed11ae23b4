"""Which genes buy joules, and which quality."""

from __future__ import annotations

from pathlib import Path

from nas.analysis.importance import Importance
from nas.plots.style import BLUE, ORANGE, drawing, grid, legend_below

_MOST = 12


def plot_importance(found: Importance, path: Path) -> None:
    """Draw two bars a gene, the most important for joules on top.

    What the forest could not predict at all has no bars: they would mean nothing.

    Raises:
        ValueError: the ending is of no image format, or the file cannot be written.
    """
    genes = found.genes[:_MOST][::-1]
    rows = list(range(len(genes)))
    with drawing(path, 1.35 + 0.26 * len(genes)) as figure:
        axes = figure.add_subplot()
        for shift, values, spread, color, hatch, name, r2 in (
            (
                0.19,
                [g.joules for g in genes],
                [g.joules_sd for g in genes],
                BLUE,
                "",
                "joules",
                found.joules_r2,
            ),
            (
                -0.19,
                [g.quality for g in genes],
                [g.quality_sd for g in genes],
                ORANGE,
                "////",
                "quality",
                found.quality_r2,
            ),
        ):
            told = r2 > 0
            axes.barh(
                [row + shift for row in rows],
                values if told else [0.0] * len(rows),
                height=0.36,
                xerr=spread if told else None,
                color=color if not hatch else "white",
                edgecolor=color,
                hatch=hatch,
                linewidth=0.7,
                error_kw={"elinewidth": 0.7},
                label=f"{name} (R² {r2:.2f}{'' if told else ': too few trials'})",
            )
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_yticks(rows, [g.gene.replace("_", " ") for g in genes])
        axes.set_xlabel("share of variance lost when shuffled")
        axes.set_title(f"what the genes buy, by {found.n_trials} trials")
        grid(axes)
        axes.grid(visible=False, axis="y")
        legend_below(figure)
