"""Convert trials to members of a Pareto front."""

from __future__ import annotations

from dataclasses import asdict

from nas.core.names import TORCH
from nas.pareto.queries import Figures, FrontMember
from nas.records.trial import Trial
from nas.tasks.base.metric import ACCURACY, Metric
from search_spaces.architecture.simulated import describe_on
from search_spaces.pretrained.writing.stock import stock_refusals
from search_spaces.workload import SAMPLE, Workload


def figures_of(record: Trial) -> Figures:
    """Return the figures by which fronts compare complete trials.

    Raises:
        ValueError: the trial is not complete.
    """
    reading, quality, energy = record.reading, record.quality, record.energy
    if energy is None or quality is None or record.quality_se is None:
        raise ValueError(f"trial {record.number} must be complete, got {record.state}")
    return Figures(
        trial=record.number,
        quality=quality,
        quality_se=record.quality_se,
        energy_j=energy.mean,
        energy_low_j=energy.low,
        energy_high_j=energy.high,
        params=record.params or 0,
        latency_s=None if reading is None else reading.latency_s,
        peak_memory_bytes=record.peak_memory_bytes,
    )


def member_of(
    record: Trial,
    device: str,
    workload: Workload | None = None,
    metric: Metric = ACCURACY,
    unit: str = SAMPLE,
    measured_on: str | None = None,
    runtime: str = TORCH,
) -> FrontMember:
    """Convert a complete trial; formats that ``device`` only simulates are marked.

    ``workload`` is required if joules may be predicted or ``loadable`` is to be known. ``metric``
    is the task's, ``unit`` the unit that joules are reported per, ``measured_on`` the search's
    name for the device. ``runtime`` is the search's main one, of joules that name none.

    Raises:
        ValueError: the trial is not complete.
    """
    reading, figures = record.reading, figures_of(record)
    quality, quality_se = figures.quality, figures.quality_se
    return FrontMember(
        **asdict(figures),
        architecture=record.architecture.to_dict(),
        architecture_text=describe_on(record.architecture, device),
        test_quality=record.test_quality,
        meter="predicted" if reading is None else reading.meter,
        source="predicted" if reading is None else reading.source,
        is_estimate=True if reading is None else reading.is_estimate,
        device=device if reading is None else reading.place,
        workload=("" if workload is None else workload.key)
        if reading is None
        else reading.workload,
        n_evaluations=record.n_evaluations,
        baseline=record.baseline,
        weights=record.weights,
        joules=record.joules,
        finalist_of=record.finalist_of,
        inherited_quality=record.inherited_quality,
        train_energy_j=record.train_energy_j,
        metric=metric.key,
        score=metric.score(quality),
        score_se=metric.score_error(quality, quality_se),
        unit=unit,
        measured_on=measured_on,
        flags=() if reading is None else reading.caveats,
        limits="" if reading is None else reading.limits_text,
        power_limit_w=None
        if reading is None or reading.board is None
        else reading.board.power_limit_w,
        runtime=record.runtime or runtime,
        other_runtimes_j={
            name: other.energy_j
            for name, other in record.in_runtimes.items()
            if other is not reading
        },
        loadable=None if workload is None else not stock_refusals(record.architecture, workload),
    )
