"""Limits and further objectives, from the configuration to the front."""

from dataclasses import replace

import numpy as np
import pytest
from search_fakes import SPACE, WORKLOAD, changed, drive, finished, make_session, make_trial

from nas.analysis.summary import summarise
from nas.pareto.dominance import non_dominated_mask
from nas.records.config import GateConfig, SearchConfig
from nas.records.goals import Goals
from nas.records.rungs import HalvingConfig
from nas.searching.gating.gate import Gate
from nas.searching.gating.surrogates import ArchitectureSurrogates
from nas.searching.study import run_search
from nas.store import new_run
from nas.store.optuna_trials import record_of
from nas.store.storage import StudyStore
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.cost.counting import count
from search_spaces.cost.memory import peak_memory_bytes
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.sampling import largest, sample


def judged(candidate):
    """With seconds that are not in step with joules: wide layers take long, deep ones do not."""
    record = finished(candidate)
    latency_s = 1e-5 * candidate.architecture.d_model
    return changed(record, reading=replace(record.reading, latency_s=latency_s))


@pytest.mark.parametrize("sampler", ["ehvi", "tpe", "random"])
def test_nothing_over_a_counted_limit_is_ever_a_trial(tmp_path, sampler):
    # A tenth of the space keeps it.
    session = drive(make_session(tmp_path, sampler=sampler, trials=20, max_params=9_000))
    params = [count(r.architecture, WORKLOAD).params for r in session.records()]
    assert max(params) <= 9_000
    assert len(session.records()) >= 20 and session.stop_reason is None


def test_a_limit_on_memory_is_kept_too(tmp_path):
    session = drive(make_session(tmp_path, trials=14, max_memory_bytes=1.5e6))
    assert max(r.peak_memory_bytes for r in session.records() if r.state == "complete") <= 1.5e6


def test_a_baseline_may_break_a_limit_but_is_on_no_front(tmp_path):
    baseline = largest(SPACE)
    session = drive(make_session(tmp_path, trials=12, max_params=9_000, baselines=(baseline,)))
    first = session.records()[0]
    assert first.baseline and first.state == "complete" and first.params > 9_000
    assert first not in Goals(max_params=9_000).front(session.records())
    assert first in Goals().front(session.records())
    assert session.snapshot().best_quality < first.quality


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"max_params": 10}, r"max_params must be at least 1,\d+, which the smallest member"),
        ({"max_memory_bytes": 10.0}, r"max_memory_bytes must be at least"),
    ],
)
def test_a_limit_that_nothing_keeps_is_refused_before_anything_is_written(
    tmp_path, limit, message
):
    config = SearchConfig(task="digits", space=SPACE, trials=5, meter="estimate", **limit)
    with pytest.raises(ValueError, match=message):
        run_search(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_latency_is_learnt_and_what_must_break_its_limit_is_dropped(tmp_path):
    gate = GateConfig(startup_trials=12, audit_share=0.0)
    session = make_session(tmp_path, sampler="random", trials=40, max_latency_s=5e-4, gate=gate)
    drive(session, judged)
    dropped = [r for r in session.records() if r.state == "dropped" and "latency" in r.reason]
    assert dropped and all(r.architecture.d_model > 48 for r in dropped)
    slow = [r for r in session.records() if r.state == "complete" and r.reading.latency_s > 2e-4]
    front = Goals(max_latency_s=2e-4).front(session.records())
    assert slow and front and not set(slow) & set(front)


def test_the_sampler_learns_where_a_measured_limit_holds(tmp_path):
    # The gate prunes nothing: only the study's constraint can keep proposals narrow.
    gate = GateConfig(1 - 1e-12, startup_trials=8, audit_share=0.0)
    session = drive(make_session(tmp_path, trials=30, max_latency_s=2e-4, gate=gate), judged)
    late = [r for r in session.records() if r.number >= 15]
    kept = sum(r.reading.latency_s <= 2e-4 for r in late)
    # One width of five keeps the limit.
    assert kept >= 0.6 * len(late)


def test_the_study_has_a_direction_for_each_objective_and_a_constraint_for_each_limit(tmp_path):
    changes = {"objectives": ("latency", "params"), "max_latency_s": 5e-4, "trials": 12}
    session = drive(make_session(tmp_path, **changes), judged)
    store = StudyStore.load(tmp_path, None, "run", SPACE, goals=session._config.goals)
    trial = next(t for t in store.frozen_trials() if t.values)
    record = record_of(trial)
    assert trial.values == [*record.objectives, record.reading.latency_s, record.params]
    assert trial.constraints == {
        "max_latency_s": pytest.approx(np.log(record.reading.latency_s / 5e-4))
    }


def test_what_is_best_in_a_further_objective_is_on_the_front(tmp_path):
    gate = GateConfig(startup_trials=99)
    asked = {"objectives": ("latency",), "sampler": "random", "trials": 40, "gate": gate}
    session = drive(make_session(tmp_path, **asked), judged)
    complete = [r for r in session.records() if r.state == "complete"]
    goals = Goals(("latency",))
    expected = non_dominated_mask(
        [(*r.objectives, r.reading.latency_s) for r in complete], (True, False, False)
    )
    front = goals.front(session.records())
    assert [r.number for r in front] == [
        r.number for r, on in zip(complete, expected, strict=True) if on
    ]
    assert len(front) > len(Goals().front(session.records()))
    assert session.snapshot().front == len(front)


def test_the_gate_spares_what_only_a_further_objective_speaks_for():
    rng = np.random.default_rng(1)
    records = [judged(make_trial(n, "running", sample(SPACE, rng))) for n in range(40)]
    fresh = [sample(SPACE, rng) for _ in range(60)]
    chances = []
    for goals in (Goals(), Goals(("latency",)), Goals(("params",))):
        gate = Gate(ArchitectureSurrogates(WORKLOAD, goals=goals, seed=0), GateConfig())
        gate.refit(records)
        chances.append(gate.front_probabilities(fresh))
    plain, with_latency, with_params = chances
    # Trials that are dominated by far are left out, each time others.
    assert np.all(with_latency >= plain - 1e-3) and np.all(with_params >= plain - 1e-3)
    # Narrow and deep: dear in joules, but fast.
    narrow = np.array([a.d_model == 16 for a in fresh])
    assert with_latency[narrow].mean() > plain[narrow].mean() + 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ("speed",)}, "objective must be one of latency, params, memory, got 'sp"),
        ({"objectives": ("params", "params")}, "named once each"),
        ({"max_latency_s": 0.0}, "max_latency_s must be finite and > 0, got 0.0"),
        ({"max_params": -1}, "max_params must be finite and > 0, got -1"),
        ({"reference": (0.5,)}, "reference must have 2 values, for quality, joules, got"),
        ({"reference": (1.0, 1e-3)}, r"reference quality must be in \[0, 1\), got 1.0"),
        ({"reference": (0.5, 0.0)}, "reference costs must be > 0"),
        (
            {"objectives": ("params",), "halving": HalvingConfig()},
            "halving compares quality and joules alone",
        ),
    ],
)
def test_bad_goals_name_the_field(changes, message):
    with pytest.raises(ValueError, match=message):
        SearchConfig(task="digits", space=SPACE, trials=5, **changes)


