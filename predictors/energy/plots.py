"""Plot a learning curve. matplotlib is imported only then."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from predictors.energy.evaluation import OURS
from predictors.energy.learning_curve import CurvePoint

# Okabe & Ito's palette suits colour-blind readers; markers and dashes differ as well.
_STYLES = {
    OURS: ("#0072B2", "o", "-", "predictor (ours)"),
    "flops": ("#D55E00", "s", "--", "FLOPs"),
    "params": ("#009E73", "^", "-.", "parameters"),
    "bytes": ("#CC79A7", "v", ":", "bytes"),
    "latency": ("#7F7F7F", "D", (0, (1, 1)), "latency, measured"),
}


def check_ending(path: Path) -> None:
    """Check that the ending of ``path`` is that of an image format.

    Raises:
        ValueError: the ending is not supported.
    """
    if path.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise ValueError(f"plot must end in .png, .pdf or .svg, got {path}")


def plot_learning_curve(
    points: Sequence[CurvePoint], path: Path, *, title: str, floor_mape: float | None = None
) -> None:
    """Draw error and rank correlation against training rows into ``path``.

    Bands are quartiles over seeds; ``floor_mape`` draws the labels' own noise.

    Raises:
        ValueError: there are no points, or the ending is not supported.
    """
    check_ending(path)
    if not points:
        raise ValueError("the plot must have one or more points, got none")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

    figure = Figure(figsize=(8.6, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    errors, ranks = figure.subplots(1, 2)
    for name, (color, marker, dashes, label) in _STYLES.items():
        of_name = [p for p in points if p.predictor == name]
        front = 3 if name == OURS else 2
        for axes, metric in ((errors, "mape"), (ranks, "tau")):
            rows = [(p.n, *each.range) for p in of_name if (each := getattr(p, metric))]
            n, low, middle, high = zip(*rows, strict=True) if rows else ((),) * 4
            axes.plot(
                n,
                middle,
                color=color,
                marker=marker,
                linestyle=dashes,
                linewidth=2.0 if name == OURS else 1.3,
                markersize=5,
                label=label,
                zorder=front,
            )
            axes.fill_between(
                n,
                low,
                high,
                color=color,
                alpha=0.15,
                linewidth=0,
                zorder=front - 1,
            )
    if floor_mape is not None and floor_mape > 0:
        errors.axhline(floor_mape, color="black", linewidth=1.0, label="noise of the labels")
    sizes = sorted({p.n for p in points})
    for axes in (errors, ranks):
        axes.set_xscale("log")
        # The last size is the number of all rows; its label would cover a round size just below.
        shown = [n for n in sizes[:-1] if n < 0.8 * sizes[-1]] + sizes[-1:]
        axes.set_xticks(shown, [str(n) for n in shown])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
        axes.set_xlabel("measured architectures in training")
        axes.grid(visible=True, which="major", alpha=0.25)
    errors.set_yscale("log")
    errors.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    errors.yaxis.set_minor_formatter(
        FuncFormatter(lambda v, _: f"{v:.0%}" if f"{v:e}"[0] in "25" and v >= 0.01 else "")
    )
    errors.set_ylabel("mean absolute error, relative")
    ranks.set_ylabel("Kendall's tau")
    handles, labels = errors.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)
