"""The importance of genes for joules and for quality."""

from __future__ import annotations

from nas.analysis.importance import Importance
from nas.charts.axis import number_axis
from nas.charts.chart import Axis, Chart, Mark, Series, box, line

_MOST_GENES = 12
_BAR = 0.36


def importance_chart(importance: Importance) -> Chart:
    """Return two bars per gene, the most important for joules on top.

    A target that the forest cannot predict has no bars, since they would mean nothing.
    """
    genes = importance.genes[:_MOST_GENES][::-1]
    rows: list[tuple[str, str, list[tuple[float, float]], float]] = []
    for role, values, r2, shift in (
        ("joules", [(g.joules, g.joules_sd) for g in genes], importance.joules_r2, 0.19),
        ("quality", [(g.quality, g.quality_sd) for g in genes], importance.quality_r2, -0.19),
    ):
        why = "" if r2 > 0 else ": too few trials"
        rows.append((role, f"{role} (R² {r2:.2f}{why})", values if r2 > 0 else [], shift))
    ends = [v + sign * sd for *_, values, _ in rows for v, sd in values for sign in (-1, 1)]
    low, high = min([0.0, *ends]), max([0.1, *ends])
    x = number_axis("share of variance lost when shuffled", low, high * 1.04)
    names = tuple((float(i), g.gene.replace("_", " ")) for i, g in enumerate(genes))
    series = []
    for role, label, values, shift in rows:
        boxes, errors = [], []
        for i, (value, sd) in enumerate(values):
            y, half = i + shift, _BAR / 2
            boxes.append(box(min(0.0, value), max(0.0, value), y - half, y + half))
            errors.append(Mark(value, y, value - sd, value + sd, y, y))
        series.append(Series(role, label, "box", tuple(boxes)))
        series.append(Series("baseline", "", "none", tuple(errors)))
    series.append(Series("guide", "", "none", line((0, -0.5), (0, len(genes) - 0.5)), "straight"))
    return Chart(
        f"importance of genes, by {importance.n_trials} trials",
        x,
        Axis("", -0.5, len(genes) - 0.5, names, grid=False),
        tuple(series),
        height=(1.35 + 0.26 * len(genes)) / 3.3,
    )
