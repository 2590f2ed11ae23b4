"""Hypervolume by trials evaluated and by joules spent, and how inherited qualities rank."""

from __future__ import annotations

from collections.abc import Sequence

from nas.analysis.history import History
from nas.charts.axis import count_axis, joule_axis, number_axis, position, quality_axis
from nas.charts.chart import Axis, Chart, Mark, Series, decades, line
from nas.records.trial import Trial
from nas.tasks.base.metric import Metric


def progress_charts(history: History, title: str, joules_label: str) -> tuple[Chart, Chart]:
    """Return the hypervolume by trials evaluated, and by joules of the search."""
    high = 1.08 * max(step.hypervolume for step in history.steps) or 1.0
    y = number_axis("hypervolume", 0, high)
    by_trials = [(float(s.evaluations), s.hypervolume) for s in history.steps]
    spent = [s for s in history.steps if s.spent_energy_j > 0] or history.steps[-1:]
    energies = [s.spent_energy_j or 1.0 for s in spent]
    by_joules = [(decades(j)[0], s.hypervolume) for j, s in zip(energies, spent, strict=True)]
    x = joule_axis(joules_label, [(j, j, j) for j in energies])
    return (
        _curve(title, count_axis("trials evaluated", by_trials[-1][0]), y, "joules", by_trials),
        _curve("", x, y, "missed", by_joules),
    )


def fidelity_chart(records: Sequence[Trial], metric: Metric) -> Chart | None:
    """Return first against final qualities of finalists; ``None`` if there are none."""
    pairs = [
        (r.inherited_quality, r.quality)
        for r in records
        if r.state == "complete" and r.inherited_quality is not None and r.quality is not None
    ]
    if not pairs:
        return None
    shares = [share for pair in pairs for share in pair]
    x, y = (
        quality_axis(f"{name} {metric.name}", metric, shares, [0.0] * len(shares))
        for name in ("first", "final")
    )
    points = [[max(x.low, position(metric, share)) for share in pair] for pair in pairs]
    diagonal = line((x.low, y.low), (x.high, y.high))
    series = (
        Series("guide", "", "none", diagonal, "straight"),
        Series("front", "", "circle", line(*((a, b) for a, b in points))),
    )
    return Chart("", x, y, series)


def _curve(
    title: str, x: Axis, y: Axis, role: str, points: Sequence[tuple[float, float]]
) -> Chart:
    # Steps of equal height are one stair: a page of thousands of trials has dozens of marks.
    heights = [None, *(y for _, y in points)]
    stairs = [point for point, before in zip(points, heights, strict=False) if point[1] != before]
    marks: tuple[Mark, ...] = line(*stairs, *points[-1:])
    series = (Series(role, "", "none", marks, "stairs"), Series(role, "", "circle", marks[-1:]))
    return Chart(title, x, y, series, height=0.52)
