"""A made-up task whose quality and joules are formulas, for searches that take no time."""

from __future__ import annotations

import json

import numpy as np

from nas.core.plain import plain, to_plain
from nas.records.candidate import Candidate, Outcome
from nas.records.config import GateConfig, SearchConfig
from nas.records.trial import Trial
from nas.searching.controller.sampler_by_name import make_sampler
from nas.searching.controller.session import Session
from nas.searching.gating.gate import CandidatePool, Gate
from nas.searching.gating.pruning import Pruning
from nas.searching.gating.surrogates import ArchitectureSurrogates
from nas.searching.gating.warm_start import WarmStart
from nas.store.storage import StudyStore
from predictors.meters.base import EnergyReading
from search_spaces.compression.realness import RealnessReport, Row, Shape
from search_spaces.cost.counting import count
from search_spaces.cost.memory import peak_memory_of
from search_spaces.space import SearchSpace
from search_spaces.workload import Workload

WORKLOAD = Workload("digits", "image_classification", (1, 8, 8), 10, 128)
SPACE = SearchSpace.from_dict(
    {
        "name": "fake",
        "d_model": [16, 32, 48, 64, 96],
        "depth": [1, 2, 3, 4],
        "n_heads": [1, 2, 4],
        "n_kv_heads": [1, 2, 4],
        "ffn_ratio": [0.5, 1, 2, 4],
        "patch_size": [2, 4],
        "attention_precision": ["fp32", "bf16"],
        "ffn_precision": ["fp32", "bf16"],
    }
)


def reading(energy_j):
    return EnergyReading(
        energy_j=energy_j,
        low_j=energy_j * 0.98,
        high_j=energy_j * 1.02,
        n_repeats=6,
        converged=True,
        meter="fake",
        source="fake",
        is_estimate=False,
        device="d",
        workload=WORKLOAD.key,
        batch_size=128,
        latency_s=1e-3,
        power_w=10.0,
        duration_s=1.0,
        protocol_hash="0" * 12,
    )


def truth(architecture):
    """Quality rises and joules rise with size; bf16 halves joules and costs nothing."""
    counts = count(architecture, WORKLOAD)
    rng = np.random.default_rng(int(architecture.hash, 16))
    quality = float(np.clip(1 - 6 / counts.params**0.6 + rng.normal(0, 0.003), 0, 1))
    macs = sum(b.macs * (0.5 if b.precision == "bf16" else 1) for b in counts.blocks)
    return quality, 1e-10 * macs + 1e-6


# Flat names of tests, and where a trial has them.
PLACES = {
    **{"audit": "candidate.is_audit", "baseline": "candidate.is_baseline"},
    **{name: f"candidate.{name}" for name in ("number", "architecture", "prediction", "replica")},
    **{name: f"candidate.{name}" for name in ("weights", "joules", "finalist_of")},
    "inherited_quality": "candidate.inherited_quality.value",
    **{"quality": "outcome.quality.value", "quality_se": "outcome.quality.standard_error"},
    "test_quality": "outcome.test_quality.value",
    "test_quality_se": "outcome.test_quality.standard_error",
    **{name: f"outcome.{name}" for name in ("state", "reason", "uncompressed_quality")},
    **{name: f"outcome.{name}" for name in ("params", "peak_memory_bytes", "n_evaluations")},
    **{name: f"outcome.training.{name}" for name in ("curve", "planned_epochs", "start", "qat")},
    **{n: f"outcome.measurement.{n}" for n in ("reading", "readings", "unmeasured")},
    "trained_by": "outcome.training.versions",
    "measured_by": "outcome.measurement.versions",
    "duration_s": "outcome.spent.duration_s",
    "train_energy_j": "outcome.spent.train_energy_j",
    "measure_energy_j": "outcome.spent.measure_energy_j",
}


def changed(trial, **fields):
    """``trial``, or a candidate, with these fields of ``PLACES``."""
    data = {"candidate": to_plain(trial)} if isinstance(trial, Candidate) else trial.to_dict()
    for name, value in fields.items():
        *parents, last = PLACES[name].split(".")
        place = data
        for parent in parents:
            if place.get(parent) is None:
                place[parent] = {"standard_error": 0.01} if "quality" in parent else {}
            place = place[parent]
        place[last] = plain(value)
    if fields.get("state") == "running":
        data["outcome"] = None
    changed = Trial.from_dict(json.loads(json.dumps(data)))
    return changed.candidate if isinstance(trial, Candidate) else changed


def evaluated(evaluator, candidate, *arguments):
    """``candidate`` as a trial with the outcome that ``evaluator`` returns."""
    return Trial(candidate, evaluator.evaluate(candidate, *arguments))


def make_trial(number, state, architecture, quality=None, quality_se=None, **fields):
    """A trial of these fields of ``PLACES``."""
    scores = {"quality": quality, "quality_se": quality_se}
    fields |= {name: value for name, value in scores.items() if value is not None}
    return changed(Trial(Candidate(number, architecture)), **fields, state=state)


def finished(candidate: Candidate | Trial) -> Trial:
    quality, energy_j = truth(candidate.architecture)
    return changed(
        Trial(candidate) if isinstance(candidate, Candidate) else candidate,
        state="complete",
        quality=quality,
        quality_se=0.003,
        reading=reading(energy_j),
        params=count(candidate.architecture, WORKLOAD).params,
        peak_memory_bytes=peak_memory_of(candidate.architecture, WORKLOAD),
        train_energy_j=5.0,
        measure_energy_j=1.0,
    )


def failed(candidate: Candidate | Trial, reason) -> Trial:
    candidate = candidate if isinstance(candidate, Candidate) else candidate.candidate
    return Trial(candidate, Outcome.failed(reason))


def make_session(
    folder, *, listener=None, create=True, warm_start=None, run_name="run", **changes
) -> Session:
    warm_start = warm_start or WarmStart()
    changes.setdefault("trials", 30)
    changes.setdefault("gate", GateConfig(startup_trials=8))
    config = SearchConfig(task="digits", space=changes.pop("space", SPACE), **changes)
    surrogates = ArchitectureSurrogates(
        WORKLOAD,
        goals=config.goals,
        seed=config.seed,
        warm_start=warm_start.for_gate(seed=config.seed),
    )
    pruning = Pruning(config.space, seed=config.seed)
    sampler = make_sampler(config, surrogates, warm_start.prior_rows(config.space), pruning)
    opened = StudyStore.create if create else StudyStore.load
    store = opened(folder, config.storage, run_name, config.space, sampler, config.goals)
    pool = CandidatePool.sample(config.space, config.seed, 300)
    gate = Gate(surrogates, config.gate, pool=pool, pruning=pruning)
    first = warm_start.initial_candidates(config.space, config.trials)
    return Session(config, WORKLOAD, store, gate, listener, first)


def drive(session: Session, judge=finished) -> Session:
    while (candidate := session.next_candidate()) is not None:
        session.finish(judge(candidate))
    return session


def report(**statuses):
    """What a probe says of a CPU at one shape: a status for each choice, dense always real."""
    rows = [
        Row(choice.replace("_", ":"), Shape(64, 2048), status, reason=f"{choice} is {status}")
        for choice, status in {"dense": "real", **statuses}.items()
    ]
    return RealnessReport("cpu", "a CPU", {"torch": "0"}, tuple(rows))
