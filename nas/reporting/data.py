"""The data of the page: texts, charts and the values that its filters compare."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

from nas.analysis.account import render_fidelity, saving_text
from nas.analysis.front_table import (
    PARETO_NOTE,
    condition_notes,
    device_text,
    front_columns,
    runtime_notes,
)
from nas.analysis.history import History, history_of
from nas.analysis.summary import SearchSummary, summarise
from nas.charts.architecture import architecture_chart
from nas.charts.axis import position
from nas.charts.chart import Axis, Chart, Series, box
from nas.charts.front import shown_energy
from nas.charts.of_run import charts_of, is_estimate
from nas.charts.progress import fidelity_chart
from nas.core.units import (
    JOULE_UNITS,
    format_bytes,
    format_grams,
    format_interval,
    format_joules,
    format_milliseconds,
    meter_label,
)
from nas.core.versions import of_all
from nas.pareto.queries import Front, FrontMember
from nas.records.trial import Trial, judged
from nas.store.run import Run
from nas.tasks.base.metric import Metric, get_metric
from nas.tasks.embeddings.agreements import agreements_in
from search_spaces.architecture.simulated import describe_on

SCHEMA_VERSION = 1

# A name and its text, in the order of display.
Rows = list[tuple[str, str]]


def page_data(run: Run, *, with_importance: bool = False) -> dict[str, Any]:
    """Return the page's data of ``run`` as it stands; energies are joules per ``unit``.

    ``version`` is a digest of everything except the time. The importance of genes takes seconds to
    compute.

    Raises:
        StorageError: the study cannot be opened.
    """
    records, summary, front, history = run.trials(), summarise(run), run.front(), history_of(run)
    trials = [r for r in judged(records) if r.energy_j]
    members = {member.trial: member for member in front}
    names = ["front", "progress", "examples", "predictions"]
    if with_importance:
        names.append("importance")
    data: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "run": run.folder.resolve().name,
        "texts": _texts(run, summary, history),
        "is_estimate": is_estimate(run),
        "filter": _filter(run.metric, run.unit),
        "tiles": _tiles(run, summary, front),
        "charts": {name: _charts(run, name) for name in names}
        | {"fidelity": _dicts(fidelity_chart(records, run.metric))},
        "trials": [_trial(run, record, members.get(record.number)) for record in trials],
        "members": _members(front),
        "account": _account(summary, run.metric),
        "provenance": _provenance(run, records),
    }
    text = json.dumps(data, sort_keys=True, allow_nan=False)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return data | {"version": hashlib.sha256(text.encode()).hexdigest()[:16], "written": now}


def _charts(run: Run, name: str) -> list[dict[str, Any]]:
    """Return the charts of that name; none if the run has too few trials for them."""
    try:
        return _dicts(*charts_of(run, name))
    except ValueError:
        return []


def _dicts(*charts: Chart | None) -> list[dict[str, Any]]:
    return [chart.to_dict() for chart in charts if chart is not None]


def _texts(run: Run, summary: SearchSummary, history: History | None) -> dict[str, str]:
    """Return the texts of single elements, by the element's identifier."""
    metric, device = run.metric, run.config.measured_device
    state = "search ended" if summary.finished else f"{summary.in_flight} trials in flight"
    elapsed_s = history.steps[-1].elapsed_s if history is not None else None
    return {
        "kicker": f"JouleNAS, {run.task} on {device_text(device, run.measured_on)}",
        "title": run.folder.resolve().name,
        "status": f"{state}; meter: {meter_label(run.meter, is_estimate=is_estimate(run))} ",
        "front-head": f"{metric.name[:1].upper()}{metric.name[1:]} against joules",
        "bars-note": f"Bars are 95% intervals of joules and standard errors of {metric.name}. "
        "Point for figures; click, or move with the arrow keys and press Enter, for a trial's "
        "card.",
        "progress-note": "There is no front yet."
        if history is None
        else ""
        if elapsed_s is None
        else f"{elapsed_s:,.0f} s from the first trial's end to the last's.",
        "fidelity-note": render_fidelity(summary) if summary.finalists else "",
        "footer": f"The run started {run.started}.",
    }


def _filter(metric: Metric, unit: str) -> dict[str, Any]:
    """Return the units of a typed budget, and the direction and unit of a typed quality."""
    sense = "most" if metric.falls else "least"
    percent = metric.scale == "percent"
    return {
        "units": JOULE_UNITS,
        "budget": f"most joules per {unit}, such as 20 uJ",
        "sign": -1 if metric.falls else 1,
        "sense": f"at {sense}",
        "quality": f"{sense} {metric.name}{' in percent' if percent else ''}",
        "unit": "%" if percent else metric.name,
    }