def test_goals_survive_the_run_folder():
    config = SearchConfig(
        task="digits",
        space=SPACE,
        trials=5,
        objectives=("memory",),
        max_params=10_000,
        reference=(0.5, 1e-3, 1e6),
    )
    assert SearchConfig.from_dict(config.to_dict()) == config
    for name in ("objectives", "max_params", "max_latency_s", "max_memory_bytes", "reference"):
        lacks = {key: value for key, value in config.to_dict().items() if key != name}
        with pytest.raises(ValueError, match="search config must have exactly the keys"):
            SearchConfig.from_dict(lacks)


def test_a_run_answers_for_its_limits_and_states_where_hypervolume_is_counted_from(tmp_path):
    folder = tmp_path / "run"
    config = SearchConfig(task="digits", space=SPACE, trials=12, reference=(0.5, 1e-3))
    run = new_run.create(folder, config, "estimate")
    drive(make_session(folder, trials=12, reference=(0.5, 1e-3)))
    whole, small = run.front(), run.front(Goals(max_params=9_000))
    assert max(m.params for m in whole) > 9_000 >= max(m.params for m in small)
    volume = summarise(run).volume
    assert volume.reference_is_set and volume.reference == (0.5, 1e-3)
    by_hand, last = 0.0, 3.0
    points = sorted(((m.quality, -np.log10(m.energy_j)) for m in whole), reverse=True)
    for quality, decades in points:
        by_hand += (quality - 0.5) * (decades - last)
        last = decades
    assert volume.hypervolume == pytest.approx(by_hand)


def test_a_limit_on_memory_is_of_weights_as_the_device_stores_them():
    block = Compression("int4wo")
    layer = LayerSpec(AttentionSpec(4, 4, 32, None, block), FfnSpec(512, None, block))
    made = ArchitectureBatch.of([Architecture(128, (layer,), patch_size=2)])
    limit = 1.01 * float(peak_memory_bytes(made, WORKLOAD)[0])
    config = SearchConfig("digits", SPACE, 4, max_memory_bytes=limit, objectives=("memory",))
    on_gpu = replace(config, device="cuda:0")
    assert config.goals.allows(made, WORKLOAD).all()
    # Its inputs are padded there from 128 to 1024.
    assert not on_gpu.goals.allows(made, WORKLOAD).any()
    assert on_gpu.goals.counted(made, WORKLOAD)["memory"] > limit
