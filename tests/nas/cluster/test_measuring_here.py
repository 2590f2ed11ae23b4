"""Trials of a local Ray measure in their own workers: no task, and the same retries."""

import pytest

from nas.cluster.measuring import RayMeasure
from nas.searching.controller.attempts import ATTEMPTS
from predictors.measurement.process import MeasureError, MeasureInterrupted
from predictors.measurement.protocol import get_protocol

PROTOCOL = get_protocol("quick")


class Measuring:
    """Fails with ``errors`` in turn, then returns its arguments; Ray is not there to be asked."""

    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def __call__(self, *subject, **setup):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return subject, setup


def here(function, tmp_path):
    return RayMeasure("cpu", "estimate", PROTOCOL, tmp_path, function, is_here=True)


def test_a_trial_measures_in_its_own_worker(tmp_path):
    function = Measuring(MeasureInterrupted("killed"))
    weights, inputs = tmp_path / "weights", tmp_path / "inputs"
    subject, setup = here(function, tmp_path)("architecture", "workload", weights, inputs)
    assert function.calls == 2 and subject == ("architecture", "workload")
    assert setup == {
        "device": "cpu",
        "meter": "estimate",
        "protocol": PROTOCOL,
        "lock_folder": tmp_path,
        "between_sd": 0.0,
        "runtime": "torch",
        "weights": weights,
        "inputs": inputs,
    }


@pytest.mark.parametrize(
    ("error", "calls"), [(MeasureInterrupted("killed"), ATTEMPTS), (MeasureError("no kernel"), 1)]
)
def test_only_interrupted_measurements_are_repeated(tmp_path, error, calls):
    function = Measuring(*[error] * 9)
    with pytest.raises(type(error), match=str(error)):
        here(function, tmp_path)("architecture", "workload", tmp_path, tmp_path)
    assert function.calls == calls
