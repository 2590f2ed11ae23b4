"""Searches by a supernet, without Ray: who is measured, who is a finalist, what a front shows."""

from dataclasses import replace

import numpy as np
import pytest
from search_fakes import SPACE, changed, drive, finished, make_session, make_trial, reading, truth

from nas.analysis.account import render_fidelity
from nas.analysis.summary import summarise
from nas.cli.commands.front import render_table
from nas.core.estimate import Estimate
from nas.core.plain import from_plain, to_plain
from nas.evaluation.fidelity import LEAST_TAU, Fidelity, fidelity_of
from nas.pareto.queries import Front
from nas.records.config import SearchConfig
from nas.records.front_member import member_of
from nas.records.rungs import HalvingConfig
from nas.records.supernet import SupernetConfig, choose_finalists
from nas.records.trial import Trial, judged
from nas.store.new_run import create
from nas.training.config import DistillConfig, RecoveryConfig, TrainingConfig
from search_spaces.space.sampling import sample, smallest

SMALL = SupernetConfig(
    measure_first=12, measure_each=5, measure_width=1e9, finalists=4, controls=3
)


def judge(candidate):
    """Inherited qualities are ten points lower; joules only where they are measured."""
    record = finished(candidate)
    if candidate.finalist_of is not None:
        return record
    quality, _ = truth(candidate.architecture)
    record = changed(record, quality=max(0.0, quality - 0.1), start="supernet")
    return record if candidate.joules == "measured" else changed(record, reading=None)


def finish_of(session, config=SMALL):
    complete = [r for r in session.searched() if r.state == "complete"]
    return choose_finalists(complete, [r.objectives[1] for r in complete], config)


def test_the_first_are_measured_then_some_and_then_finalists(tmp_path):
    session = drive(make_session(tmp_path, trials=30, supernet=SMALL), judge)
    records = [r for r in session.records() if r.state == "complete"]
    assert len(records) == 30 and session.is_searched()
    assert {r.weights for r in records} == {"inherited"}
    assert all(r.joules == "measured" for r in records[:12])
    later = [r.joules for r in records[12:]]
    assert 3 <= later.count("measured") <= 5
    predicted = [r for r in records if r.joules == "predicted"]
    assert all(r.reading is None and r.energy == r.prediction for r in predicted)
    chosen = finish_of(session)
    session.add_finalists(chosen)
    assert session.snapshot().total == 37
    drive(session, judge)
    finalists = [r for r in session.records() if r.finalist_of is not None]
    assert [r.finalist_of for r in finalists] == chosen and len(chosen) == 7
    for record in finalists:
        of = session.record(record.finalist_of)
        assert record.architecture == of.architecture and record.weights == "own"
        assert record.inherited_quality == of.quality < record.quality
        assert record.reading is not None and record.joules == "measured"
    # What was inherited stays as it was, and is no longer what is shown.
    assert session.searched() == [r for r in session.records() if r.finalist_of is None]
    assert judged(session.records()) == finalists
    session.add_finalists(chosen)
    assert session.next_candidate() is None


def test_a_killed_search_goes_on_with_its_finalists(tmp_path):
    session = drive(make_session(tmp_path, trials=12, supernet=SMALL), judge)
    chosen = finish_of(session)
    session.add_finalists(chosen)
    done = session.next_candidate()
    session.finish(judge(done))
    flying = session.next_candidate()
    again = make_session(tmp_path, trials=12, supernet=SMALL, create=False)
    assert [r.number for r in again.in_flight()] == [flying.number] and again.is_searched()
    assert again.next_candidate() == flying
    again.finish(judge(flying))
    assert again.next_candidate() is None
    again.add_finalists(chosen)
    drive(again, judge)
    finalists = [r.finalist_of for r in again.records() if r.finalist_of is not None]
    assert sorted(finalists) == sorted(chosen) and finalists[:2] == chosen[:2]


