"""The progress lines of a search: the estimate of its end counts only its own trials."""

import re

import pytest
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


@pytest.mark.parametrize("quiet", [False, True])
def test_what_runs_beside_begins_once_with_the_first_trial(tmp_path, capsys, quiet):
    began = []

    def beside():
        began.append(len(session.in_flight()))
        return ["about 5 s a trial"]

    with SearchProgress(quiet=quiet, beside=beside) as progress:
        session = make_session(tmp_path, trials=4, listener=progress)
        assert not began
        session.next_candidate()
        session.next_candidate()
    assert len(began) == 1
    assert ("note: about 5 s a trial" in capsys.readouterr().err) is not quiet


def test_joules_so_far_are_shown_while_trials_are_evaluated_again(tmp_path, capsys):
    progress = SearchProgress()
    session = make_session(tmp_path, trials=1, listener=progress)
    session.finish(finished(session.next_candidate()))
    (spent,) = re.findall(r"spent [\d,]+ J", capsys.readouterr().err)
    progress.on_refine(1, 4)
    assert re.search(rf"refined 1/4: .* \| {spent}$", capsys.readouterr().err, re.M)
