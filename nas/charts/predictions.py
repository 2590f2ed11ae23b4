"""Predicted against measured joules, with the coverage of the prediction intervals."""

from __future__ import annotations

from collections.abc import Sequence

from nas.analysis.predictions import Predicted, coverage_of
from nas.charts.axis import joule_axis
from nas.charts.chart import Chart, Mark, Series, decades, line, mark


def predictions_chart(
    predictions: Sequence[Predicted], *, confidence: float, meter_label: str, unit: str
) -> Chart:
    """Each trial with both intervals; diamonds are outside their prediction interval.

    Raises:
        ValueError: no trial was both predicted and measured.
    """
    coverage = coverage_of(predictions)
    if coverage is None:
        raise ValueError("the plot must have a trial that was predicted and measured, got none")
    measured = [p.measured.range for p in predictions]
    predicted = [p.predicted.range for p in predictions]
    x = joule_axis(f"measured, per {unit} ({meter_label})", measured)
    label = f"predicted before training ({confidence:.0%} interval)"
    y = joule_axis(label, [*measured, *predicted], vertical=True)

    def marks(*, inside: bool) -> tuple[Mark, ...]:
        return tuple(
            mark((x, y), decades(*at), decades(*interval), p.trial)
            for p, at, interval in zip(predictions, measured, predicted, strict=True)
            if p.inside == inside
        )

    held, missed = marks(inside=True), marks(inside=False)
    series = (
        Series("guide", "", "none", line((x.low, x.low), (x.high, x.high)), "straight"),
        Series("held", f"interval held ({len(held)})", "circle", held),
        Series("missed", f"interval missed ({len(missed)})", "diamond", missed),
    )
    share = coverage.share
    return Chart(
        f"{share.mean:.0%} of {coverage.n} intervals held\n"
        f"(95% interval {share.low:.0%} to {share.high:.0%}, nominal {confidence:.0%})",
        x,
        y,
        tuple(each for each in series if each.marks),
        height=1.06,
    )
