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
    reading,
    truth,
)

from nas.pareto.dominance import non_dominated_mask
from nas.pareto.hypervolume import hypervolume
from nas.records.config import SAMPLERS, GateConfig, SearchConfig
from nas.records.trial import Trial
from nas.searching.gating.gate import Gate, audit_summary
from nas.searching.gating.surrogates import ArchitectureSurrogates
from nas.store.storage import StorageError, StudyStore
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.space import SearchSpace
from search_spaces.space.sampling import compression_variants, sample


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_trains_what_it_was_asked_to_and_nothing_twice(tmp_path, sampler):
    session = drive(make_session(tmp_path, sampler=sampler))
    records = session.records()
    complete = [r for r in records if r.state == "complete"]
    assert len(complete) == 30 and session.stop_reason is None
    assert len({r.architecture.hash for r in records}) == len(records)
    assert all(SPACE.contains(r.architecture) for r in records)


def test_dropped_and_failed_trials_never_confuse_the_samplers(tmp_path):
    for sampler in SAMPLERS:
        folder = tmp_path / sampler
        folder.mkdir()
        session = make_session(folder, sampler=sampler, trials=27)
        drive(session, lambda c: failed(c, "no") if c.number % 3 == 0 else finished(c))
        states = {r.state for r in session.records()}
        assert "failed" in states and session.snapshot().failed >= 7
        assert session.snapshot().complete + session.snapshot().failed == 27


def test_the_gate_drops_what_is_dominated_and_records_why(tmp_path):
    gate = GateConfig(0.8, startup_trials=8)
    session = drive(make_session(tmp_path, sampler="random", trials=45, gate=gate))
    dropped = [r for r in session.records() if r.state == "dropped"]
    assert len(dropped) >= 10
    assert all("likely to be on the front" in r.reason and r.quality is None for r in dropped)
    front = [r.objectives for r in session.records() if r.state == "complete"]
    reference, maximize = (0.0, 1e-3), (True, False)
    volume = hypervolume(front, reference, maximize)
    gained = [
        hypervolume([*front, truth(r.architecture)], reference, maximize) / volume - 1
        for r in dropped
    ]
    # What the gate threw away would have added next to nothing.
    assert np.mean(np.array(gained) > 1e-3) < 0.1


def test_audited_candidates_are_evaluated_and_counted(tmp_path):
    gate = GateConfig(0.8, startup_trials=8, audit_share=0.1)
    session = drive(make_session(tmp_path, sampler="random", trials=45, gate=gate))
    audited = [r for r in session.records() if r.audit]
    assert audited and all(r.state == "complete" for r in audited)
    summary = audit_summary(session.records())
    assert summary.n_audited == len(audited) and summary.n_dropped > 0
    rate = summary.false_drop_rate
    assert 0 <= rate.low <= rate.mean <= rate.high <= 1


def test_the_audits_interval_is_clopper_and_pearsons():
    small, large = (
        Architecture(d, (LayerSpec(AttentionSpec(1, 1, d), FfnSpec(d)),), 4) for d in (8, 16)
    )
    records = [
        make_trial(i, "complete", small, 0.9, 0.01, reading=reading(1e-6 * (i + 1)), audit=i > 0)
        for i in range(11)
    ]
    records.append(make_trial(11, "dropped", large, reason="x"))
    summary = audit_summary(records)
    assert (summary.n_dropped, summary.n_audited, summary.n_false) == (1, 10, 0)
    assert summary.false_drop_rate.high == pytest.approx(1 - 0.025 ** (1 / 10))


def test_a_budget_drops_what_must_cost_more(tmp_path):
    session = drive(make_session(tmp_path, sampler="random", trials=25, max_joules=2e-5))
    dropped = [r for r in session.records() if r.state == "dropped"]
    assert any("budget" in r.reason for r in dropped)
    assert all(r.prediction.low > 2e-5 for r in dropped if "budget" in r.reason)


def test_a_budget_that_nothing_keeps_ends_the_search_with_a_reason(tmp_path):
    gate = GateConfig(startup_trials=8, audit_share=0.0)
    session = drive(make_session(tmp_path, sampler="random", max_joules=1e-9, gate=gate))
    assert "in a row" in session.stop_reason and "budget" in session.stop_reason


def test_nothing_is_dropped_before_enough_is_known(tmp_path):
    session = drive(make_session(tmp_path, sampler="random", trials=8))
    assert all(r.state == "complete" for r in session.records())


