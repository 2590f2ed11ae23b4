"""Early stopping: its rule, its exemptions, what is recorded, and a resumed search."""

import json
import re
from dataclasses import replace

import optuna
import pytest
from search_fakes import SPACE, changed, finished, make_session, truth

from nas.analysis.account import render_account
from nas.analysis.summary import summarise
from nas.core.plain import from_plain, to_plain
from nas.records.candidate import Outcome
from nas.records.config import SAMPLERS, SearchConfig
from nas.records.rungs import HalvingConfig, Progress, RungPoint
from nas.records.spent import Spent
from nas.records.trial import Trial
from nas.searching.early_stopping import Contender, Stopper, dominating
from nas.training.config import TrainingConfig
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec

HALVING = HalvingConfig(eta=3, min_epochs=4, startup_trials=3)
EPOCHS = 40


def curve_of(architecture):
    """Errors fall by a third of their logarithm a rung, to that of ``truth``."""
    quality, _ = truth(architecture)
    rungs = HALVING.rungs(EPOCHS)
    powers = [(i + 2) / (len(rungs) + 2) for i in range(len(rungs))]
    return [RungPoint(e, 1 - (1 - quality) ** p, 0.01) for e, p in zip(rungs, powers, strict=True)]


def make_stopper(session):
    return Stopper(HALVING, session, session._gate.surrogates)


def drive(session, stopper):
    while (candidate := session.next_candidate()) is not None:
        session.finish(stop(stopper, candidate) or to_the_end(candidate))
    return session


def to_the_end(candidate):
    curve = tuple(curve_of(candidate.architecture))
    return changed(finished(candidate), curve=curve, planned_epochs=EPOCHS)


def stop(stopper, candidate):
    curve = ()
    for point in curve_of(candidate.architecture):
        curve += (point,)
        spent = point.epoch / EPOCHS
        progress = Progress(curve, EPOCHS, "random", Spent(10 * spent, 5 * spent))
        assert from_plain(Progress, json.loads(json.dumps(to_plain(progress))), "") == progress
        outcome = stopper.judge(candidate.number, progress)
        if outcome is not None:
            return Trial(candidate, outcome)
    return None


def halved(tmp_path, **changes):
    changes.setdefault("sampler", "random")
    session = make_session(tmp_path, **changes)
    return drive(session, make_stopper(session))


def test_stopped_trials_count_and_keep_their_curve_and_reason(tmp_path):
    session = halved(tmp_path, trials=25)
    records = session.records()
    stopped = [r for r in records if r.state == "stopped"]
    snapshot = session.snapshot()
    assert snapshot.stopped == len(stopped) >= 5
    assert snapshot.complete + snapshot.stopped + snapshot.failed == 25
    for record in stopped:
        assert record.epochs in HALVING.rungs(EPOCHS) and record.quality is None
        assert record.planned_epochs == EPOCHS
        assert Trial.from_dict(record.to_dict()) == record
        with pytest.raises(ValueError, match="must be complete, got stopped"):
            _ = record.objectives


def contender(number, quality, energy_j, standard_error=0.01):
    return Contender(number, RungPoint(4, quality, standard_error), energy_j)


@pytest.mark.parametrize(
    ("quality", "energy_j", "dominates"),
    [
        (0.60, 1e-6, True),
        (0.60, 2e-6, True),
        # It needs more joules.
        (0.60, 2.1e-6, False),
        # By less than half a standard error of the difference, 0.007.
        (0.505, 1e-6, False),
        (0.50, 1e-6, False),
    ],
)
def test_a_trial_is_dominated_beyond_noise_by_what_needs_no_more_joules(
    quality, energy_j, dominates
):
    other = contender(1, quality, energy_j)
    expected = other if dominates else None
    assert dominating(contender(2, 0.5, 2e-6), [other]) is expected


def test_equal_trials_without_noise_do_not_dominate_each_other():
    assert dominating(contender(2, 0.5, 1e-6, 0.0), [contender(1, 0.5, 1e-6, 0.0)]) is None


def test_the_reason_names_the_trial_that_dominates(tmp_path):
    session = halved(tmp_path, trials=25)
    records = {r.number: r for r in session.records()}
    stopped = [r for r in records.values() if r.state == "stopped"]
    for record in stopped:
        point = record.curve[-1]
        other = records[int(re.search(r"trial (\d+)", record.reason).group(1))]
        (rival,) = (p for p in other.curve if p.epoch == point.epoch)
        assert rival.quality > point.quality


def test_a_trial_goes_on_while_it_is_the_best_and_stops_where_it_is_dominated(tmp_path):
    session = halved(tmp_path, trials=25)
    stopper = make_stopper(session)
    record = next(r for r in session.records()[::-1] if r.state == "stopped")
    rung = [r.curve[0].quality for r in session.records() if r.curve]
    verdicts = []
    for quality in (0.2, min(1.0, max(rung) + 0.001)):
        point = RungPoint(HALVING.min_epochs, quality, 0.01)
        verdicts.append(stopper.judge(record.number, Progress((point,), EPOCHS)))
    assert verdicts[0].state == "stopped" and verdicts[1] is None


