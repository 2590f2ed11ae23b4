"""What interrupted, killed and failed trainings have spent is in the account of a search."""

import json
import subprocess
import sys
import time

import pytest
from run_fakes import make_run
from search_fakes import SPACE, drive, finished, make_session

from nas.analysis.summary import summarise
from nas.cli.main import main
from nas.records.config import SearchConfig
from nas.records.replicas import replica_folder
from nas.records.spent import SPENT, Spending, spent_in
from nas.store import new_run, run_file


def busy(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sum(range(1000))


def test_attempts_add_up_whatever_ends_them(tmp_path):
    assert spent_in(tmp_path) is None
    with pytest.raises(KeyboardInterrupt), Spending(tmp_path, "cpu"):
        busy(0.2)
        raise KeyboardInterrupt
    first = spent_in(tmp_path)
    assert first.duration_s >= 0.2 and first.train_energy_j > 0
    with Spending(tmp_path, "cpu") as again:
        assert again.earlier == first
        busy(0.2)
    both = spent_in(tmp_path)
    assert both.duration_s >= first.duration_s + 0.2
    assert both.train_energy_j > first.train_energy_j


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"duration_s": "x"}', "\0"])
def test_a_broken_entry_is_none(tmp_path, text):
    (tmp_path / SPENT).write_text(text)
    assert spent_in(tmp_path) is None


CHILD = """
import sys, time
from pathlib import Path
from nas.records import spent
spent.EACH_S = 0.1
with spent.Spending(Path(sys.argv[1]), "cpu"):
    while True:
        sum(range(1000))
"""


def test_what_a_killed_process_spent_is_known_but_for_its_last_seconds(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)])
    try:
        until = time.monotonic() + 60
        while (found := spent_in(tmp_path)) is None or found.duration_s < 0.3:
            assert time.monotonic() < until and child.poll() is None
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
    assert spent_in(tmp_path).train_energy_j > 0


@pytest.fixture
def interrupted(tmp_path):
    """A run of six trials that was ended while two of them trained."""
    folder = tmp_path / "run"
    config = SearchConfig(task="digits", space=SPACE, trials=6, sampler="random")
    new_run.create(folder, config, "fake")
    session = make_session(folder, trials=6, sampler="random")
    for _ in range(2):
        session.finish(finished(session.next_candidate()))
    running = [session.next_candidate() for _ in range(2)]
    return run_file.load(folder), [folder / "trials" / str(r.number) for r in running]


def spend(folder, energy_j):
    folder.mkdir(parents=True, exist_ok=True)
    entry = {"duration_s": 3.0, "train_energy_j": energy_j}
    (folder / SPENT).write_text(json.dumps(entry))


def test_interrupted_trainings_are_in_the_account(interrupted, capsys):
    run, (first, second) = interrupted
    before = summarise(run)
    assert before.in_flight == 2
    spend(first, 70.0)
    spend(second, 30.0)
    after = summarise(run)
    assert after.train_energy_j == pytest.approx(before.train_energy_j + 100)
    assert after.spent_energy_j == pytest.approx(before.spent_energy_j + 100)
    assert main(["front", str(run.folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["summary"]
    assert shown["train_energy_j"] == pytest.approx(after.train_energy_j)
    # Joules that nobody could read are no joules, and no error.
    spend(second, None)
    assert summarise(run).train_energy_j == pytest.approx(before.train_energy_j + 70)


def test_an_ended_trial_is_counted_once(tmp_path):
    run = make_run(tmp_path / "run", trials=3)
    before = summarise(run)
    for record in run.trials():
        spend(run.trial_folder(record.number), 500.0)
    assert summarise(run) == before


def test_evaluations_again_that_were_interrupted_are_in_the_account(tmp_path):
    run = make_run(tmp_path / "run", trials=3, refine=2)
    before = summarise(run)
    record = run.trials()[1]
    spend(replica_folder(run.trial_folder(record.number), 1), 25.0)
    after = summarise(run)
    assert after.train_energy_j == pytest.approx(before.train_energy_j + 25)
    assert run.trials()[1].objectives == record.objectives and after.refined == 0


def test_a_teacher_that_was_interrupted_is_in_the_account(tmp_path):
    from nas.records.config import LARGEST
    from nas.training.config import DistillConfig, TrainingConfig

    folder = tmp_path / "run"
    training = TrainingConfig(distill=DistillConfig())
    changes = {"trials": 2, "teacher": LARGEST, "training": training, "sampler": "random"}
    new_run.create(folder, SearchConfig(task="digits", space=SPACE, **changes), "fake")
    drive(make_session(folder, **changes), finished)
    run = run_file.load(folder)
    assert summarise(run).teacher_energy_j is None
    spend(folder / "teacher", 40.0)
    assert summarise(run).teacher_energy_j == 40.0