def test_a_small_space_is_exhausted_and_said(tmp_path):
    space = SearchSpace.from_dict(
        {
            "name": "s",
            "d_model": [8, 16],
            "depth": [1],
            "patch_size": [4],
            "n_heads": [1, 2],
            "n_kv_heads": [1],
            "ffn_ratio": [1, 2],
        }
    )
    session = drive(make_session(tmp_path, space=space, gate=GateConfig(startup_trials=99)))
    assert len(session.records()) == space.size() == 8
    assert session.stop_reason == "the search space is exhausted"


def test_baselines_come_first_and_the_gate_lets_them_pass(tmp_path):
    layer = LayerSpec(AttentionSpec(4, 4, 24), FfnSpec(384))
    baseline = Architecture(96, (layer,) * 4, 2)
    session = make_session(tmp_path, baselines=(baseline,), max_joules=1e-9)
    first = session.next_candidate()
    assert first.architecture == baseline and first.is_baseline
    second = session.next_candidate()
    assert second.architecture.d_model == 16 and second.architecture.depth == 1
    outside = Architecture(24, (LayerSpec(AttentionSpec(4, 4, 6), FfnSpec(24)),), 2)
    with pytest.raises(ValueError, match="baseline must lie in space 'fake'"):
        SearchConfig(task="digits", space=SPACE, trials=1, baselines=(outside,))


def test_what_was_told_is_there_after_reopening(tmp_path):
    session = make_session(tmp_path, trials=12)
    for _ in range(5):
        session.finish(finished(session.next_candidate()))
    interrupted = [session.next_candidate() for _ in range(2)]
    # As after kill -9: nothing is closed, the file is opened anew.
    again = make_session(tmp_path, trials=12, create=False)
    assert again.records() == session.records()
    assert [again.next_candidate().number for _ in range(2)] == [c.number for c in interrupted]
    for candidate in interrupted:
        again.finish(finished(candidate))
    drive(again)
    complete = [r.number for r in again.records() if r.state == "complete"]
    assert len(complete) == 12 == len(set(complete))


def test_a_kill_between_the_record_and_its_state_loses_nothing(tmp_path):
    """In a database these are two transactions."""
    url = f"sqlite:///{tmp_path}/study.db"
    session = make_session(tmp_path, trials=3, storage=url)
    candidate = session.next_candidate()
    session._store._open[candidate.number].set_user_attr("joulenas", finished(candidate).to_dict())
    again = make_session(tmp_path, trials=3, storage=url, create=False)
    assert again.records()[0].state == "complete" and not again.in_flight()
    assert again.next_candidate().number != candidate.number


def test_a_resumed_search_may_be_longer(tmp_path):
    drive(make_session(tmp_path, trials=5))
    longer = drive(make_session(tmp_path, trials=9, create=False))
    assert longer.snapshot().complete == 9


def test_any_optuna_storage_holds_the_search(tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    drive(make_session(tmp_path, storage=url, trials=4))
    again = make_session(tmp_path, storage=url, trials=4, create=False)
    assert again.snapshot().complete == 4
    with pytest.raises(StorageError, match="already holds"):
        make_session(tmp_path, storage=url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", ["cannot be opened"]),
        ("sqlite:////proc/nowhere/x.db", ["cannot be opened"]),
        ("postgresql://me:secret@127.0.0.1:1/x", ["me:***@", "cannot be opened"]),
    ],
)
def test_a_storage_that_cannot_be_opened_is_one_line_with_no_password(tmp_path, url, words):
    with pytest.raises(StorageError) as error:
        StudyStore.load(tmp_path, url, "run", SPACE)
    message = str(error.value)
    assert all(word in message for word in words[1:])
    assert "secret" not in message and "\n" not in message


def test_a_corrupt_study_is_said(tmp_path):
    drive(make_session(tmp_path, trials=2))
    journal = tmp_path / "records.jsonl"
    journal.write_bytes(b"{nonsense\n" + journal.read_bytes())
    with pytest.raises(StorageError, match="damaged at line 1:"):
        StudyStore.load(tmp_path, None, "run", SPACE)
    with pytest.raises(StorageError, match=r"no records\.jsonl"):
        StudyStore.load(tmp_path / "elsewhere", None, "run", SPACE)


