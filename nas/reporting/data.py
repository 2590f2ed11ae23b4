"""What the page shows of a run, as plain data."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from nas.analysis.history import history_of
from nas.analysis.predictions import coverage_of, predictions_of
from nas.analysis.summary import SearchSummary, summarise
from nas.core.versions import of_all
from nas.pareto.queries import FrontMember
from nas.plots.axis import joule_frame, quality_axis
from nas.plots.blocks import blocks_of
from nas.records.trial import Trial, judged
from nas.store.run import Run
from nas.tasks.base.metric import Metric
from search_spaces.architecture.simulated import describe_on

SCHEMA_VERSION = 1


def page_data(run: Run) -> dict[str, Any]:
    """All that the page shows of ``run`` as it stands; energies in joules per ``unit``.

    ``version`` changes exactly when anything else but the time does.

    Raises:
        StorageError: the study cannot be opened.
    """
    records, summary = run.trials(), summarise(run)
    front = {member.trial: member for member in run.front()}
    shown = {record.number for record in judged(records)}
    history = history_of(run)
    coverage = coverage_of(predictions_of(records))
    device = run.config.measured_device
    trials = [_trial(r, device, front.get(r.number), r.number in shown) for r in records]
    data: dict[str, Any] = {
        "schema": SCHEMA_VERSION,
        "run": run.folder.resolve().name,
        "task": run.task,
        "metric": {"name": run.metric.name, "scale": run.metric.scale},
        "axis": _axis(run.metric, trials),
        "unit": run.unit,
        "space": run.config.space.name,
        "started": run.started,
        "trials_asked": run.config.trials,
        "costs": list(run.config.goals.costs),
        "summary": summary.to_dict() | {"spent_energy_j": summary.spent_energy_j},
        "trials": trials,
        "history": None if history is None else asdict(history),
        "coverage": None
        if coverage is None
        else asdict(coverage) | {"asked": run.config.gate.confidence},
        "fidelity": _fidelity(records),
        "fidelity_axis": _fidelity_axis(run.metric, _fidelity(records)),
        "provenance": _provenance(run, records, summary),
    }
    text = json.dumps(data, sort_keys=True, allow_nan=False)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return data | {"version": hashlib.sha256(text.encode()).hexdigest()[:16], "written": now}


def _trial(
    record: Trial, device: str, member: FrontMember | None, is_shown: bool
) -> dict[str, Any]:
    """One trial; ``place`` says what it is in the picture."""
    reading, energy_j, prediction = record.reading, record.energy_j, record.prediction
    energy = record.energy or prediction
    place = "trained" if is_shown else record.state
    return {
        "trial": record.number,
        "place": "front" if member is not None else place,
        "state": record.state,
        "text": describe_on(record.architecture, device),
        "blocks": [] if record.state == "dropped" else _blocks(record, device),
        "d_model": record.architecture.d_model,
        "quality": record.quality,
        "quality_se": record.quality_se,
        "test_quality": record.test_quality,
        "energy_j": energy_j,
        "energy_low_j": None if energy is None else energy.low,
        "energy_high_j": None if energy is None else energy.high,
        "joules": "predicted" if reading is None else "measured",
        "is_estimate": reading is None or reading.is_estimate,
        "predicted_energy_j": None if prediction is None else prediction.mean,
        "predicted_low_j": None if prediction is None else prediction.low,
        "predicted_high_j": None if prediction is None else prediction.high,
        "latency_s": None if reading is None else reading.latency_s,
        "power_w": None if reading is None else reading.power_w,
        "flags": []
        if reading is None
        else [{"flag": flag, "text": text} for flag, text in reading.caveat_texts],
        "limits": "" if reading is None else reading.limits_text,
        "params": record.params,
        "peak_memory_bytes": record.peak_memory_bytes,
        "front_probability": None if member is None else member.front_probability,
        "train_energy_j": record.train_energy_j,
        "measure_energy_j": record.measure_energy_j,
        "n_evaluations": record.n_evaluations,
        "baseline": record.baseline,
        "audit": record.audit,
        "weights": record.weights,
        "finalist_of": record.finalist_of,
        "inherited_quality": record.inherited_quality,
        "reason": record.reason,
    }


def _blocks(record: Trial, device: str) -> list[dict[str, Any]]:
    return [asdict(block) for block in blocks_of(record.architecture, device)]


def _fidelity(records: Sequence[Trial]) -> list[dict[str, Any]]:
    """Inherited and final qualities of finalists, where there are any."""
    return [
        {"trial": r.number, "inherited": r.inherited_quality, "own": r.quality}
        for r in records
        if r.state == "complete" and r.inherited_quality is not None
    ]


def _axis(metric: Metric, trials: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Both axes of the main picture: those that ``nas plot`` draws."""
    points = [t for t in trials if t["place"] in ("front", "trained")]
    if not points:
        return None
    dropped = [t["predicted_energy_j"] for t in trials if t["place"] == "dropped"]
    energies = [t["energy_j"] for t in points]
    quality = quality_axis(
        metric, [t["quality"] for t in points], [t["quality_se"] for t in points]
    )
    joules = joule_frame(
        energies + [energy_j for energy_j in dropped if energy_j],
        [t["energy_low_j"] or t["energy_j"] for t in points],
        [t["energy_high_j"] or t["energy_j"] for t in points],
    )
    return quality.to_dict() | {"joules": joules}


def _fidelity_axis(metric: Metric, pairs: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """One axis for inherited and final quality."""
    shares = [pair[name] for pair in pairs for name in ("inherited", "own")]
    return quality_axis(metric, shares).to_dict() if shares else None


def _provenance(run: Run, records: Sequence[Trial], summary: SearchSummary) -> dict[str, Any]:
    """Where the joules come from: each way that trials were measured, and what with."""
    ways: dict[tuple[Any, ...], list[Any]] = {}
    for record in records:
        if (r := record.reading) is not None:
            key = (
                r.meter,
                r.source,
                r.is_estimate,
                r.device,
                r.workload,
                r.protocol_hash,
                r.driver,
                r.limits_text,
                None if r.board is None else r.board.uuid,
            )
            ways.setdefault(key, []).append(r)
    device = run.config.measured_device
    return {
        "meter": summary.meter,
        "is_estimate": summary.is_estimate,
        "device": device if run.measured_on is None else f"{run.measured_on} ({device})",
        "protocol": run.config.protocol,
        "versions": of_all(run.starts) or run.versions,
        "seed": run.config.seed,
        "sampler": run.config.sampler,
        "carbon_g_per_kwh": summary.carbon_g_per_kwh,
        "readings": [
            {
                "meter": meter,
                "source": source,
                "is_estimate": is_estimate,
                "device": device,
                "workload": workload,
                "protocol_hash": protocol_hash,
                "driver": driver,
                "limits": limits,
                "board": board,
                "flagged": sum(bool(r.caveats) for r in found),
                "trials": len(found),
                "windows": sum(r.n_repeats for r in found),
                "converged": sum(r.converged for r in found),
            }
            for (
                meter,
                source,
                is_estimate,
                device,
                workload,
                protocol_hash,
                driver,
                limits,
                board,
            ), found in ways.items()
        ],
    }
