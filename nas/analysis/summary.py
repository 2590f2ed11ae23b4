"""The account of a search: counts, the gate's audit, joules, carbon, saving, break-even."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from nas.evaluation.fidelity import Fidelity, fidelity_of
from nas.evaluation.supernet_weights import spent_before
from nas.pareto.hypervolume import (
    hypervolume,
    reference_point,
    volume_losses,
    volume_values,
)
from nas.pareto.lifetime import JOULES_PER_KWH
from nas.records.config import CHECKPOINT, LARGEST
from nas.records.goals import Goals
from nas.records.spent import spent_in
from nas.records.trial import Trial, judged
from nas.searching.calibration.calibration import spent_in as spent_in_calibration
from nas.searching.device_account import device_energy_j
from nas.searching.gating.gate import AuditSummary, audit_summary
from nas.searching.gating.pruning import PruningCounts, read_counts
from nas.store.run import Run
from nas.tasks.base.metric import Metric
from search_spaces.space.cuts import is_uncut

# A quality near another: within a point of a share, or with 2% more bits.
NEAR, NEAR_BITS = 0.01, 0.02


@dataclass(frozen=True, slots=True)
class Saving:
    """The trial of fewest joules with at least the quality of a baseline.

    It is never a baseline itself, which the user had before the search. Energies are per unit of
    the workload (a sample, or a token of a phase); ``inferences_to_break_even`` units save the
    joules of the search.
    """

    baseline_trial: int
    baseline_energy_j: float
    better_trial: int
    better_energy_j: float
    inferences_to_break_even: float

    @property
    def ratio(self) -> float:
        """The baseline's joules divided by the better trial's."""
        return self.baseline_energy_j / self.better_energy_j


@dataclass(frozen=True, slots=True)
class Volume:
    """Hypervolume of the front: quality times decades of each cost, from ``reference``.

    ``reference`` has a value for each of ``objectives``, in their own units. If the
    search sets none, it moves with the front, and hypervolumes of two runs do not compare.
    """

    hypervolume: float
    objectives: tuple[str, ...]
    reference: tuple[float, ...]
    reference_is_set: bool


@dataclass(frozen=True, slots=True)
class SearchSummary:
    """The account of one search. Energies are in joules, carbon in grams of CO2 equivalent.

    ``refined`` counts evaluations after the search, of trials of uncertain place on the front.
    ``stopped_saved_s`` and ``stopped_saved_j`` estimate the rest of the training of ``stopped``
    trials at their own rate, measuring excluded; ``None`` if the rate of one is unknown.

    ``pruning`` counts the candidates that the sampler considered; training those that were pruned
    would have cost ``pruned_energy_j``, an estimate from the mean training, ``None`` without one.
    ``measured`` counts trials with measured joules.
    ``calibration_energy_j`` are the joules of measuring untrained architectures and references.
    ``teacher_energy_j`` and ``supernet_energy_j`` are the joules of their training, ``None``
    without one. With a supernet, ``complete`` and other counts include ``finalists``, which were
    fine-tuned and measured, and ``fidelity`` is the rank correlation of inherited qualities. In a
    search ``is_from_checkpoint`` finalists are trained for longer, and it is that of the qualities
    before and after.
    ``idle_energy_j`` is the rest of the device's joules, ``None`` if it was not measured
    (estimates, remote clusters). ``saving`` is relative to ``baseline_trial``, and ``None`` if no
    trial is as accurate with fewer joules. In a search from a checkpoint, ``near_saving`` is that
    of a trial within ``NEAR`` of its quality, and ``quantised_saving`` that of the checkpoint
    itself in another precision, without training. Joules of a trial are per ``unit``.
    """

    finished: bool
    stop_reason: str | None
    complete: int
    stopped: int
    dropped: int
    failed: int
    in_flight: int
    refined: int
    stopped_saved_s: float | None
    stopped_saved_j: float | None
    audit: AuditSummary
    pruning: PruningCounts
    measured: int
    pruned_energy_j: float | None
    train_energy_j: float
    measure_energy_j: float
    calibration_energy_j: float
    teacher_energy_j: float | None
    supernet_energy_j: float | None
    finalists: int
    fidelity: Fidelity | None
    is_from_checkpoint: bool
    idle_energy_j: float | None
    carbon_g: float
    carbon_g_per_kwh: float
    meter: str
    is_estimate: bool
    baseline_trial: int | None
    saving: Saving | None
    near_saving: Saving | None
    quantised_saving: Saving | None
    volume: Volume | None
    unit: str

    @property
    def spent_energy_j(self) -> float:
        """The sum of all measured or estimated joules."""
        parts = (
            self.train_energy_j,
            self.measure_energy_j,
            self.calibration_energy_j,
            self.teacher_energy_j,
            self.supernet_energy_j,
        )
        return sum(energy_j or 0.0 for energy_j in (*parts, self.idle_energy_j))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {"audit": self.audit.to_dict()}


def summarise(
    run: Run, *, baseline: int | None = None, carbon_g_per_kwh: float | None = None
) -> SearchSummary:
    """Return the account of ``run`` as it stands.

    Savings are relative to the trial ``baseline``, by default the first baseline of the search;
    ``carbon_g_per_kwh`` replaces that of the search.

    Raises:
        ValueError: the baseline is no complete trial, or the carbon intensity is not above 0.
    """
    intensity = run.config.carbon_g_per_kwh if carbon_g_per_kwh is None else carbon_g_per_kwh
    if not (math.isfinite(intensity) and intensity > 0):
        raise ValueError(f"carbon_g_per_kwh must be finite and > 0, got {intensity!r}")
    records = run.trials()
    train_j = sum(r.train_energy_j or 0.0 for r in records)
    measure_j = sum(r.measure_energy_j or 0.0 for r in records)
    ended = [r for r in records if r.state in ("complete", "stopped", "failed")]
    trained = [r for r in ended if r.finalist_of is None]
    finished = len(trained) >= run.config.trials or run.stop_reason is not None
    supernet_j = None
    if run.config.has_finalists:
        chosen, tuned = run.finalists(), {r.finalist_of for r in ended}
        finished = finished and chosen is not None and tuned.issuperset(chosen)
    if run.config.supernet is not None:
        supernet = run.supernet()
        supernet_j = spent_before(run.supernet_folder) if supernet is None else supernet.energy_j
    readings = [r.reading for r in records if r.reading is not None]
    further = [reading for r in records for reading in r.readings.values()]
    device_j = device_energy_j(run.device_account_path)
    # Trials that share a device each count a share of its joules; the sum may slightly exceed it.
    teacher = run.teacher()
    teacher_j = None if teacher is None else teacher.energy_j
    if teacher is None and run.config.teacher in (LARGEST, CHECKPOINT):
        # The teacher's training was interrupted, or continues.
        spent = spent_in(run.teacher_folder)
        teacher_j = None if spent is None else spent.train_energy_j
    calibration_j = spent_in_calibration(run.calibration_path)
    pruning = read_counts(run.pruning_path)
    costs_j = [r.train_energy_j for r in trained if r.train_energy_j is not None]
    pruned_j = pruning.pruned * sum(costs_j) / len(costs_j) if costs_j else None
    busy_j = train_j + measure_j + calibration_j + (teacher_j or 0.0) + (supernet_j or 0.0)
    idle_j = None if device_j is None else max(0.0, device_j - busy_j)
    spent_j = busy_j + (idle_j or 0.0)
    reference = _baseline(records, baseline)
    near, quantised = _savings_near(run, records, reference, spent_j)
    return SearchSummary(
        finished=finished,
        stop_reason=run.stop_reason,
        complete=sum(r.state == "complete" for r in records),
        stopped=sum(r.state == "stopped" for r in records),
        dropped=sum(r.state == "dropped" for r in records),
        failed=sum(r.state == "failed" for r in records),
        in_flight=sum(r.state == "running" for r in records),
        refined=sum(r.n_evaluations - 1 for r in records),
        stopped_saved_s=_stopped_saved(records, "duration_s"),
        stopped_saved_j=_stopped_saved(records, "train_energy_j"),
        audit=audit_summary(records, run.config.goals),
        pruning=pruning,
        measured=len(readings),
        pruned_energy_j=pruned_j,
        train_energy_j=train_j,
        measure_energy_j=measure_j,
        calibration_energy_j=calibration_j,
        teacher_energy_j=teacher_j,
        supernet_energy_j=supernet_j,
        finalists=sum(r.state == "complete" and r.finalist_of is not None for r in records),
        fidelity=fidelity_of(records),
        is_from_checkpoint=run.config.checkpoint is not None,
        idle_energy_j=idle_j,
        carbon_g=spent_j / JOULES_PER_KWH * intensity,
        carbon_g_per_kwh=intensity,
        meter=readings[0].meter if readings else run.meter,
        is_estimate=any(reading.is_estimate for reading in (*readings, *further)),
        baseline_trial=None if reference is None else reference.number,
        saving=None if reference is None else _saving(records, reference, spent_j),
        near_saving=near,
        quantised_saving=quantised,
        volume=volume_of(records, run.config.goals),
        unit=run.unit,
    )


def volume_of(records: Sequence[Trial], goals: Goals) -> Volume | None:
    """Return the hypervolume of a search's front, ``None`` before there is a front."""
    front = goals.front(records)
    if not front:
        return None
    losses = volume_losses([goals.values(r) for r in front])
    if goals.reference is not None:
        point = volume_losses([goals.reference])[0]
    else:
        all_losses = volume_losses([goals.values(r) for r in judged(records)])
        point = reference_point(losses, all_losses)
    reference = goals.reference or volume_values(point)
    volume = hypervolume(losses, point, (False,) * len(point))
    return Volume(volume, goals.names, reference, goals.reference is not None)