def _tiles(run: Run, summary: SearchSummary, front: Front) -> Rows:
    ended = summary.complete + summary.stopped + summary.failed
    estimate = " (estimate)" if is_estimate(run) else ""
    label = meter_label(summary.meter, is_estimate=summary.is_estimate)
    best = run.metric.text(front.best().quality) if len(front) else "none yet"
    least = format_joules(min(m.energy_j for m in front)) if len(front) else "none yet"
    return [
        (f"{ended} of {run.config.trials}", "trials evaluated"),
        (f"{summary.dropped}", "dropped by the gate"),
        (f"{len(front)}", "on the front"),
        (best, f"best {run.metric.name}"),
        (least, f"fewest per {run.unit}{estimate}"),
        (format_joules(summary.spent_energy_j), f"spent ({label})"),
    ]


def _trial(run: Run, record: Trial, member: FrontMember | None) -> dict[str, Any]:
    """Return a point of the front's chart: values to filter by, its label, and its card."""
    device, metric = run.config.measured_device, run.metric
    what, quality = describe_on(record.architecture, device), record.quality or 0.0
    if record.candidate.runtimes:
        what = f"{what}, {record.runtime}"
    baseline = " (baseline)" if record.baseline else ""
    place = "dominated" if member is None else "on the front"
    energy = shown_energy(record)
    quality_at = position(metric, quality)
    reading = record.reading
    kind = (
        "predicted"
        if reading is None
        else meter_label(reading.meter, is_estimate=reading.is_estimate)
    )
    card: list[tuple[str, str | None]] = [
        ("place", place),
        (metric.name, f"{metric.text(quality, record.quality_se)} (validation)"),
        (
            f"test {metric.name}",
            _text(record.test_quality, "{} (never used to choose)", metric.text),
        ),
        *_agreement_rows(run, record.number),
        ("chosen by", _text(record.inherited_quality, "{}", metric.text)),
        (f"joules ({kind})", f"{format_interval(energy)} per {run.unit}"),
    ]
    if record.candidate.runtimes:
        card += [("runtime", record.runtime), *_runtime_rows(record)]
    if reading is not None:
        flags = reading.caveat_texts
        card += [
            ("board's limits", reading.limits_text or None),
            *(("flag", flag if flag == text else f"{flag}: {text}") for flag, text in flags),
            ("latency", _text(reading.latency_s, "{} per batch", format_milliseconds)),
        ]
    predicted = record.prediction
    if predicted is not None:
        card.append(("predicted", format_interval(predicted)))
    spent = (record.train_energy_j, record.measure_energy_j)
    if spent[0] is not None:
        training, measuring = (format_joules(j or 0.0) for j in spent)
        card.append(("cost of search", f"training {training}, measuring {measuring}"))
    n = record.n_evaluations
    probability = None if member is None else member.front_probability
    card += [
        ("P(Pareto)", _text(probability, "{}", "{:.0%}".format)),
        ("parameters", _text(record.params, "{}", "{:,}".format)),
        ("memory, counted", _text(record.peak_memory_bytes, "{}", format_bytes)),
        ("evaluations", f"mean of {n}" if n > 1 else None),
    ]
    # The task's own workload would need its data.
    chart = architecture_chart(record.architecture, run.stored_workload, what, device)
    return {
        "trial": record.number,
        "on_front": member is not None,
        "energy_j": energy.mean,
        "energy": format_joules(energy.mean),
        "quality_at": quality_at if math.isfinite(quality_at) else None,
        "label": f"trial {record.number}{baseline}, {place}: {metric.text(quality)} at "
        f"{format_joules(energy.mean)} per {run.unit}, {what}",
        "title": f"trial {record.number}{baseline}: {what}",
        "card": [(name, value) for name, value in card if value is not None],
        "chart": chart.to_dict(),
        "commands": f"nas explain RUN {record.number}; "
        f"nas export RUN --trial {record.number} --to model",
    }


def _runtime_rows(record: Trial) -> Rows:
    """Return the joules in the other runtimes of a search, or why there are none."""
    measured = [
        (f"in {name}", format_interval(reading.estimate))
        for name, reading in record.in_runtimes.items()
        if reading is not record.reading
    ]
    return [*measured, *((f"in {n}", why) for n, why in record.left_out_runtimes.items())]


