"""Render the account of a search: trials, audit, joules, saving."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nas.core.units import format_bytes, format_joules, format_milliseconds, meter_label
from nas.tasks.base.metric import ACCURACY, Metric

if TYPE_CHECKING:
    from nas.analysis.summary import Saving, SearchSummary, Volume
    from nas.searching.gating.gate import AuditSummary


def render_account(summary: SearchSummary, metric: Metric = ACCURACY) -> str:
    """Render the whole account; ``metric`` is the task's."""
    interrupted = f", {summary.in_flight} interrupted" if summary.in_flight else ""
    stopped = f"{summary.stopped} stopped early, " if summary.stopped else ""
    lines = [
        f"trials: {summary.complete} complete ({summary.measured} measured), {stopped}"
        f"{summary.dropped} dropped by the gate before training, {summary.failed} failed"
        f"{interrupted}",
        *_pruning(summary),
        _audit(summary.audit),
    ]
    if summary.refined:
        lines.append(
            f"refined: {summary.refined} evaluations from other seeds; repeated trials show means"
        )
    if summary.stopped:
        lines.append(_stopped(summary))
    if summary.finalists:
        lines.append(render_fidelity(summary))
    if summary.stop_reason is not None:
        lines.append(f"ended early: {summary.stop_reason}")
    if summary.volume is not None:
        lines.append(_volume(summary.volume, metric))
    return "\n".join([*lines, render_spending(summary, metric)])


def render_spending(summary: SearchSummary, metric: Metric = ACCURACY) -> str:
    """Render the joules of the search, and after how many uses the saving repays them."""
    label = meter_label(summary.meter, is_estimate=summary.is_estimate)
    idle_j = summary.idle_energy_j
    idle = "not measured by this meter" if idle_j is None else format_joules(idle_j)
    teacher_j = summary.teacher_energy_j
    teacher = "" if teacher_j is None else f"the teacher {format_joules(teacher_j)}, "
    supernet_j = summary.supernet_energy_j
    if supernet_j is not None:
        teacher += f"the supernet {format_joules(supernet_j)}, "
    calibration_j = summary.calibration_energy_j
    calibration = f"calibration {format_joules(calibration_j)}, " if calibration_j else ""
    lines = [
        f"spent by the search: {format_joules(summary.spent_energy_j)} ({label}; {teacher}"
        f"training {format_joules(summary.train_energy_j)}, "
        f"measuring {format_joules(summary.measure_energy_j)}, {calibration}idle {idle}), "
        f"{summary.carbon_g:.2g} g CO2e at {summary.carbon_g_per_kwh:g} g/kWh"
    ]
    saving = saving_text(summary, metric)
    return "\n".join([*lines, f"saving: {saving}"] if saving else lines)


def saving_text(summary: SearchSummary, metric: Metric = ACCURACY) -> str:
    """Render what the search saves against its baseline; empty without a baseline."""
    saving, near = summary.saving, summary.near_saving
    if summary.baseline_trial is None:
        return ""
    if saving is None:
        text = (
            f"no trial of the search is as accurate as the baseline "
            f"(trial {summary.baseline_trial}) with fewer joules"
        )
    else:
        text = (
            f"trial {saving.better_trial} is at least as accurate as the baseline "
            f"(trial {saving.baseline_trial}) on validation data with {_pays(saving, summary)}"
        )
    if near is not None and (saving is None or near.better_trial != saving.better_trial):
        text += (
            f"; within {_near_text(metric)}, trial {near.better_trial} has {_pays(near, summary)}"
        )
    quantised = summary.quantised_saving
    if quantised is not None:
        text += (
            f"; quantised without training, the checkpoint itself (trial "
            f"{quantised.better_trial}) has {quantised.ratio:.1f}x fewer joules within "
            f"{_near_text(metric)}"
        )
    return text


def _pays(saving: Saving, summary: SearchSummary) -> str:
    uses = "inferences" if summary.unit == "sample" else f"{summary.unit}s"
    return (
        f"{saving.ratio:.1f}x fewer joules; that pays for the search after "
        f"{saving.inferences_to_break_even:,.0f} {uses}"
    )


