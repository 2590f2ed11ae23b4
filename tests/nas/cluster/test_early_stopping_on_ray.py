"""Early stopping on Ray Tune: the driver stops trials at rungs."""

from dataclasses import replace

import pytest
from executor_fakes import run_trials
from search_fakes import make_session, reading

from nas.core.estimate import Score
from nas.records.candidate import Measurement, Outcome, Training
from nas.records.rungs import HalvingConfig, Progress, RungPoint
from nas.records.spent import Spent
from nas.searching.early_stopping import Stopper
from search_spaces.cost.counting import count

CONFIG = HalvingConfig(eta=2, min_epochs=2, startup_trials=0)


class Evaluator:
    """Three rungs, each in no time, and a quality and joules that grow with parameters."""

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
def test_the_driver_stops_trials_early(tmp_path):
    import sys

    import ray
    from ray import cloudpickle
    from search_fakes import WORKLOAD

    from nas.cluster.connect import cluster

    # Workers cannot import the tests.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    with cluster(None, 2, "cpu"):
        session = make_session(tmp_path, sampler="random", trials=9)
        run_trials(
            session,
            Evaluator(WORKLOAD, reading(1.0)),
            tmp_path / "trials",
            stopper=Stopper(replace(CONFIG, startup_trials=2), session, session._gate),
        )
    assert not ray.is_initialized()
    records = session.records()
    assert not [r.reason for r in records if r.state == "failed"]
    assert {r.state for r in records} == {"complete", "stopped"} and len(records) == 9
    stopped = [r for r in records if r.state == "stopped"]
    assert {r.epochs for r in stopped} <= {2, 4, 8} and {r.number for r in stopped} >= {5}
    assert all(r.train_energy_j == 1.0 for r in stopped)
    assert not list((tmp_path / "trials").rglob("progress.json"))
    assert not session.in_flight()
