"""The progress lines of a search: the estimate of its end counts only its own trials."""

import re

from search_fakes import failed, finished, make_session

from nas.cli.output import progress as module
from nas.cli.output.progress import SearchProgress


def test_trials_that_ended_before_the_resume_are_not_its_speed(tmp_path, monkeypatch, capsys):
    session = make_session(tmp_path, trials=8)
    left = [session.next_candidate() for _ in range(3)]
    clock = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    resumed = make_session(tmp_path, create=False, trials=8, listener=SearchProgress())
    # The worker of the first had ended while no driver ran: its result is only read.
    resumed.finish(finished(left[0]))
    assert "ETA" not in capsys.readouterr().err
    # The second is evaluated again, by this driver.
    resumed.dispatch_again(left[1])
    again = resumed.next_candidate()
    assert again.number == left[1].number
    clock[0] = 10.0
    resumed.finish(finished(again))
    (eta_s,) = re.findall(r"ETA (\d+) s", capsys.readouterr().err)
    assert int(eta_s) == 60


def test_a_failed_trial_has_its_reason(tmp_path, capsys):
    session = make_session(tmp_path, trials=4, listener=SearchProgress())
    trial = session.next_candidate()
    session.finish(failed(trial, "a full disk"))
    assert f"trial {trial.number} failed (a full disk): done 1/4" in capsys.readouterr().err