def _agreement_rows(run: Run, trial: int) -> Rows:
    """Return the agreement of an embedding network with its checkpoint by the other metrics."""
    rows = []
    for score in agreements_in(run.trials_place / str(trial)):
        metric = get_metric(score.metric)
        if metric != run.metric:
            text = metric.text(score.value, score.standard_error)
            rows.append((metric.name, f"{text} (validation)"))
    return rows


def _text(value: Any, form: str, show: Any) -> str | None:
    return None if value is None else form.format(show(value))


def _members(front: Front) -> dict[str, Any]:
    """Return the table that ``nas front`` prints, with its notes."""
    if not len(front):
        return {"head": [], "right": [], "rows": [], "notes": []}
    columns = front_columns(front)
    return {
        "head": [head for head, _, _ in columns],
        "right": [is_right for *_, is_right in columns],
        "rows": list(zip(*(cells for _, cells, _ in columns), strict=True)),
        "notes": [
            *condition_notes(front),
            *runtime_notes(front),
            PARETO_NOTE,
            "* recorded, never used to choose",
        ],
    }


def _account(summary: SearchSummary, metric: Metric) -> dict[str, Any]:
    """Return the joules of the search by their use, as a bar and as rows."""
    parts = {
        "training": summary.train_energy_j,
        "measuring": summary.measure_energy_j,
        "teacher": summary.teacher_energy_j,
        "supernet": summary.supernet_energy_j,
        "idle": summary.idle_energy_j,
    }
    total_j = summary.spent_energy_j or 1.0
    rows: Rows = []
    series = []
    end = 0.0
    for name, energy_j in parts.items():
        if energy_j:
            start, end = end, end + energy_j / total_j
            series.append(Series(name, name, "box", (box(start, end, 0, 1),)))
            rows.append((name, f"{format_joules(energy_j)} ({energy_j / total_j:.0%})"))
    if summary.idle_energy_j is None:
        rows.append(("idle", "not measured by this meter"))
    label = meter_label(summary.meter, is_estimate=summary.is_estimate)
    intensity = f"{summary.carbon_g_per_kwh:g} g/kWh"
    rows += [
        ("all", f"{format_joules(summary.spent_energy_j)} ({label})"),
        ("carbon", f"{format_grams(summary.carbon_g)} CO2e at {intensity}"),
    ]
    title = ", ".join(": ".join(row) for row in rows)
    chart = Chart(title, Axis("", 0, 1), Axis("", 0, 1), tuple(series), height=0.08, framed=False)
    return {"chart": chart.to_dict(), "rows": rows, "saving": saving_text(summary, metric)}


def _provenance(run: Run, records: Sequence[Trial]) -> list[Rows]:
    """Return a table for each set of measuring conditions, and one of the search itself."""
    by_conditions: dict[tuple[Any, ...], list[Any]] = {}
    for record in records:
        if (r := record.reading) is not None:
            board = None if r.board is None else r.board.uuid
            key = (r.meter, r.source, r.is_estimate, r.device, r.workload, r.protocol_hash)
            by_conditions.setdefault((*key, r.driver, r.limits_text, board), []).append(r)
    tables = []
    for (*_, board), readings in by_conditions.items():
        r, n = readings[0], len(readings)
        flagged = sum(bool(each.caveats) for each in readings)
        windows = sum(each.n_repeats for each in readings)
        converged = sum(each.converged for each in readings)
        rows = [
            ("meter", meter_label(r.meter, is_estimate=r.is_estimate)),
            ("source", r.source),
            ("device", r.device if r.driver is None else f"{r.device}, driver {r.driver}"),
            ("board", board),
            ("board's limits", r.limits_text or None),
            ("flags", f"{flagged} of {n} trials, as their cards show" if flagged else None),
            ("workload", r.workload),
            ("protocol", f"{run.config.protocol}, hash {r.protocol_hash}"),
            ("trials", f"{n}, in {windows} windows; {converged} intervals as narrow as required"),
            (
                "kind",
                "an estimate: joules follow from a stated power, not from a sensor"
                if r.is_estimate
                else "measured by a sensor",
            ),
        ]
        tables.append([(name, value) for name, value in rows if value is not None])
    config = run.config
    versions = _versions(run)
    search = f"{config.sampler}, seed {config.seed}, space {config.space.name}"
    tables.append([("search", f"{search}, started {run.started}"), ("versions", versions)])
    return tables


def _versions(run: Run) -> str:
    versions = of_all(run.starts) or run.versions
    return ", ".join(f"{name} {version}" for name, version in versions.items())