def test_optuna_is_told_pruned_without_values(tmp_path):
    session = halved(tmp_path, trials=20)
    stopped = {r.number for r in session.records() if r.state == "stopped"}
    trials = {t.number: t for t in session._store.frozen_trials()}
    assert stopped
    for number in stopped:
        assert trials[number].state == optuna.trial.TrialState.PRUNED
        assert trials[number].values is None


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_stopped_trials_never_confuse_the_samplers(tmp_path, sampler):
    session = halved(tmp_path, sampler=sampler, trials=24)
    records = session.records()
    assert session.snapshot().stopped > 0
    assert len({r.architecture.hash for r in records}) == len(records)


def test_baselines_and_the_first_are_never_stopped(tmp_path):
    layer = LayerSpec(AttentionSpec(4, 4, 24), FfnSpec(384))
    # The second is dominated by far.
    baselines = (Architecture(16, (LayerSpec(AttentionSpec(1, 1, 16), FfnSpec(8)),), 4),)
    baselines += (Architecture(96, (layer,) * 4, 2), Architecture(96, (layer,) * 3, 2))
    session = halved(tmp_path, trials=12, baselines=baselines)
    records = session.records()
    assert [r.state for r in records[:3]] == ["complete"] * 3
    assert [r.baseline for r in records[:4]] == [True, True, True, False]
    assert session.snapshot().stopped > 0


@pytest.mark.parametrize("why", ["baseline", "audit"])
def test_what_must_be_known_to_its_end_is_not_stopped(tmp_path, why):
    session = halved(tmp_path, trials=20)
    stopper = make_stopper(session)
    stopped = [r for r in session.records() if r.state == "stopped"]
    # By the models as they are at the end, one or the other would go on.
    worst = next(r for r in stopped if stopper.judge(r.number, Progress(r.curve, EPOCHS)))
    progress = Progress(worst.curve, EPOCHS)
    session._records[worst.number] = changed(worst, **{why: True})
    assert stopper.judge(worst.number, progress) is None


def test_a_resumed_search_judges_as_the_one_that_was_killed(tmp_path):
    session = make_session(tmp_path, sampler="random", trials=20)
    stopper = make_stopper(session)
    for _ in range(12):
        candidate = session.next_candidate()
        session.finish(stop(stopper, candidate) or to_the_end(candidate))
    in_flight = session.next_candidate()
    again = make_session(tmp_path, sampler="random", trials=20, create=False)
    assert again.records() == session.records()
    resumed = make_stopper(again)
    assert again.next_candidate().number == in_flight.number
    assert stop(resumed, in_flight) == stop(stopper, in_flight)


def test_joules_are_measured_ones_as_soon_as_there_are(tmp_path):
    session = halved(tmp_path, trials=12)
    energies = session._gate.surrogates.energies_j(session.records())
    for record in session.records():
        if record.state == "complete":
            assert energies[record.number] == record.energy_j
        else:
            assert energies[record.number] > 0


class FakeRun:
    stop_reason, meter, unit = None, "fake", "sample"

    def __init__(self, folder, session):
        self.device_account_path = folder / "none.jsonl"
        self.calibration_path, self.pruning_path = folder / "none.jsonl", folder / "none.json"
        self.config, self._session = session._config, session

    def trials(self):
        return self._session.records()

    def teacher(self):
        return None


def test_the_account_says_what_was_saved_and_that_it_is_an_estimate(tmp_path):
    session = halved(tmp_path, trials=25)
    summary = summarise(FakeRun(tmp_path, session))
    stopped = [r for r in session.records() if r.state == "stopped"]
    assert summary.finished and summary.stopped == len(stopped)
    left = sum(1 - r.epochs / EPOCHS for r in stopped)
    assert summary.stopped_saved_s == pytest.approx(10 * left)
    assert summary.stopped_saved_j == pytest.approx(5 * left)
    text = render_account(summary)
    assert f"{len(stopped)} stopped early" in text and "an estimate" in text
    unknown = [changed(r, train_energy_j=None) for r in session.records()]
    session._records = {r.number: r for r in unknown}
    assert summarise(FakeRun(tmp_path, session)).stopped_saved_j is None


def test_configurations_with_halving_are_read_back():
    config = SearchConfig(task="digits", space=SPACE, trials=1, halving=HALVING)
    assert SearchConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["halving"] == {"eta": 3, "min_epochs": 4, "startup_trials": 3}
    with pytest.raises(ValueError, match="min_epochs must be below training epochs, 4, got 4"):
        replace(config, training=TrainingConfig(epochs=4))


def test_a_stopped_record_needs_its_curve():
    with pytest.raises(ValueError, match="stopped trial must have a curve"):
        Outcome("stopped", reason="slow")
    with pytest.raises(ValueError, match="curve quality"):
        RungPoint(1, 1.5, 0.0)
