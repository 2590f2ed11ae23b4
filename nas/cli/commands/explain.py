"""``nas explain``: explain why a trial is on the Pareto front of its run, or is not."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from nas.cli.options.common import add_json
from nas.cli.options.storage import add_run, loaded
from nas.cli.output.tables import print_result
from nas.core.units import format_bytes, format_interval, format_joules, format_milliseconds
from nas.tasks.base.metric import ACCURACY, Metric
from predictors.meters.flags import describe_flag

if TYPE_CHECKING:
    from nas.analysis.explain import Broken, Dominator, Explanation
    from search_spaces.workload import Workload

HELP = "explain why a trial is on the front, or is not"
SCHEMA_VERSION = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    add_run(parser)
    parser.add_argument("trial", type=int, help="trial number")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the verb."""
    from nas.analysis.explain import explain

    source = loaded(arguments)
    explanation = explain(source, arguments.trial)
    data = {"schema": SCHEMA_VERSION} | explanation.to_dict()
    text = render(explanation, source.metric, source.stored_workload)
    print_result(data, text, as_json=arguments.json)
    return 0


def render(found: Explanation, metric: Metric = ACCURACY, workload: Workload | None = None) -> str:
    """Render an explanation, with qualities in the unit of ``metric``.

    Joules per sample of ``workload`` are shown beside those per unit, where samples have a name.
    """
    lines = [f"trial {found.trial}: {found.architecture_text}", f"  {_verdict(found)}"]
    if found.reason is not None:
        lines.append(f"  reason     {found.reason}")
    if found.quality is not None:
        score = metric.text(found.quality.value, found.quality.standard_error)
        lines.append(f"  {metric.name:<10} {score} on validation data")
    if found.energy is not None and found.joules == "measured":
        label = "estimated" if found.is_estimate else "measured"
        energy = format_interval(found.energy)
        lines.append(f"  joules     {label} {energy.replace(' [', f' per {found.unit} [')}")
        if workload is not None and workload.sample_name is not None:
            of_sample = format_joules(found.energy.mean * workload.units_per_sample)
            lines.append(f"             {label} {of_sample} per {workload.sample_name}")
    if len(found.in_runtimes_j) + len(found.left_out_runtimes) > 1:
        how = "measured" if found.in_runtimes_j else "predicted"
        lines.append(f"  runtime    {found.runtime}, the cheapest {how}")
        measured = {n: format_joules(j) for n, j in found.in_runtimes_j.items()}
        rows = {**measured, **found.left_out_runtimes}.items()
        lines += [f"             {n}: {text}" for n, text in rows if n != found.runtime]
    if found.limits:
        lines.append(f"  board      limited to {found.limits}")
    lines += [f"  flag       {flag}: {describe_flag(flag)}" for flag in found.flags]
    lines += _predicted(found)
    if found.front_probability is not None:
        lines.append(f"  P(Pareto)  {found.front_probability:.0%}, given the standard errors")
    lines += [f"  limit      {_broken(broken)}" for broken in found.broken]
    quality = 0.0 if found.quality is None else found.quality.value
    for dominator in found.dominators:
        lines += _dominator(dominator, quality, metric)
    left = found.n_dominators - len(found.dominators)
    if left:
        lines.append(f"  and {left} more dominate it")
    if found.needed_quality is not None and found.needed_energy_j is not None:
        beyond = "below" if metric.falls else "above"
        above = f"{beyond} {metric.text(found.needed_quality)} at these joules, or "
        lines.append(
            f"  it would be on the front {above if found.needed_quality < 1 else ''}"
            f"below {format_joules(found.needed_energy_j)} at this {metric.name}"
        )
    return "\n".join(lines)


def _verdict(found: Explanation) -> str:
    baseline = ", a baseline" if found.baseline else ""
    audit = ", evaluated only to audit the gate, which would have dropped it"
    place = found.why if found.why == "on the front" else f"not on the front: {found.why}"
    return f"{place}{baseline}{audit if found.audit else ''}"


def _predicted(found: Explanation) -> list[str]:
    if found.prediction is None:
        return []
    predicted = format_interval(found.prediction)
    what = "estimate" if found.is_estimate else "measurement"
    where = {None: "", True: f"; the {what} is inside", False: f"; the {what} is outside"}
    return [
        f"  predicted  {predicted} before training, at {found.confidence:.0%}{where[found.inside]}"
    ]


_UNITS = {
    "max_joules": format_joules,
    "max_latency_s": format_milliseconds,
    "max_params": lambda n: f"{n:,.0f}",
    "max_memory_bytes": format_bytes,
}


def _broken(broken: Broken) -> str:
    show = _UNITS[broken.limit]
    return f"{broken.limit} allows {show(broken.allowed)}, the trial has {show(broken.value)}"


def _dominator(dominator: Dominator, quality: float, metric: Metric) -> list[str]:
    gain, ratio = dominator.quality_gain, dominator.joules_ratio
    if metric.scale == "percent":
        better = [f"{gain * 100:.2f} points more accurate" if gain else "as accurate"]
    else:
        apart = abs(metric.score(quality + gain) - metric.score(quality))
        better = [f"{apart:.3g} {metric.name} better" if gain else f"as good in {metric.name}"]
    better.append(f"{ratio:.3g}x fewer joules" if ratio > 1 else "as many joules")
    better += [f"{ratio:.3g}x less {name}" for name, ratio in dominator.cost_ratios.items()]
    knobs = ", ".join(f"{k.name} {_value(k.this)} -> {_value(k.other)}" for k in dominator.knobs)
    return [
        f"  dominated  by trial {dominator.trial} ({dominator.architecture_text}): "
        f"{', '.join(better)}",
        f"             {knobs or 'the same genes'}",
    ]


def _value(value: Any) -> str:
    return "none" if value is None else str(value)
