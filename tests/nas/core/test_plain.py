"""Frozen records as plain data: numbers of numpy, and the fields that a trial reads by path."""

import json

import numpy as np
import pytest
from search_fakes import SPACE, reading

from nas.core.estimate import Estimate, Score
from nas.core.plain import from_plain, to_plain
from nas.records.candidate import Candidate, Measurement, Outcome, Training
from nas.records.rungs import RungPoint
from nas.records.spent import Spent
from nas.records.trial import Trial
from search_spaces.space.sampling import smallest

CANDIDATE = Candidate(
    3,
    smallest(SPACE),
    Estimate(2.0, 1.0, 3.0, "predicted"),
    finalist_of=1,
    inherited_quality=Score(0.7, 0.01),
)
TRAINING = Training(
    (RungPoint(1, 0.5, 0.1), RungPoint(3, 0.6, 0.1)), 9, "teacher", "kept", ({"torch": "2.11"},)
)
COMPLETE = Outcome(
    "complete",
    reason="none",
    quality=Score(0.9, 0.01),
    test_quality=Score(0.8, 0.02),
    uncompressed_quality=0.95,
    params=7,
    peak_memory_bytes=8.0,
    training=TRAINING,
    measurement=Measurement(
        reading(2.0), {"other": reading(3.0)}, {"third": "no meter"}, {"torch": "2.11"}
    ),
    spent=Spent(1.0, 2.0, 3.0),
)
TRIALS = {
    "complete": Trial(CANDIDATE, COMPLETE),
    "stopped": Trial(CANDIDATE, Outcome("stopped", "dominated", training=TRAINING)),
    "failed": Trial(CANDIDATE, Outcome.failed("no memory")),
    "running": Trial(CANDIDATE, so_far=Spent(4.0)),
}
PATHS = {name: one.path for name in dir(Trial) if hasattr(one := getattr(Trial, name), "path")}


def value_at(trial, path):
    """The value at ``path``, ``None`` where something before it is ``None``."""
    value = trial
    for name in path.split("."):
        value = None if value is None else getattr(value, name)
    return value


@pytest.mark.parametrize("name", PATHS)
def test_a_path_of_a_trial_leads_to_its_value(name):
    # In this trial nothing is ``None``, so that each name on each path is looked up.
    value = value_at(TRIALS["complete"], PATHS[name])
    assert value is not None
    assert getattr(TRIALS["complete"], name) == value


@pytest.mark.parametrize("state", TRIALS)
def test_every_trial_has_every_value_or_its_default(state):
    trial = TRIALS[state]
    defaults = {"state": "running", "n_evaluations": 1, "curve": (), "start": "random"}
    defaults |= {"qat": "not needed", "trained_by": (), "readings": {}, "unmeasured": {}}
    defaults |= {"measured_by": {}, "left_out_runtimes": {}}
    for name, path in PATHS.items():
        value = value_at(trial, path)
        assert getattr(trial, name) == (defaults.get(name) if value is None else value), name
    assert trial.state == state
    assert Trial.from_dict(json.loads(json.dumps(trial.to_dict()))) == trial


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_numbers_of_numpy_are_plain(kind):
    score = Score(kind(0.5), kind(0.25))
    assert [type(value) for value in to_plain(score).values()] == [float, float]
    assert from_plain(Score, json.loads(json.dumps(to_plain(score))), "score") == score
    point = RungPoint(int(np.int64(3)), kind(0.5), kind(0.25))
    assert from_plain(RungPoint, to_plain(point), "point") == point