def test_a_search_that_is_extended_learns_from_inherited_qualities_alone(tmp_path):
    session = drive(make_session(tmp_path, trials=12, supernet=SMALL), judge)
    session.add_finalists(finish_of(session))
    drive(session, judge)
    again = make_session(tmp_path, trials=14, supernet=SMALL, create=False)
    assert not again.is_searched()
    drive(again, judge)
    assert sum(r.state == "complete" for r in again.searched()) == 14
    fronts = again._gate.front_numbers
    assert fronts and all(again.record(n).finalist_of is None for n in fronts)


def test_wide_predictions_are_measured_but_not_each_of_them():
    config = replace(SMALL, measure_first=1, measure_each=100, measure_width=2.0)
    records, kinds = [], []
    for number in range(12):
        joules = config.joules_of(records, width=5.0)
        record = make_trial(number, "running", smallest(SPACE), weights="inherited")
        records.append(changed(record, joules=joules))
        kinds.append(joules == "measured")
    assert kinds == [True] + [False] * 3 + [True] + [False] * 3 + [True] + [False] * 3
    assert config.joules_of(records, width=1.5) == "predicted"


def record_of(number, quality, energy_j, **changes):
    rng = np.random.default_rng(number)
    record = make_trial(
        number,
        "complete",
        sample(SPACE, rng),
        quality=quality,
        quality_se=0.01,
        reading=reading(energy_j),
        weights="inherited",
    )
    return changed(record, **changes)


def test_finalists_are_the_front_then_the_next_and_controls_of_all_ranks():
    points = [(0.9, 4.0), (0.8, 2.0), (0.7, 1.0), (0.85, 4.5), (0.6, 1.5), (0.5, 9.0), (0.1, 8.0)]
    records = [record_of(i, *point) for i, point in enumerate(points)]
    energies = [energy for _, energy in points]
    chosen = choose_finalists(records, energies, replace(SMALL, finalists=5, controls=1))
    assert sorted(chosen[:3]) == [0, 1, 2] and sorted(chosen[3:5]) == [3, 4]
    assert chosen[5:] in ([5], [6])
    # Of a front that is too long, both ends and what lies between.
    few = choose_finalists(records, energies, replace(SMALL, finalists=2, controls=0))
    assert sorted(few) == [0, 2]
    # Joules as they are known now, not as they were.
    cheap = choose_finalists(records, [*energies[:6], 0.1], replace(SMALL, finalists=1))
    assert 6 in choose_finalists(records, [*energies[:6], 0.1], SMALL) and len(cheap) == 4
    based = [changed(records[6], baseline=True), *records[:6]]
    found = choose_finalists(based, [8.0, *energies[:6]], replace(SMALL, finalists=3, controls=0))
    assert found[0] == 6 and sorted(found[1:]) == [0, 1, 2]


def test_few_candidates_are_all_finalists():
    records = [record_of(i, 0.5 + i / 100, 1.0 + i) for i in range(3)]
    chosen = choose_finalists(records, [1.0, 2.0, 3.0], SMALL)
    assert sorted(chosen) == [0, 1, 2]


def test_fidelity_is_kendalls_tau_with_an_interval():
    rng = np.random.default_rng(0)
    own = rng.random(30)
    same = Fidelity.of(own, own)
    assert same.tau.range == pytest.approx((1.0, 1.0, 1.0))
    assert same.n == 30 and same.tau.mean > LEAST_TAU
    noise = Fidelity.of(rng.random(30), own)
    assert noise.tau.low < noise.tau.mean < noise.tau.high and noise.tau.mean < LEAST_TAU
    assert Fidelity.of(own[:4], own[:4]) is None
    assert Fidelity.of([0.5] * 9, own[:9]) is None
    finalists = [
        record_of(i, float(own[i]), 1.0, weights="own", finalist_of=0, inherited_quality=0.1 * i)
        for i in range(6)
    ]
    assert fidelity_of([*finalists, record_of(9, 0.5, 1.0)]).n == 6


def run_of(tmp_path, records, trials=1):
    config = SearchConfig(task="digits", space=SPACE, trials=trials, supernet=SMALL)
    run = create(tmp_path / "run", config, "fake")

    class Kept(type(run)):
        def trials(self):
            return records

    return Kept(run.folder, run.config, run.name, run.started, run.versions, run.meter)


