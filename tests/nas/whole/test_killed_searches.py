"""Searches that are killed or interrupted, or whose workers die, and are resumed.

Those that Ray runs, and those of one process, which differ in nothing else; networks are run op by
op, as where there is no C++ compiler.
"""

import json
import os
import signal
import time

import pytest
from small_search import SPACE, start

import nas
from nas.cli.main import main
from nas.exporting.card import make_card
from nas.exporting.readme import render_readme
from nas.exporting.verify import Verification

pytestmark = pytest.mark.usefixtures("counted_joules")
ON_RAY = pytest.param(2, marks=[pytest.mark.e2e, pytest.mark.thorough], id="on Ray")
EACH_EXECUTOR = pytest.mark.parametrize("workers", [pytest.param(0, id="in process"), ON_RAY])


@pytest.fixture
def shown(capsys):
    """What a verb of ``nas`` prints."""

    def show(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    return show


def wait_for_one(process):
    for line in process.stdout:
        complete, running = map(int, line.split())
        if complete >= 1 and running >= 1:
            return
    raise AssertionError(process.stderr.read())


def test_a_cluster_that_dies_under_a_trial_leaves_it_unfinished(tmp_path):
    import ray

    from nas.cluster.trial_worker import run_trial
    from nas.core.plain import to_plain
    from nas.records.candidate import Candidate
    from search_spaces.space.sampling import smallest

    candidate = Candidate(0, smallest(SPACE))
    config = {"candidate": json.dumps(to_plain(candidate))}

    class Dying:
        def evaluate(self, candidate, folder, measure, tell=None):
            raise ray.exceptions.NodeDiedError("the driver was killed")

    with pytest.raises(ray.exceptions.NodeDiedError):
        run_trial(config, Dying(), None, tmp_path)
    assert not (tmp_path / "0" / "result.json").exists()
    # Ray starts by itself at some calls, and this Ray would have no token.
    assert not ray.is_initialized()


def complete_in(folder):
    return {t.number: t for t in nas.load(folder).trials() if t.state == "complete"}


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_a_search_that_is_ended_half_way_goes_on_with_resume(tmp_path):
    """By Ctrl-C, then by a kill; ``test_files_at.py`` kills a driver whose workers measure."""
    folder = tmp_path / "run"
    process = start(folder, "new", 2, "unmeasured")
    wait_for_one(process)
    started = time.perf_counter()
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    # Ctrl-C waits for nothing: it ends cleanly and soon, not after the rest of the search.
    assert process.wait(timeout=90) == 0 and time.perf_counter() - started < 45
    first = complete_in(folder)
    assert 1 <= len(first) < 4
    process = start(folder, "resume", 2, "unmeasured")
    # The first line is of the study as it was; a later one is of a trial that Ray is given.
    process.stdout.readline()
    wait_for_one(process)
    process.kill()
    process.communicate()
    second = complete_in(folder)
    assert first.keys() <= second.keys() and len(second) < 4
    again = start(folder, "resume", 2, "unmeasured")
    _, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    after = {t.number: t for t in nas.load(folder).trials()}
    assert [t.reason or t.state for t in after.values()] == ["complete"] * 4
    assert all(after[number] == trial for number, trial in (first | second).items())


@EACH_EXECUTOR
def test_a_halving_search_that_is_killed_repeats_no_epoch_and_brings_nobody_back(
    tmp_path, workers
):
    folder = tmp_path / "run"
    process = start(folder, "new", workers, "unmeasured", "halved")
    # As many hang as run at once.
    hanging = (2, 3) if workers else (2,)
    logs = [folder / "trials" / str(number) / "new.epochs" for number in hanging]
    deadline = time.monotonic() + 120
    while not all(log.is_file() and "6" in log.read_text() for log in logs):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.05)
    # The whole group, as a cluster that takes a node away does.
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {t.number: t for t in nas.load(folder).trials()}
    assert [before[n].state for n in sorted(before)][:2] == ["complete", "stopped"]
    assert before[1].epochs == 2 and {before[n].state for n in hanging} == {"running"}
    again = start(folder, "resume", workers, "unmeasured", "halved")
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    after = {t.number: t for t in nas.load(folder).trials()}
    assert sorted(after) == [0, 1, 2, 3]
    assert [after[n].state for n in (0, 2, 3)] == ["complete"] * 3, [after[2].reason]
    assert all(after[number] == before[number] for number in (0, 1))
    assert not (folder / "trials" / "1" / "resume.epochs").exists()
    for number in hanging:
        # Rungs are at 2, 4 and 8; the state of 4 was kept, that of 6 was not, or just so.
        trained = (folder / "trials" / str(number) / "resume.epochs").read_text().split()
        assert trained in (list("56789"), list("789"))
        assert [point.epoch for point in after[number].curve] == [2, 4, 8]
        left = {p.name for p in (folder / "trials" / str(number)).iterdir()}
        assert "loop.safetensors" not in left and "progress.json" not in left


