"""Halving on Ray Tune: as a scheduler of any Tune, and in our driver."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from executor_fakes import run_trials
from search_fakes import make_session, reading

from nas.cluster.scheduler import HalvingScheduler
from nas.core.estimate import Score
from nas.records.candidate import Measurement, Outcome, Training
from nas.records.rungs import HalvingConfig, Progress, RungPoint
from nas.records.spent import Spent
from nas.searching.early_stopping.stopping import Stopper
from search_spaces.cost.counting import count

CONFIG = HalvingConfig(eta=2, min_epochs=2, startup_trials=0)


def scheduler(**changes):
    return HalvingScheduler(replace(CONFIG, **changes), epoch="epoch")


def told(judge, trial, epoch, quality, energy_j, **more):
    result = {"epoch": epoch, "quality": quality, "energy_j": energy_j, **more}
    return judge.on_trial_result(None, SimpleNamespace(trial_id=trial), result)


def test_trials_are_judged_at_rungs_only_and_what_falls_behind_stops():
    judge = scheduler()
    assert told(judge, "a", 1, 0.9, 1.0) == "CONTINUE"
    assert told(judge, "a", 2, 0.9, 1.0) == "CONTINUE"
    assert told(judge, "b", 1, 0.1, 2.0) == "CONTINUE"
    assert told(judge, "b", 2, 0.1, 2.0) == "STOP"
    assert told(judge, "c", 2, 0.1, 0.5) == "CONTINUE"
    assert judge.n_stopped == 1 and "1 stopped" in judge.debug_string()


def test_reports_that_skip_a_rung_are_judged_by_the_next_and_once():
    judge = scheduler()
    assert told(judge, "a", 3, 0.9, 1.0) == "CONTINUE"
    assert told(judge, "b", 3, 0.95, 2.0) == "CONTINUE"
    assert told(judge, "c", 3, 0.5, 3.0) == "STOP"
    # Worse now, but the rung at two epochs is behind it and that at four not reached.
    assert told(judge, "b", 3, 0.1, 2.0) == "CONTINUE"


def test_reports_without_objectives_and_the_first_trials_go_on():
    judge = scheduler(startup_trials=2)
    assert told(judge, "a", 2, 0.9, 1.0) == told(judge, "b", 2, 0.1, 2.0) == "CONTINUE"
    trial = SimpleNamespace(trial_id="c")
    assert judge.on_trial_result(None, trial, {"epoch": 2, "quality": 0.1}) == "CONTINUE"
    assert told(judge, "c", 2, 0.05, 3.0) == "STOP"


def test_a_standard_error_protects_only_what_leads_by_it():
    for error, verdict in ((0.01, "CONTINUE"), (0.2, "STOP")):
        judge = scheduler()
        for trial, quality, energy_j in (("a", 0.2, 0.1), ("b", 0.5, 1.0), ("d", 0.9, 4.0)):
            told(judge, trial, 2, quality, energy_j)
        found = told(judge, "c", 2, 0.6, 3.9, standard_error=error)
        assert found == verdict


class Evaluator:
    """Three rungs, each in no time, and an quality and joules that grow with parameters."""

    def __init__(self, workload, reading):
        self.workload, self.reading = workload, reading

    def joules(self, energy_j):
        low_j, high_j = 0.9 * energy_j, 1.1 * energy_j
        return replace(self.reading, energy_j=energy_j, low_j=low_j, high_j=high_j)

    def evaluate(self, candidate, folder, measure, tell=None):
        params = count(candidate.architecture, self.workload).params
        # Every third trial is bad, whatever it costs.
        quality = 0.2 if candidate.number % 3 == 2 else 1 - 6 / params**0.6
        curve = ()
        (folder / "progress.json").write_text("{}")
        for epoch in (2, 4, 8):
            curve += (RungPoint(epoch, quality, 0.001),)
            tell(Progress(curve, 10, "random", Spent(1.0, 1.0)))
        return Outcome(
            "complete",
            quality=Score(quality, 0.001),
            measurement=Measurement(self.joules(params * 1e-9)),
            training=Training(curve, 10),
        )


@pytest.mark.e2e
def test_plain_tune_and_the_driver_stop_trials_early(tmp_path):
    import sys

    import ray
    from ray import cloudpickle, tune
    from search_fakes import WORKLOAD

    from nas.cluster.connect import cluster

    # Workers cannot import the tests.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def trainable(config):
        for _ in range(8):
            tune.report({"quality": config["quality"], "energy_j": config["energy_j"]})

    with cluster(None, 2, "cpu"):
        grid = [{"quality": 0.9, "energy_j": 1.0}, *[{"quality": 0.1, "energy_j": 2.0}] * 2]
        rule = HalvingScheduler(CONFIG)
        results = tune.Tuner(
            trainable,
            param_space=tune.grid_search(grid),
            tune_config=tune.TuneConfig(scheduler=rule, max_concurrent_trials=1),
            run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
        ).fit()
        epochs = sorted(r.metrics["training_iteration"] for r in results)
        session = make_session(tmp_path, sampler="random", trials=9)
        run_trials(
            session,
            Evaluator(WORKLOAD, reading(1.0)),
            tmp_path / "trials",
            stopper=Stopper(replace(CONFIG, startup_trials=2), session, session._gate),
        )
    assert not ray.is_initialized()
    assert epochs[-1] == 8 and epochs[0] == 2 and rule.n_stopped == 2
    records = session.records()
    assert not [r.reason for r in records if r.state == "failed"]
    assert {r.state for r in records} == {"complete", "stopped"} and len(records) == 9
    stopped = [r for r in records if r.state == "stopped"]
    assert {r.epochs for r in stopped} <= {2, 4, 8} and {r.number for r in stopped} >= {5}
    assert all(r.train_energy_j == 1.0 for r in stopped)
    assert not list((tmp_path / "trials").rglob("progress.json"))
    assert not session.in_flight()
