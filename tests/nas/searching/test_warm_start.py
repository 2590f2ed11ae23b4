"""Searches that begin with what is known: earlier runs, and predictors of joules."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from search_fakes import (
    SPACE,
    WORKLOAD,
    changed,
    drive,
    failed,
    finished,
    make_session,
    make_trial,
    truth,
)

from nas.pareto.dominance import non_dominated_mask
from nas.records.config import LARGEST, GateConfig, SearchConfig
from nas.records.device_names import MeasuredDevice
from nas.records.goals import Goals
from nas.searching.controller.sampler_by_name import make_sampler
from nas.searching.gating.gate import CandidatePool, Gate
from nas.searching.gating.prior_run import Conditions
from nas.searching.gating.surrogates import ArchitectureSurrogates
from nas.searching.gating.warm_start import collect_warm_start, load_warm_start
from nas.store import new_run, run_file
from nas.training.config import DistillConfig
from predictors.energy.artifact import Provenance, SavedPredictor, load_predictor, save_predictor
from predictors.energy.models import CostPredictor, Observation
from search_spaces.space import SearchSpace
from search_spaces.space.sampling import sample

HERE = Conditions("d", "fake", "0" * 12, WORKLOAD)
CONFIG = SearchConfig(task="digits", space=SPACE, trials=20)


def make_run(folder, judge=finished, **changes):
    """A run whose figures are formulas, at random and without a gate."""
    options = {"trials": 30, "sampler": "random", "gate": GateConfig(startup_trials=99)} | changes
    run = new_run.create(folder, SearchConfig(task="digits", space=SPACE, **options), "fake")
    drive(make_session(folder, **options), judge)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("earlier") / "run")


@pytest.fixture(scope="module")
def warm(run):
    return replace(CONFIG, warm_start=(str(run.folder),))


def test_a_run_that_was_measured_here_too_is_seen_by_the_joules_of_here(tmp_path):
    def on_both(candidate):
        record = finished(candidate)
        there = replace(record.reading, device="elsewhere")
        return changed(record, reading=there, readings={"other": record.reading})

    devices = (MeasuredDevice("first"), MeasuredDevice("other"))
    earlier_run = make_run(tmp_path / "run", on_both, measure_on=devices)
    (found,) = collect_warm_start(
        replace(CONFIG, warm_start=(str(earlier_run.folder),)), HERE
    ).runs
    assert {t.reading.device for t in found.trials} == {"d"} and len(found.trials) == 30
    # What was measured nowhere alike is taken by the joules that the search was after.
    strange = replace(HERE, device="a third")
    (found,) = collect_warm_start(
        replace(CONFIG, warm_start=(str(earlier_run.folder),)), strange
    ).runs
    assert {t.reading.device for t in found.trials} == {"elsewhere"}


def predictor_file(path, *, device="d", source="fake", protocol_hash="0" * 12, workload=WORKLOAD):
    """A predictor of the made-up device, from 60 measurements."""
    rng = np.random.default_rng(3)
    models = [sample(SPACE, rng) for _ in range(60)]
    predictor = CostPredictor.fit([Observation(m, WORKLOAD, truth(m)[1], 0.01) for m in models])
    known = Provenance(device, source, False, protocol_hash, (workload.key,), "2026-11-24", {})
    save_predictor(SavedPredictor(predictor, known), path)
    return path


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return predictor_file(tmp_path_factory.mktemp("predictor") / "p.safetensors")


def test_figures_of_the_same_conditions_and_recipe_are_all_used(run, warm):
    earlier = collect_warm_start(warm, HERE)
    data = earlier.for_gate(seed=0)
    assert data.n_energy == data.n_both == 30 and data.source is None
    figures = earlier.prior_rows(SPACE)
    assert len(figures) == 30 and all(f.quality and f.reading for f in figures)
    (note, first) = earlier.notes(warm)
    assert "30 trials: qualities taken; joules taken" in note and run.name in note
    assert first == "evaluated first, from fronts of prior runs: 5"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"training": replace(CONFIG.training, epochs=3, batch_size=8)}, "epochs, batch_size of"),
        (
            {"teacher": LARGEST, "training": replace(CONFIG.training, distill=DistillConfig())},
            "distill of its training",
        ),
    ],
)
def test_qualities_of_another_recipe_are_not_taken(warm, change, why):
    config = replace(warm, **change)
    earlier = collect_warm_start(config, HERE)
    data = earlier.for_gate(seed=0)
    assert (data.n_energy, data.n_both) == (30, 0)
    assert all(f.quality is None and f.reading for f in earlier.prior_rows(SPACE))
    assert f"qualities not taken: {why}" in earlier.notes(config)[0]
    assert len(earlier.initial_candidates(SPACE, 20)) == 5


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"device": "e"}, "device 'd', here 'e'"),
        ({"source": "rapl"}, "meter 'fake', here 'rapl'"),
        ({"protocol_hash": "1" * 12}, "protocol"),
        ({"workload": WORKLOAD.with_batch_size(8)}, "workload 'digits/b128', here 'digits/b8'"),
    ],
)
def test_joules_of_other_conditions_are_a_prior_by_transfer(warm, change, word):
    there = replace(HERE, **change)
    earlier = collect_warm_start(warm, there)
    data = earlier.for_gate(seed=0)
    assert (data.n_energy, data.n_both) == (0, 0) and len(data.qualities) == 30
    assert data.source.n_records == 30 and not data.is_same
    assert all(f.quality and f.reading is None for f in earlier.prior_rows(SPACE))
    assert "joules by transfer" in earlier.notes(warm)[0] and word in earlier.notes(warm)[0]
    # On a device three times as costly, a handful of measurements are enough.
    rng = np.random.default_rng(5)
    rows = [
        Observation(m, there.workload, 3 * truth(m)[1], 0.01)
        for m in (sample(SPACE, rng) for _ in range(6))
    ]
    fresh = [sample(SPACE, rng) for _ in range(30)]
    found = data.predictor(rows, seed=0).predict(fresh, there.workload)
    expected = np.array([3 * truth(m)[1] for m in fresh])
    assert np.median(np.abs(found.mean / expected - 1)) < 0.2


def test_of_two_other_devices_the_one_with_more_trials_is_the_prior(warm, tmp_path):
    def elsewhere(candidate):
        done = finished(candidate)
        return changed(done, reading=replace(done.reading, device="f"))

    small = make_run(tmp_path / "small", elsewhere, trials=3)
    both = replace(warm, warm_start=(str(small.folder), *warm.warm_start))
    earlier = collect_warm_start(both, replace(HERE, device="e"))
    assert earlier.for_gate(seed=0).source.n_records == 30
    first, second, _ = earlier.notes(both)
    assert "joules not taken, since another run's" in first and "joules by transfer" in second
    # One run named twice counts once.
    twice = replace(warm, warm_start=warm.warm_start * 2)
    assert collect_warm_start(twice, HERE).for_gate(seed=0).n_energy == 30


def test_a_resumed_search_needs_neither_run_nor_predictor(run, predictor, tmp_path):
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    file = shutil.copy(predictor, tmp_path / "p.safetensors")
    config = replace(CONFIG, warm_start=(str(copy),), predictor=str(file))
    earlier = collect_warm_start(config, HERE)
    folder = tmp_path / "new"
    assert load_warm_start(folder, config) is None
    folder.mkdir()
    earlier.save(folder)
    shutil.rmtree(copy)
    (tmp_path / "p.safetensors").unlink()
    again = load_warm_start(folder, config)
    assert (again.conditions, again.runs) == (earlier.conditions, earlier.runs)
    fresh = [sample(SPACE, np.random.default_rng(1))]
    before, after = (
        e.for_gate(seed=0).predictor((), seed=0).predict(fresh, WORKLOAD).mean
        for e in (earlier, again)
    )
    assert before == after and not list(folder.glob("*.tmp"))
    # The configuration names them, as they were given.
    kept = new_run.create(tmp_path / "run", config, "fake")
    assert run_file.load(kept.folder).config == config
    data = json.loads((folder / "warm_start.json").read_text())
    assert data["runs"][0]["name"] == run.name and len(data["runs"][0]["trials"]) == 30


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data | {"schema": 9},
        lambda data: data | {"more": 1},
        lambda data: data | {"conditions": None},
        lambda data: data | {"runs": [{}]},
        lambda data: [],
        lambda data: _trial(data, "quality", 3),
        lambda data: _trial(data, "quality_se", None),
        lambda data: _trial(data, "architecture", {}),
        lambda data: _trial(data, "reading", {}),
    ],
)
def test_a_damaged_file_is_one_line(warm, tmp_path, change):
    collect_warm_start(warm, HERE).save(tmp_path)
    path = tmp_path / "warm_start.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=r"warm_start\.json is damaged: ") as caught:
        load_warm_start(tmp_path, warm)
    assert "\n" not in str(caught.value)


def _trial(data, name, value):
    data["runs"][0]["trials"][0][name] = value
    return data


def test_runs_that_cannot_be_learnt_from_are_one_line(run, tmp_path):
    other = new_run.create(tmp_path / "other", replace(CONFIG, task="words"), "fake")
    empty = make_run(tmp_path / "empty", lambda c: failed(c, "no"), trials=1)
    for folder, words in (
        (tmp_path / "nowhere", "run must be the folder of a search"),
        (other.folder, "must be of task digits, got a run of words"),
        (empty.folder, "must have a complete trial"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            collect_warm_start(replace(CONFIG, warm_start=(str(folder),)), HERE)
        assert str(caught.value).startswith(f"warm_start {folder}: ")
    for wrong in ({"warm_start": (3,)}, {"warm_start": ("",)}, {"predictor": 3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            replace(CONFIG, **wrong)


def test_the_earlier_front_is_tried_first_and_only_what_was_tried_is_on_the_new(
    run, warm, tmp_path
):
    earlier = collect_warm_start(warm, HERE)
    first = earlier.initial_candidates(SPACE, 20)
    complete = run.trials()
    mask = non_dominated_mask([r.objectives for r in complete], (True, False))
    front = sorted(
        (r for r, on in zip(complete, mask, strict=True) if on), key=lambda r: r.energy_j
    )
    assert len(first) == 5 and first[0] == front[0].architecture
    assert first[-1] == front[-1].architecture
    session = make_session(tmp_path, trials=20, warm_start=earlier, sampler="random")
    assert session.records() == [] and session.snapshot().front == 0
    proposed = []
    for _ in range(3):
        proposed.append(session.next_candidate())
        session.finish(finished(proposed[-1]))
    judged = [r.architecture for r in session.records()][: len(first)]
    assert judged == first[: len(judged)] and not any(r.is_baseline for r in proposed)
    assert session.snapshot().complete == 3 and session.snapshot().front <= 3


def test_the_gate_drops_before_the_search_has_startup_trials_of_its_own(warm):
    pool = CandidatePool.sample(SPACE, 0, 300)
    earlier = collect_warm_start(warm, HERE)
    own = [
        finished(make_trial(number, "running", architecture))
        for number, architecture in enumerate(earlier.initial_candidates(SPACE, 20))
    ]
    rng = np.random.default_rng(4)
    fresh = [sample(SPACE, rng) for _ in range(60)]
    dropped = []
    for data in (None, earlier.for_gate(seed=0)):
        surrogates = ArchitectureSurrogates(WORKLOAD, seed=0, warm_start=data)
        gate = Gate(surrogates, GateConfig(0.8), pool=pool)
        gate.refit(own)
        assert gate.front_numbers <= set(range(len(own)))
        dropped.append(sum(gate.judge(a).reason is not None for a in fresh))
    assert dropped[0] == 0 and dropped[1] >= 5


def test_members_outside_the_space_inform_the_gate_alone(warm):
    narrow = SearchSpace.from_dict(SPACE.to_dict() | {"name": "narrow", "d_model": [16, 32]})
    earlier = collect_warm_start(replace(warm, space=narrow), HERE)
    data = earlier.for_gate(seed=0)
    assert data.n_both == 30
    assert 0 < len(earlier.prior_rows(narrow)) < 30
    assert 0 < len(earlier.prior_rows(narrow)) < 30
    first = earlier.initial_candidates(narrow, 20)
    assert all(narrow.contains(architecture) for architecture in first)
    nothing = SearchSpace.from_dict(
        SPACE.to_dict() | {"name": "other", "d_model": [17], "n_heads": [1]}
    )
    assert earlier.initial_candidates(nothing, 20) == [] and earlier.prior_rows(nothing) == []


def test_the_sampler_learns_what_compares(warm):
    figures = collect_warm_start(warm, HERE).prior_rows(SPACE)
    sampler = make_sampler(CONFIG, ArchitectureSurrogates(WORKLOAD, seed=0), figures)
    prior = sampler._prior_trials
    assert len(prior) == 30 and all(np.isfinite(t.values).all() for t in prior)
    other = collect_warm_start(warm, replace(HERE, device="e")).prior_rows(SPACE)
    sampler = make_sampler(CONFIG, ArchitectureSurrogates(WORKLOAD, seed=0), other)
    assert all(np.isnan(t.values[1]) and t.values[0] > 0 for t in sampler._prior_trials)
    assert "uses no prior trials" in "".join(
        collect_warm_start(warm, HERE).notes(replace(warm, sampler="tpe"))
    )


def test_a_search_that_starts_warm_goes_on_by_the_default_sampler(warm, tmp_path):
    earlier = collect_warm_start(warm, HERE)
    session = drive(make_session(tmp_path, trials=3, warm_start=earlier))
    records = session.records()
    assert len({r.architecture.hash for r in records}) == len(records)
    assert session.snapshot().complete == 3


def test_an_interrupted_start_queues_nothing_twice(warm, tmp_path):
    earlier = collect_warm_start(warm, HERE)
    make_session(tmp_path, trials=20, warm_start=earlier, sampler="random")
    again = make_session(tmp_path, trials=20, warm_start=earlier, sampler="random", create=False)
    queued = [tuple(genes.items()) for genes in again._store.waiting()]
    assert len(queued) == len(set(queued)) >= 5


def test_a_predictor_tells_joules_before_anything_is_measured(predictor):
    config = replace(CONFIG, predictor=str(predictor))
    earlier = collect_warm_start(config, HERE)
    data = earlier.for_gate(seed=0)
    assert data.is_same and data.n_energy == 60 and data.n_both == 0
    surrogates = ArchitectureSurrogates(
        WORKLOAD, goals=Goals(max_joules=1e-5), seed=0, warm_start=data
    )
    gate = Gate(surrogates, GateConfig(audit_share=0))
    rng = np.random.default_rng(9)
    models = [sample(SPACE, rng) for _ in range(20)]
    verdicts = [gate.judge(m) for m in models]
    truths = np.array([truth(m)[1] for m in models])
    predicted = np.array([v.energy_j.mean for v in verdicts])
    assert np.median(np.abs(predicted / truths - 1)) < 0.1
    # A budget is kept from the first trial on.
    over = [v.reason is not None for v in verdicts]
    assert any(over) and all(t > 1e-5 for t, o in zip(truths, over, strict=True) if o)
    (note,) = earlier.notes(config)
    assert f"predictor {predictor} predicts joules from the first trial" in note


def test_a_predictor_of_another_device_is_adapted_and_of_another_protocol_refused(
    predictor, warm, tmp_path
):
    config = replace(warm, predictor=str(predictor))
    earlier = collect_warm_start(config, replace(HERE, device="e"))
    data = earlier.for_gate(seed=0)
    assert not data.is_same and data.n_energy == 0
    assert data.source.n_records == 60
    notes = earlier.notes(config)
    assert "is of 'd' (fake), here 'e' (fake): a prior, adapted" in notes[0]
    assert "not taken, since a predictor is given" in notes[1]
    with pytest.raises(ValueError, match="predictor's protocol_hash must be '111111111111'"):
        collect_warm_start(config, replace(HERE, protocol_hash="1" * 12))
    with pytest.raises(ValueError, match="predictor's workloads must include 'digits/b8'"):
        collect_warm_start(config, replace(HERE, workload=WORKLOAD.with_batch_size(8)))
    with pytest.raises(ValueError, match=r"nowhere\.safetensors"):
        collect_warm_start(replace(config, predictor=str(tmp_path / "nowhere.safetensors")), HERE)
    assert load_predictor(predictor).provenance.device == "d"