def _stopped_saved(
    records: Sequence[Trial], field: Literal["duration_s", "train_energy_j"]
) -> float | None:
    """Estimate the rest of ``field`` of stopped trials, ``None`` if it is unknown."""
    total = 0.0
    for record in records:
        if record.state != "stopped":
            continue
        spent: float | None = getattr(record, field)
        if spent is None or record.planned_epochs is None or record.epochs is None:
            return None
        total += spent * (record.planned_epochs / record.epochs - 1)
    return total


def _baseline(records: Sequence[Trial], number: int | None) -> Trial | None:
    complete = {r.number: r for r in judged(records)}
    if number is None:
        return next((r for r in complete.values() if r.baseline), None)
    if number not in complete:
        allowed = f"numbers {min(complete)} to {max(complete)}" if complete else "none yet"
        raise ValueError(f"baseline must be a complete trial ({allowed}), got {number}")
    return complete[number]


def least_near(metric: Metric, baseline: Trial) -> float:
    """Return the least quality that counts as near that of ``baseline``; see ``NEAR``."""
    quality = baseline.objectives[0]
    if metric.scale == "bits":
        return metric.share(metric.score(quality) * (1 + NEAR_BITS))
    return quality - NEAR


def _savings_near(
    run: Run, records: Sequence[Trial], baseline: Trial | None, spent_j: float
) -> tuple[Saving | None, Saving | None]:
    """Return the saving near the quality of a checkpoint: of any trial, and of it quantised."""
    parent = run.config.space.parent
    if baseline is None or run.config.checkpoint is None or parent is None:
        return None, None
    least = least_near(run.metric, baseline)
    uncut = [r for r in records if is_uncut(r.architecture, parent) and r.qat != "kept"]
    near, quantised = (_saving(each, baseline, spent_j, least=least) for each in (records, uncut))
    return near, quantised


def _saving(
    records: Sequence[Trial], baseline: Trial, spent_j: float, *, least: float | None = None
) -> Saving | None:
    """Return the saving of a trial of ``least`` quality, by default the baseline's."""
    quality, baseline_j = baseline.objectives
    least = quality if least is None else least
    rivals = [
        (r.objectives[1], r.number)
        for r in judged(records)
        # A baseline is not a result of the search.
        if not r.baseline and r.objectives[0] >= least and r.objectives[1] < baseline_j
    ]
    if not rivals:
        return None
    energy_j, number = min(rivals)
    return Saving(
        baseline_trial=baseline.number,
        baseline_energy_j=baseline_j,
        better_trial=number,
        better_energy_j=energy_j,
        inferences_to_break_even=spent_j / (baseline_j - energy_j),
    )
