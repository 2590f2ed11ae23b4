"""Regret against evaluations and against time, for papers. matplotlib is imported when needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.benchmarks.sampling.curves import over_time, quartiles, regret
from experiments.benchmarks.sampling.peers.registry import OURS, SEARCH
from experiments.benchmarks.sampling.results import Run

# Okabe & Ito's palette, told apart by colour-blind readers; dashes and marks differ as well.
_STYLES = {
    OURS: ("#000000", "-", "o"),
    SEARCH: ("#009E73", "-", "d"),
    "random": ("#7F7F7F", ":", "x"),
    "nsga2": ("#E69F00", "--", "s"),
    "nsga3": ("#CC79A7", "-.", "D"),
    "tpe": ("#0072B2", "--", "^"),
    "tpe-group": ("#56B4E9", "-.", "v"),
    "pymoo-nsga2": ("#D55E00", ":", "P"),
    "syne-morea": ("#009E73", "--", "<"),
    "gp": ("#0072B2", ":", "*"),
    "qlognehvi": ("#D55E00", "-", "h"),
}
_TIMES = 200
# Two columns of a paper.
_WIDTH_IN, _HEIGHT_IN, _POINT = 7.0, 3.4, 8


def plot_regret(runs: Mapping[str, Sequence[Run]], best: float, path: Path, *, title: str) -> None:
    """Medians with quartiles as bands: left by evaluation, right by CPU seconds of proposing.

    Raises:
        ValueError: there is no run.
    """
    if not runs:
        raise ValueError("the plot must have a run to show, and there is none")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"font.size": _POINT}):
        figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained", dpi=200)
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, sharey=True)
        for name, found in runs.items():
            colour, dash, mark = _STYLES[name]
            style = {
                "color": colour,
                "linestyle": dash,
                "marker": mark,
                "markersize": 4,
                "linewidth": 2.0 if name == OURS else 1.2,
                "zorder": 3 if name == OURS else 2,
            }
            curves = [regret(np.array(r.volumes), best) for r in found]
            low, median, high = quartiles(curves)
            x = np.arange(1, len(median) + 1)
            label = name if len(found) > 1 else f"{name} (1 seed)"
            left.plot(x, median, label=label, markevery=(len(x) // 10, len(x) // 5 or 1), **style)
            left.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
            times = [np.maximum(np.array(r.cpu_s), 1e-3) for r in found]
            grid = np.geomspace(max(t[0] for t in times), min(t[-1] for t in times), _TIMES)
            low, median, high = over_time(times, curves, grid)
            right.plot(grid, median, markevery=(_TIMES // 10, _TIMES // 5), **style)
            right.fill_between(grid, low, high, color=colour, alpha=0.12, linewidth=0)
        right.set_xscale("log")
        for axes in (left, right):
            axes.set_yscale("log")
            axes.grid(True, which="both", linewidth=0.3, alpha=0.5)
        left.set_xlabel("evaluations")
        left.set_ylabel("hypervolume regret (share of best known)")
        right.set_xlabel("CPU seconds of proposing")
        figure.suptitle(title, fontsize=_POINT + 1)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5)
        figure.savefig(path)