def _near_text(metric: Metric) -> str:
    """Return the loss of quality that counts as near, in words."""
    from nas.analysis.summary import NEAR, NEAR_BITS

    if metric.scale == "bits":
        return f"{NEAR_BITS:.0%} more {metric.name}"
    return f"{NEAR:.2g} of the baseline's {metric.name}"


def render_fidelity(summary: SearchSummary) -> str:
    """Render how well finalists ranked before their last training, with advice if poorly."""
    from nas.evaluation.fidelity import LEAST_TAU, LEAST_TAU_OF_RECOVERIES

    fidelity = summary.fidelity
    if summary.is_from_checkpoint:
        qualities, least = "qualities after short and long training", LEAST_TAU_OF_RECOVERIES
        unknown = (
            "short trainings may rank candidates badly, and more --finalists or --epochs show it "
            "or help"
        )
        advice = "short trainings do not rank these candidates well; raise --epochs"
    else:
        qualities, least = "inherited and final qualities", LEAST_TAU
        unknown = (
            "inherited qualities may rank badly, and nas search --evaluator scratch does not "
            "depend on them"
        )
        advice = (
            "inherited qualities do not rank this space well; search it with --evaluator scratch, "
            "or train the supernet for longer"
        )
    if fidelity is None:
        return f"rank fidelity: not known from {summary.finalists} finalists; {unknown}"
    tau = fidelity.tau
    text = (
        f"rank fidelity: Kendall tau {tau.mean:.2f} (95% interval {tau.low:.2f} to "
        f"{tau.high:.2f}) between {qualities} of {fidelity.n} finalists"
    )
    return f"{text}\nbelow {least}: {advice}" if tau.mean < least else text


def reference_text(objectives: Sequence[str], reference: Sequence[float], metric: Metric) -> str:
    """Return the reference point of the hypervolume, each objective in its unit."""
    units: dict[str, Callable[[float], str]] = {
        "quality": lambda v: metric.text(v, digits=1),
        "joules": format_joules,
        "latency": format_milliseconds,
        "params": lambda v: f"{v:,.0f} parameters",
        "memory": format_bytes,
    }
    pairs = zip(objectives, reference, strict=True)
    return ", ".join(units[name](value) for name, value in pairs)


def _volume(volume: Volume, metric: Metric) -> str:
    point = reference_text(volume.objectives, volume.reference, metric)
    why = "as set" if volume.reference_is_set else "a tenth of the front's extent beyond its worst"
    decades = "decades of joules" if len(volume.objectives) == 2 else "decades of each cost"
    return (
        f"hypervolume: {volume.hypervolume:.4f} (quality x {decades}), "
        f"reference point {point} ({why})"
    )


def _stopped(summary: SearchSummary) -> str:
    saved = []
    if summary.stopped_saved_s is not None:
        saved.append(f"{summary.stopped_saved_s:,.0f} s")
    if summary.stopped_saved_j is not None:
        saved.append(format_joules(summary.stopped_saved_j))
    what = " and ".join(saved) or "an unknown amount"
    return (
        f"stopped early: saved {what} of training, an estimate from the epochs left and what each "
        f"had taken"
    )


def _pruning(summary: SearchSummary) -> list[str]:
    """Render what the search considered and pruned; nothing if its sampler considers nothing."""
    counts = summary.pruning
    if not counts.considered:
        return []
    cost = ""
    if summary.pruned_energy_j is not None and counts.pruned:
        cost = (
            f"; training those would have cost {format_joules(summary.pruned_energy_j)} (estimate)"
        )
    return [
        f"candidates: {counts.considered:,} considered, {counts.pruned:,} pruned before training "
        f"({counts.share:.0%}: {counts.dominated:,} dominated, {counts.over_limit:,} over a limit)"
        f"{cost}"
    ]


def _audit(audit: AuditSummary) -> str:
    rate = audit.false_drop_rate
    if rate is None:
        return "gate audit: no pruned candidate was audited, so no false-drop rate"
    return (
        f"gate audit: {audit.n_false} of {audit.n_audited} pruned candidates, drawn at random, "
        f"were on the front after all, false-drop rate {rate.mean:.0%} "
        f"(95% interval {rate.low:.0%} to {rate.high:.0%})"
    )