@EACH_EXECUTOR
def test_a_teacher_is_trained_once_and_found_again_by_a_resumed_search(tmp_path, workers, shown):
    folder = tmp_path / "run"
    process = start(folder, "new", workers, "taught", "unmeasured")
    record = folder / "teacher" / "teacher.json"
    deadline = time.monotonic() + 120
    while not (record.is_file() and json.loads(record.read_text())["outputs_energy_j"]):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.05)
    process.kill()
    process.communicate()
    kept = nas.load(folder)
    before, teacher = record.stat().st_mtime_ns, kept.teacher()
    assert sum(t.state == "complete" for t in kept.trials()) < 2
    again = start(folder, "resume", workers, "taught", "unmeasured")
    _, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    run = nas.load(folder)
    assert record.stat().st_mtime_ns == before and run.teacher() == teacher
    trials = run.trials()
    assert [t.reason or t.state for t in trials] == ["complete"] * 2
    assert run.config.teacher == "largest" and run.config.training.distill.feature_weight == 0.1
    spent = json.loads(shown("front", folder, "--json"))["summary"]
    assert spent["teacher_energy_j"] == pytest.approx(teacher.energy_j) and teacher.energy_j > 0
    table = shown("front", folder)
    assert "the teacher " in table.splitlines()[-1]
    figures = trials[0].reading
    card = make_card(run, trials[0], Verification(0, 0, 1, 1, 0, 1, 1, figures))
    assert card["teacher"]["source"] == "largest" and card["start"] == trials[0].start
    assert "It was distilled from a teacher, d32 L2" in render_readme(card)


@EACH_EXECUTOR
def test_a_search_by_a_supernet_is_killed_in_each_phase_and_goes_on(
    tmp_path, workers, shown, capsys
):
    folder = tmp_path / "run"

    def killed_at(mode, is_time):
        process = start(folder, mode, workers, "shared")
        for line in process.stdout:
            if is_time(line.split()):
                break
        else:
            raise AssertionError(process.stderr.read())
        process.kill()
        process.communicate()

    killed_at("new", lambda said: said[0] == "supernet" and int(said[1]) >= 1)
    run = nas.load(folder)
    assert run.trials() == [] and run.finalists() is None
    killed_at(
        "resume", lambda said: said[0] != "supernet" and int(said[0]) >= 4 and said[1] != "0"
    )
    before = {t.number: t for t in run.trials() if t.state == "complete"}
    supernet, chosen = run.supernet(), run.finalists()
    assert supernet.epochs == 12 and supernet.energy_j > 0 and len(chosen) == 2
    again = start(folder, "resume", workers, "shared")
    _, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    trials = {t.number: t for t in run.trials()}
    assert all(trials[number] == trial for number, trial in before.items())
    assert run.supernet() == supernet and run.finalists() == chosen
    inherited = [t for t in trials.values() if t.finalist_of is None and t.state != "dropped"]
    assert [t.reason or t.weights for t in inherited] == ["inherited"] * 4
    assert [t.joules for t in inherited] == ["measured"] + ["predicted"] * 3
    finalists = [t for t in trials.values() if t.finalist_of is not None]
    assert sorted(t.finalist_of for t in finalists) == sorted(chosen)
    for trial in finalists:
        assert trial.state == "complete", trial.reason
        assert trial.inherited_quality == trials[trial.finalist_of].quality
        assert trial.reading.n_repeats >= 6 and run.weights_path(trial.number).is_file()
    assert {m.finalist_of for m in run.front()} <= set(chosen)
    summary = json.loads(shown("front", folder, "--json"))["summary"]
    assert summary["finished"]
    assert summary["supernet_energy_j"] == pytest.approx(supernet.energy_j)
    words = ["export", folder, "--trial", inherited[0].number, "--to", tmp_path / "a"]
    assert main([str(word) for word in words]) == 2
    assert "weights of its own" in capsys.readouterr().err


# On the path of Ray's workers, which are new processes, it breaks their trainings.
BROKEN = """
import os
if os.environ.get('BREAK_TRIALS'):
    import nas.evaluation.evaluator as e
    original = e.TrainingEvaluator.evaluate
    def evaluate(self, candidate, folder, measure, tell=None):
        if candidate.number == 1: os.kill(os.getpid(), 9)
        if candidate.number == 2: raise MemoryError
        if candidate.number == 3: raise RuntimeError('first line\\nsecond')
        return original(self, candidate, folder, measure, tell)
    e.TrainingEvaluator.evaluate = evaluate
"""


@pytest.mark.e2e
@pytest.mark.thorough
def test_a_worker_that_dies_or_raises_is_a_recorded_failure(tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(BROKEN)
    path = os.environ["PYTHONPATH"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), path]))
    monkeypatch.setenv("BREAK_TRIALS", "1")
    process = start(tmp_path / "run", "new", 2, "unmeasured")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    trials = {t.number: t for t in nas.load(tmp_path / "run").trials()}
    assert trials[0].state == "complete"
    assert trials[1].state == "failed" and "worker died" in trials[1].reason
    assert trials[2].state == "failed" and trials[2].reason == "out of memory"
    assert trials[3].state == "failed" and trials[3].reason == "RuntimeError: first line"


def test_a_missing_cluster_is_one_line(tmp_path, capsys):
    words = ["search", "quickstart", "--trials", "1", "--address", "127.0.0.1:1"]
    assert main([*words, "--run", str(tmp_path / "r"), "--device", "cpu"]) == 2
    errors = capsys.readouterr().err
    assert "address must be that of a running Ray cluster" in errors
    assert "Traceback" not in errors
