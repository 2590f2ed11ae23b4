"""Pruning: what a search considers and never trains, and the audit that draws from it."""

from dataclasses import replace

import numpy as np
import pytest
from search_fakes import SPACE, WORKLOAD, drive, finished, make_session

from nas.core.estimate import Estimate, Score
from nas.records.candidate import Candidate, Measurement, Outcome
from nas.records.config import GateConfig
from nas.records.trial import Trial
from nas.searching.gating.pruning import Pruning, PruningCounts, Verdict, read_counts
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import from_vector
from search_spaces.space.sampling import sample, sample_positions


def rows(n, seed=0):
    positions = np.unique(sample_positions(SPACE, n, np.random.default_rng(seed)), axis=0)
    return positions, ArchitectureBatch.from_positions(positions, SPACE)


def by_parity(batch):
    return np.where(np.arange(len(batch)) % 2, Verdict.DOMINATED, Verdict.KEPT).astype(np.int8)


def test_everything_is_kept_and_nothing_counted_before_there_is_a_judge():
    pruning = Pruning(SPACE, seed=0)
    positions, batch = rows(20)
    assert pruning.keeps(positions, batch).all()
    assert pruning.counts == PruningCounts()


def test_each_candidate_counts_once_by_its_last_verdict(tmp_path):
    pruning = Pruning(SPACE, seed=0)
    pruning.store_at(tmp_path / "pruning.json")
    pruning.judge = by_parity
    positions, batch = rows(40)
    n = len(positions)
    kept = pruning.keeps(positions, batch)
    assert (kept == (np.arange(n) % 2 == 0)).all()
    pruning.keeps(positions, batch)
    assert pruning.counts == PruningCounts(n, 0, n // 2)
    pruning.judge = lambda batch: np.full(len(batch), Verdict.OVER_LIMIT, dtype=np.int8)
    pruning.keeps(positions, batch)
    assert pruning.counts == PruningCounts(n, n, 0)
    pruning.count(from_vector(positions[0], SPACE), Verdict.KEPT)
    assert pruning.counts == PruningCounts(n, n - 1, 0)
    assert pruning.counts.share == pytest.approx((n - 1) / n)
    pruning.save()
    later = Pruning(SPACE, seed=0)
    later.store_at(tmp_path / "pruning.json")
    assert later.counts == pruning.counts
    (tmp_path / "pruning.json").write_text("{")
    assert read_counts(tmp_path / "pruning.json") == PruningCounts()


def test_audits_are_drawn_from_all_that_is_pruned():
    pruning = Pruning(SPACE, seed=0)
    pruning.judge = by_parity
    positions, batch = rows(40)
    pruning.keeps(positions, batch)
    pruned = {from_vector(row, SPACE).hash for row in positions[1::2]}
    drawn = {pruning.draw(()).hash for _ in range(200)}
    assert drawn <= pruned
    assert len(drawn) > len(pruned) / 2
    assert pruning.draw(pruned) is None


@pytest.mark.parametrize("sampler", ["ehvi", "random"])
def test_the_audited_share_of_trials_is_the_configured_one(tmp_path, sampler):
    gate = GateConfig(startup_trials=8, audit_share=0.25)
    session = drive(make_session(tmp_path, sampler=sampler, trials=40, gate=gate))
    records = session.records()
    audited = [record for record in records if record.audit]
    # A quarter of the trials since the first candidate was pruned.
    assert 6 <= len(audited) <= 8
    assert all(record.state == "complete" for record in audited)
    assert all(record.candidate.measure_above is None for record in audited)
    counts = session.snapshot().pruning
    assert counts.considered == len(records) if sampler == "random" else counts.considered > 2000
    assert 0 < counts.pruned < counts.considered


def test_what_the_gate_keeps_as_a_batch_it_keeps_one_by_one(tmp_path):
    session = drive(make_session(tmp_path, sampler="random", trials=20, max_joules=2e-5))
    _, batch = rows(300, seed=5)
    verdicts = session._gate.verdicts(batch)
    members = [from_vector(row, SPACE) for row in rows(300, seed=5)[0]]
    assert {*verdicts} == {*Verdict}
    assert [session._gate.judge(member).verdict for member in members] == list(verdicts)


def test_a_trained_candidate_that_is_dominated_at_its_optimistic_joules_is_not_measured():
    architecture = sample(SPACE, np.random.default_rng(0))
    prediction = Estimate(1e-6, 8e-7, 1.2e-6, "predicted")
    candidate = Candidate(0, architecture, prediction, measure_above=0.9)
    assert not candidate.is_worth_measuring(Score(0.85, 0.01))
    # Its quality may be as good.
    assert candidate.is_worth_measuring(Score(0.85, 0.03))
    assert replace(candidate, measure_above=None).is_worth_measuring(Score(0.1, 0.0))
    unmeasured = Outcome("complete", quality=Score(0.85, 0.01))
    trial = Trial(candidate, unmeasured)
    assert (trial.joules, trial.energy) == ("predicted", prediction)
    assert Trial.from_dict(trial.to_dict()) == trial
    with pytest.raises(ValueError, match="a complete trial must have quality"):
        Trial(replace(candidate, measure_above=None), unmeasured)


def test_the_quality_to_beat_is_that_of_cheaper_members_of_the_front(tmp_path):
    session = drive(make_session(tmp_path, sampler="random", trials=20))
    gate = session._gate
    front = sorted(
        (r.objectives for r in session.records() if r.number in gate.front_numbers),
        key=lambda objectives: objectives[1],
    )
    energies_j = [energy_j for _, energy_j in front]
    between = (energies_j[0] + energies_j[1]) / 2
    above = max(energies_j) * 2
    assert gate.quality_to_beat(Estimate(above, between, above, "predicted")) == front[0][0]
    assert gate.quality_to_beat(Estimate(above, above, above, "predicted")) == max(front)[0]
    least = energies_j[0] / 2
    assert gate.quality_to_beat(Estimate(above, least, above, "predicted")) is None


def test_candidates_carry_the_quality_that_is_worth_measuring(tmp_path):
    def judged(candidate):
        trial = finished(candidate)
        if not candidate.is_worth_measuring(trial.outcome.quality):
            outcome = replace(trial.outcome, measurement=Measurement())
            trial = Trial(trial.candidate, outcome)
        return trial

    gate = GateConfig(startup_trials=25)
    session = drive(make_session(tmp_path, sampler="random", trials=25, gate=gate), judged)
    records = [r for r in session.records() if r.state == "complete"]
    unmeasured = [r for r in records if r.joules == "predicted"]
    assert unmeasured
    front = session.snapshot().front
    measured = [r for r in records if r.reading is not None]
    assert front == len(session._config.goals.front(measured))
    assert WORKLOAD.key == measured[0].reading.workload
