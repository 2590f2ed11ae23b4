"""The evaluation itself: hand-checked figures, and splits through which nothing leaks."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from record_fakes import DIGITS, made_record, made_records
from scipy.stats import kendalltau

from predictors.energy import evaluation
from predictors.energy.evaluation import OURS, ceiling, evaluate, line
from predictors.energy.learning_curve import learning_curve
from predictors.energy.metrics import judge, ranked
from predictors.energy.splits import SPLITS, SplitRefusedError, make_folds

ONE = np.zeros(4, dtype=int)


def test_metrics_by_hand():
    truth, mean = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.05, 1.8, 8.0, 4.0])
    found = judge(truth, mean, ONE, (mean * 0.9, mean * 1.2))
    # Errors 5%, 10%, 100%, 50%; one of six pairs is the wrong way round.
    assert found.n == 4 and found.mape == pytest.approx(1.65 / 4)
    assert found.within_5 == 0.25 and found.within_10 == 0.5
    assert found.tau == pytest.approx((5 - 1) / 6)
    # Ranks 1 2 4 3: 1 - 6 * (1 + 1) / (4 * 15).
    assert found.spearman == pytest.approx(0.8)
    assert found.coverage == 0.5
    # Between the third and the fourth of four, at 0.95 * 3 = 2.85.
    assert found.p95 == pytest.approx(0.5 + 0.85 * 0.5)
    assert judge(truth, truth, ONE).coverage is None


def test_ranks_are_within_a_workload_and_weighted_by_rows():
    workload = np.array([0, 0, 0, 1, 1])
    truth, mean = np.array([1, 2, 3, 10, 20.0]), np.array([1, 2, 3, 20, 10.0])
    assert ranked(kendalltau, mean, truth, workload) == pytest.approx((3 * 1 + 2 * -1) / 5)
    # Across workloads it would be 0.8: the order of workloads is no achievement.
    assert kendalltau(mean, truth).statistic == pytest.approx(0.8)
    assert ranked(kendalltau, np.ones(5), truth, workload) == 0.0
    assert ranked(kendalltau, mean[:1], truth[:1], workload[:1]) is None


def test_nothing_and_impossible_labels_are_refused():
    with pytest.raises(ValueError, match="one or more rows"):
        judge(np.empty(0), np.empty(0), np.empty(0, dtype=int))
    with pytest.raises(ValueError, match="> 0"):
        judge(np.array([0.0]), np.array([1.0]), ONE[:1])


def test_a_baseline_is_the_power_law_through_its_points():
    x = np.array([1.0, 2.0, 5.0])
    assert line(x, 3 * x**1.5)(np.array([4.0]))[0] == pytest.approx(24.0)
    assert line(np.ones(2), np.array([1.0, 4.0]))(np.array([9.0]))[0] == pytest.approx(2.0)


def rows_of(records):
    return evaluation.LabelledRows.of(records).by


@pytest.mark.parametrize("kind", SPLITS)
def test_no_architecture_is_on_both_sides_and_held_out_wholes_are_whole(kind):
    rows = rows_of(made_records(90, n_repeated=30))
    folds = make_folds(kind, rows, n_folds=5, seed=0)
    tested = np.concatenate([fold.test for fold in folds])
    assert len(tested) == len(set(tested))
    names = np.array(rows.architecture)
    wholes = {"by-job": rows.session, "by-family": rows.family, "random": rows.architecture}
    for fold in folds:
        assert not set(names[fold.train]) & set(names[fold.test])
        whole = np.array(wholes.get(kind, []))
        if len(whole):
            assert not set(whole[fold.train]) & set(whole[fold.test])
    if kind == "extrapolation":
        (fold,) = folds
        assert rows.flops[fold.train].max() < rows.flops[fold.test].min()
        assert 0.2 < len(fold.test) / len(names) <= 0.3
    else:
        assert len(tested) == len(names)


def test_an_architecture_on_two_workloads_is_one_architecture():
    records = made_records(40)
    again = [
        made_record(r.architecture, DIGITS.with_batch_size(64), 2 * r.reading.energy_j)
        for r in records
    ]
    rows = rows_of(records + again)
    for kind in ("random", "by-family", "extrapolation"):
        for fold in make_folds(kind, rows, n_folds=5, seed=0):
            names = np.array(rows.architecture)
            assert not set(names[fold.train]) & set(names[fold.test])


class Recaller:
    """A predictor that has learned nothing but the labels that it saw, and says so elsewhere."""

    def __init__(self, observations):
        self.seen = {o.architecture: o.cost for o in observations}

    @classmethod
    def fit(cls, observations, *, seed=0):
        return cls(observations)

    def predict(self, architectures, workload, confidence):
        mean = np.array([self.seen.get(a, 1e-12) for a in architectures])
        return SimpleNamespace(mean=mean, low=mean, high=mean)


def test_a_predictor_that_only_recalls_is_worth_nothing_in_any_split(monkeypatch):
    monkeypatch.setattr(evaluation, "CostPredictor", Recaller)
    found = evaluate(made_records(60, n_repeated=30))
    for split in found.splits:
        assert split.refusal is None
        assert split.metrics[OURS].mape > 0.999 and split.metrics[OURS].within_10 == 0


class SessionReader:
    """Knows every true joule, and the mean offset of its training rows: leaks show in errors."""

    def __init__(self, observations):
        from record_fakes import true_j

        ratios = [np.log(o.cost / true_j(o.architecture)) for o in observations]
        self.level = float(np.exp(np.mean(ratios)))

    @classmethod
    def fit(cls, observations, *, seed=0):
        return cls(observations)

    def predict(self, architectures, workload, confidence):
        from record_fakes import true_j

        mean = np.array([true_j(a) for a in architectures]) * self.level
        return SimpleNamespace(mean=mean, low=mean * 0.9, high=mean * 1.1)


def test_holding_out_sessions_shows_the_sessions_offset(monkeypatch):
    monkeypatch.setattr(evaluation, "CostPredictor", SessionReader)
    records = made_records(60, n_sessions=2, session_sd=0.2, noise=0.001)
    found = {s.kind: s.metrics[OURS].mape for s in evaluate(records).splits}
    levels = [
        np.exp(np.mean([np.log(r.reading.energy_j / _true(r)) for r in records if r.session == s]))
        for s in ("s0", "s1")
    ]
    ratio = levels[0] / levels[1]
    assert found["by-job"] == pytest.approx((abs(ratio - 1) + abs(1 / ratio - 1)) / 2, rel=0.02)
    assert found["random"] < 0.6 * found["by-job"]


def _true(record):
    from record_fakes import true_j

    return true_j(record.architecture)


def test_our_predictor_beats_the_baselines_on_a_device_of_its_kind():
    found = evaluate(made_records(80))
    assert [s.kind for s in found.splits] == list(SPLITS)
    for split in found.splits:
        ours = split.metrics[OURS]
        for name in ("flops", "params", "bytes"):
            assert ours.tau > split.metrics[name].tau
            assert ours.mape < split.metrics[name].mape
        assert ours.coverage is not None and split.metrics["flops"].coverage is None


def test_what_records_do_not_allow_is_said_in_a_sentence():
    records = [r for r in made_records(60, n_sessions=1)]
    found = {s.kind: s for s in evaluate(records, kinds=("by-job",)).splits}
    assert "one measuring session only" in found["by-job"].refusal
    assert found["by-job"].metrics == {}
    width = records[0].architecture.d_model
    alike = [r for r in records if r.architecture.d_model == width]
    with pytest.raises(SplitRefusedError, match="one family"):
        make_folds("by-family", rows_of(alike), n_folds=5, seed=0)
    with pytest.raises(SplitRefusedError, match="10 are needed"):
        make_folds("random", rows_of(records[:9]), n_folds=5, seed=0)
    unnamed = [replace(r, session="") for r in records]
    with pytest.raises(SplitRefusedError, match="no measuring session"):
        make_folds("by-job", rows_of(unnamed), n_folds=5, seed=0)


def test_two_devices_are_not_one():
    records = made_records(30)
    other = made_record(records[0].architecture, DIGITS, 1e-5, device="Other")
    with pytest.raises(ValueError, match="one device"):
        evaluate([*records, other])
    assert [len(group) for group in evaluation.by_device([*records, other])] == [30, 1]


def test_the_ceiling_by_hand():
    first, second, third = (r.architecture for r in made_records(3))
    # Odd windows 1, 2, 4; even ones 1.1, 2, 3.
    records = [
        made_record(first, DIGITS, 1.0, repeats_j=(1.0, 1.1, 1.0, 1.1)),
        made_record(second, DIGITS, 2.0, repeats_j=(2.0, 2.0)),
        made_record(third, DIGITS, 4.0, repeats_j=(4.0, 3.0, 4.0, 3.0)),
        made_record(third, DIGITS, 5.0, repeats_j=(5.0,), session="s1"),
    ]
    found = ceiling(records)
    assert found.n_halved == 3 and found.tau == 1.0
    assert found.mape == pytest.approx((0.1 / 1.1 + 0 + 1 / 3) / 3)
    assert found.floor_mape == pytest.approx(found.mape / 2)
    r = np.corrcoef(np.log([1, 2, 4]), np.log([1.1, 2, 3]))[0, 1]
    assert found.reliability == pytest.approx(2 * r / (1 + r))
    assert found.n_repeated == 1 and found.jobs_mape == pytest.approx(0.25)
    assert found.jobs_floor_mape == pytest.approx(0.25 / np.sqrt(2)) == found.noise_mape
    none = ceiling(records[3:])
    assert none.mape is None and none.jobs_mape is None and none.noise_mape is None


def test_the_floor_is_what_a_perfect_predictor_errs():
    from record_fakes import true_j

    records = made_records(300, n_sessions=1, session_sd=0.0)
    errors = [abs(true_j(r.architecture) / r.reading.energy_j - 1) for r in records]
    # Medians of three lose a little less to noise than those of six: within a quarter.
    assert ceiling(records).floor_mape == pytest.approx(np.mean(errors), rel=0.25)


def test_a_learning_curve_trains_on_more_and_more_of_what_it_does_not_test(monkeypatch):
    sizes = []

    class Counting(Recaller):
        @classmethod
        def fit(cls, observations, *, seed=0):
            sizes.append(len({o.architecture for o in observations}))
            return cls(observations)

    monkeypatch.setattr(evaluation, "CostPredictor", Counting)
    points = learning_curve(made_records(60, n_repeated=20), n_seeds=2)
    assert sizes == [10, 20, 40, 45] * 2
    ours = [p for p in points if p.predictor == OURS]
    assert [p.n for p in ours] == [10, 20, 40, 45]
    assert all(p.mape.mean > 0.999 for p in ours)
    assert all(p.tau is None or -1 <= p.tau.low <= p.tau.high <= 1 for p in points)
    with pytest.raises(SplitRefusedError, match="20 architectures"):
        learning_curve(made_records(12))