def test_listeners_hear_of_every_change(tmp_path):
    heard = []

    class Listener:
        def on_change(self, snapshot, record):
            heard.append((snapshot, record))

    drive(make_session(tmp_path, trials=4, listener=Listener()))
    assert heard[0][1] is None and heard[-1][0].complete == 4
    assert heard[-1][0].spent_energy_j == pytest.approx(24.0)


def test_the_gate_learns_joules():
    rng = np.random.default_rng(1)
    gate = Gate(ArchitectureSurrogates(WORKLOAD, seed=0), GateConfig())
    gate.refit([finished(make_trial(n, "running", sample(SPACE, rng))) for n in range(40)])
    errors = []
    for _ in range(40):
        architecture = sample(SPACE, rng)
        verdict = gate.judge(architecture)
        assert 0 < verdict.energy_j.low <= verdict.energy_j.mean <= verdict.energy_j.high
        errors.append(abs(verdict.energy_j.mean / truth(architecture)[1] - 1))
    assert np.mean(errors) < 0.15


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"state": "done"}, "state"),
        ({"quality": 1.5}, "quality"),
        ({"reading": None}, "reading"),
        ({"number": -1}, "number"),
    ],
)
def test_impossible_records_are_refused(tmp_path, change, word):
    session = make_session(tmp_path, trials=1)
    record = finished(session.next_candidate())
    assert Trial.from_dict(record.to_dict()) == record
    with pytest.raises(ValueError, match=word):
        changed(record, **change)


def test_an_unknown_key_is_refused(tmp_path):
    record = finished(make_session(tmp_path, trials=1).next_candidate())
    with pytest.raises(ValueError, match="unknown key extra"):
        Trial.from_dict(record.to_dict() | {"extra": 1})


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"trials": 0}, "trials"),
        ({"seed": -1}, "seed"),
        ({"sampler": "x"}, "sampler"),
        ({"max_joules": -1.0}, "max_joules"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_wrong_search_fields_are_named(change, word):
    config = SearchConfig(task="digits", space=SPACE, trials=1)
    assert SearchConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match=word):
        replace(config, **change)


def test_new_front_members_are_tried_with_other_compressions(tmp_path):
    session = drive(make_session(tmp_path, sampler="random", trials=40))
    complete = [r for r in session.records() if r.state == "complete"]
    mask = non_dominated_mask([r.objectives for r in complete], (True, False))
    tried = {r.architecture for r in complete}
    front = [r.architecture for r, on_front in zip(complete, mask, strict=True) if on_front]
    # bf16 halves joules here and costs nothing: the front has found it out, member by member.
    twins = [v for a in front for v in compression_variants(a, SPACE) if v in tried]
    assert twins
    is_narrow = [all(b.compression.precision == "bf16" for b in a.blocks) for a in front]
    assert np.mean(is_narrow) > 0.5


def test_a_search_whose_trials_fail_alike_ends_before_all_is_trained(tmp_path):
    lost = "NVML: GPU is lost"
    session = drive(make_session(tmp_path, trials=40), lambda c: failed(c, lost))
    assert len(session.records()) == 8
    assert "8 trials in a row failed alike" in session.stop_reason and lost in session.stop_reason
    # Going on, with the sensor back.
    again = drive(make_session(tmp_path, trials=12, create=False))
    assert [r.state for r in again.records()] == ["failed"] * 8 + ["complete"] * 4


def test_a_search_whose_trials_fail_for_many_reasons_or_now_and_then_goes_on(tmp_path):
    def judge(candidate):
        if candidate.number < 10:
            return failed(candidate, f"reason {candidate.number}")
        return finished(candidate) if candidate.number % 5 else failed(candidate, "one")

    session = drive(make_session(tmp_path, trials=25, sampler="random"), judge)
    assert session.stop_reason is None and len(session.records()) >= 25


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("ValueError: no\nat line 3", "ValueError: no"),
        (
            "BackendCompilerFailed: backend='inductor' raised:\n\nCppCompileError: no g++\nSet",
            "BackendCompilerFailed: backend='inductor' raised: CppCompileError: no g++",
        ),
        ("all that was said:", "all that was said:"),
        (" \n", "no reason given"),
    ],
)
def test_a_reason_is_one_line_with_what_a_colon_promises(tmp_path, said, kept):
    candidate = make_session(tmp_path, trials=1).next_candidate()
    assert failed(candidate, said).reason == kept
