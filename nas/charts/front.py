"""All trials of a run by quality and joules: its front, its baselines, and dropped candidates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from nas.charts.axis import joule_axis, quality_axis, quality_range
from nas.charts.chart import Axis, Chart, Line, Mark, Series, Text, decades, mark
from nas.core.estimate import Estimate
from nas.records.trial import Trial, judged
from nas.store.run import Run

# More ticks than this at the bottom cannot be told apart.
_MOST_DROPPED = 2000
# Distance of a name above an error bar, and the room that a name takes, as shares of the axes.
_GAP, _ROOM = 0.03, 0.2


def shown_energy(record: Trial) -> Estimate:
    """Return a trial's joules, or the prediction of a dropped one.

    Raises:
        ValueError: the trial has neither.
    """
    energy = record.energy or record.prediction
    if energy is None:
        raise ValueError(f"trial {record.number} has no joules")
    return energy


def front_chart(run: Run, meter_label: str) -> Chart:
    """Return every trial with its intervals; dropped ones are ticks at their predicted joules.

    In a search with several runtimes a text names that of the front's members where it changes.

    Raises:
        ValueError: no trial is complete.
    """
    records, metric = run.trials(), run.metric
    trials = [r for r in judged(records) if r.energy_j]
    if not trials:
        raise ValueError("the plot must have a complete trial to show, and there is none")
    dropped = [r for r in records if r.state == "dropped" and r.prediction is not None]
    dropped = dropped[:: math.ceil(len(dropped) / _MOST_DROPPED) or 1]
    qualities = [(r.quality or 0.0, r.quality_se or 0.0) for r in trials]
    at_predicted = [r.prediction.mean for r in dropped if r.prediction is not None]
    x = joule_axis(
        f"joules per {run.unit} ({meter_label}, 95% interval)",
        [*(shown_energy(r).range for r in trials), *((j, j, j) for j in at_predicted)],
    )
    y = quality_axis(
        f"validation {metric.name} (± s.e.)", metric, *map(list, zip(*qualities, strict=True))
    )
    marks = {
        r.number: mark(
            (x, y), decades(*shown_energy(r).range), quality_range(metric, *quality), r.number
        )
        for r, quality in zip(trials, qualities, strict=True)
    }
    on_front = {record.number for record in run.config.goals.front(records)}

    def marks_of(numbers: set[int]) -> tuple[Mark, ...]:
        return tuple(sorted((marks[n] for n in numbers & marks.keys()), key=lambda m: m.x))

    ticks = tuple(Mark(at, y.low, at, at, y.low, y.low) for at in decades(*at_predicted))
    # With more objectives the front is not a staircase in these two.
    line: Line = "" if run.config.goals.costs else "stairs"
    series = (
        Series("dropped", "dropped (predicted joules)", "tick", ticks),
        Series("trained", "trained", "circle", marks_of(marks.keys() - on_front)),
        Series("front", "front", "square", marks_of(on_front), line),
        Series("baseline", "baseline", "ring", marks_of({r.number for r in trials if r.baseline})),
    )
    return Chart(
        f"{Path(run.task).stem}: {metric.name} and energy",
        x,
        y,
        tuple(each for each in series if each.marks),
        _runtimes(series[2].marks, records, (x, y)) if line else (),
    )


def _runtimes(
    front: Sequence[Mark], records: Sequence[Trial], axes: tuple[Axis, Axis]
) -> tuple[Text, ...]:
    """Name the runtime of the cheapest member, and of each whose runtime is another.

    None are named in a search with one runtime. A name without room beside the last is left out.
    """
    x, y = axes
    runtime_of = {record.number: record.runtime for record in records}
    if len(set(runtime_of.values()) - {None}) < 2:
        return ()
    texts: list[Text] = []
    before = None
    for member in front:
        assert member.trial is not None
        runtime = runtime_of[member.trial]
        has_room = not texts or member.x - texts[-1].x > _ROOM * (x.high - x.low)
        if runtime is not None and runtime != before and has_room:
            is_right = member.x - x.low > (x.high - x.low) / 2
            above = member.y_high + _GAP * (y.high - y.low)
            texts.append(Text(member.x, above, runtime, "end" if is_right else "start", soft=True))
        before = runtime
    return tuple(texts)
