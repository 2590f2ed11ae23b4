"""What becomes of a trial whose time ends just as it does."""

import json
import time
from dataclasses import replace

import pytest
from search_fakes import SPACE, finished

from nas.cluster import trial_worker as ray_trial
from nas.core.files import write_json
from nas.records.candidate import Candidate
from nas.records.replicas import RESULT, result_in
from search_spaces.space.sampling import smallest

CANDIDATE = Candidate(0, smallest(SPACE))
LIMIT_S = 0.05


@pytest.fixture
def exits(monkeypatch):
    """Codes that the process would have ended with."""
    codes = []
    monkeypatch.setattr(ray_trial.os, "_exit", codes.append)
    return codes


def test_what_takes_longer_ends_and_is_recorded(tmp_path, exits):
    with ray_trial._time_limit(CANDIDATE, tmp_path, LIMIT_S):
        time.sleep(4 * LIMIT_S)
    assert exits == [1]
    assert result_in(tmp_path).reason == "it took longer than 0.05 s"


def test_a_result_that_is_written_as_time_ends_stays(tmp_path, exits):
    done = finished(CANDIDATE)
    with ray_trial._time_limit(CANDIDATE, tmp_path, LIMIT_S) as may_end:
        with may_end:
            time.sleep(2 * LIMIT_S)
            write_json(tmp_path / RESULT, done.to_dict())
        # The timer's thread was waiting for the lock, and has it now.
        time.sleep(2 * LIMIT_S)
    assert exits == []
    assert json.loads((tmp_path / RESULT).read_text())["outcome"]["state"] == "complete"


def test_a_result_of_another_trial_is_none(tmp_path, exits):
    other = finished(replace(CANDIDATE, number=7))
    write_json(tmp_path / RESULT, other.to_dict())
    with ray_trial._time_limit(CANDIDATE, tmp_path, LIMIT_S):
        time.sleep(4 * LIMIT_S)
    assert exits == [1] and result_in(tmp_path).number == 0