def test_a_front_says_what_is_inherited_and_predicted_until_there_are_finalists(tmp_path):
    measured = record_of(0, 0.8, 2e-5)
    predicted = record_of(
        1,
        0.9,
        1.0,
        reading=None,
        joules="predicted",
        prediction=Estimate(3e-5, 2.5e-5, 4e-5, "predicted"),
    )
    run = run_of(tmp_path, [measured, predicted])
    text = render_table(run.front())
    assert "80.00% ± 1.00% (inherited)" in text and "30 µJ [25 µJ, 40 µJ] (predicted)" in text
    assert "no finalist is trained yet" in text
    assert not summarise(run).finished
    final = record_of(
        2,
        0.95,
        2e-5,
        weights="own",
        finalist_of=0,
        inherited_quality=0.8,
        architecture=measured.architecture,
    )
    done = run_of(tmp_path / "b", [measured, predicted, final])
    done.keep_finalists([0], 2)
    text = render_table(done.front())
    assert "95.00%" in text and "80.00%" in text and "predicted" not in text
    assert "before: quality when it was chosen as a finalist" in text
    summary = summarise(done)
    assert summary.finished and summary.finalists == 1 and summary.fidelity is None
    assert "not known from 1 finalists" in render_fidelity(summary)
    # The choice is kept, unless the search went on meanwhile.
    assert done.keep_finalists([1], 2) == (0,) and done.keep_finalists([1], 3) == (1,)
    assert not summarise(done).finished


def test_poor_fidelity_advises_another_evaluator(tmp_path):
    rng = np.random.default_rng(1)
    records = [
        record_of(
            i,
            float(rng.random()),
            1.0 + i,
            weights="own",
            finalist_of=i + 100,
            inherited_quality=float(rng.random()),
        )
        for i in range(12)
    ]
    text = render_fidelity(summarise(run_of(tmp_path, records)))
    assert "Kendall tau" in text and "--evaluator scratch" in text


def test_an_inherited_trial_is_a_member_with_its_marks():
    member = member_of(record_of(0, 0.8, 2e-5), "cpu")
    assert (member.weights, member.joules, member.finalist_of) == ("inherited", "measured", None)
    with pytest.raises(ValueError, match="must be complete"):
        member_of(record_of(0, 0.8, 1.0, reading=None, state="running"), "cpu")
    assert len(Front.of([member])) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"halving": HalvingConfig()}, "halving must be None with a supernet"),
        ({"max_latency_s": 1.0}, "max_latency_s and the objective latency must be left out"),
        ({"refine": 2}, "refine must be 0 with a supernet, got 2"),
        ({"warm_start": ("runs/a",)}, "warm_start must be empty with a supernet"),
        (
            {
                "teacher": "largest",
                "training": TrainingConfig(
                    distill=DistillConfig(), recovery=RecoveryConfig(inherit_share=0.2)
                ),
            },
            "inherit_share must be None with a supernet",
        ),
    ],
)
def test_what_does_not_go_together_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        SearchConfig(task="digits", space=SPACE, trials=1, supernet=SMALL, **changes)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("finalists", 0, "finalists must be an integer >= 1"),
        ("controls", -1, "controls must be an integer >= 0"),
        ("controls", 1.5, "controls must be an integer"),
        ("measure_width", 1.0, "measure_width must be > 1"),
        ("finish_share", 0.0, r"finish_share must be in \(0, 1\]"),
    ],
)
def test_a_configuration_names_what_is_wrong(field, value, words):
    with pytest.raises(ValueError, match=words):
        SupernetConfig(**{field: value})


def test_configurations_and_records_survive_json():
    config = SearchConfig(task="digits", space=SPACE, trials=1, supernet=SMALL)
    assert SearchConfig.from_dict(config.to_dict()) == config
    record = record_of(3, 0.5, 1.0, weights="own", finalist_of=1, inherited_quality=0.4)
    assert Trial.from_dict(record.to_dict()) == record
    with pytest.raises(ValueError, match="weights must be one of own, inherited, got 'lent'"):
        changed(record, weights="lent")
    with pytest.raises(ValueError, match="unknown key"):
        from_plain(SupernetConfig, to_plain(SMALL) | {"extra": 1}, "supernet")
