"""The charts of a run, by name."""

from __future__ import annotations

from nas.analysis.account import reference_text
from nas.analysis.history import history_of
from nas.analysis.importance import importance_of
from nas.analysis.predictions import predictions_of
from nas.charts.architecture import architecture_chart
from nas.charts.chart import Chart
from nas.charts.examples import examples_chart
from nas.charts.front import front_chart
from nas.charts.importance import importance_chart
from nas.charts.predictions import predictions_chart
from nas.charts.progress import progress_charts
from nas.core.units import meter_label
from nas.store.run import Run
from nas.tasks.vision.example_boxes import examples_in


def charts_of(run: Run, name: str, trial: int | None = None) -> tuple[Chart, ...]:
    """Return the charts ``name`` of ``run``; of ``trial``, if they are of one.

    By default that is the recommended member. Architectures and examples are of one trial.

    Raises:
        ValueError: the run has no data for it yet.
    """
    if name == "importance":
        return (importance_chart(importance_of(run.trials(), run.config.space)),)
    if name == "architecture":
        number = run.front().recommended().trial if trial is None else trial
        architecture = run.trial(number).architecture
        title = f"trial {number}: {architecture.describe()}"
        device = run.config.measured_device
        return (architecture_chart(architecture, run.workload, title, device),)
    if name == "examples":
        number = run.front().recommended().trial if trial is None else trial
        examples = examples_in(run.trials_place / str(number))
        if examples is None:
            raise ValueError(
                f"trial {number} must have examples to draw, and task {run.task} has none"
            )
        return (examples_chart(examples, f"trial {number}, validation pictures"),)
    label = meter_label(run.meter, is_estimate=is_estimate(run))
    if name == "front":
        return (front_chart(run, label),)
    if name == "progress":
        history = history_of(run)
        if history is None:
            raise ValueError("the plot must have a front to show, and there is none yet")
        point = reference_text(history.objectives, history.reference, run.metric)
        title = f"hypervolume (quality × decades)\nreference point {point}"
        return progress_charts(history, title, f"joules spent by the search ({label})")
    chart = predictions_chart(
        predictions_of(run.trials()),
        confidence=run.config.gate.confidence,
        meter_label=label,
        unit=run.unit,
    )
    return (chart,)


def is_estimate(run: Run) -> bool:
    """Return whether any joules of ``run`` are an estimate."""
    return any(r.reading.is_estimate for r in run.trials() if r.reading is not None)
