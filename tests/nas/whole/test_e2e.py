"""True searches with Ray on the digits: small, but nothing in them is faked unless said.

Networks are run op by op, as where there is no C++ compiler; the README's examples compile theirs.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from record_fakes import FormulaMeasure

import nas
from nas.exporting.card import make_card, render_readme
from nas.exporting.verify import Verification
from nas.records.config import GateConfig, SearchConfig
from nas.store.lock import RunBusyError, sole_writer
from nas.training.config import TrainingConfig
from predictors.energy.artifact import Provenance, SavedPredictor, save_predictor
from predictors.energy.models import CostPredictor, Observation
from search_spaces.space import SearchSpace

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("all_measured_eagerly")]

SPACE = SearchSpace.from_dict(
    {
        "name": "small",
        "d_model": [16, 24, 32],
        "depth": [1, 2],
        "patch_size": [4],
        "n_heads": [1, 2],
        "n_kv_heads": [1, 2],
        "ffn_ratio": [1, 2],
        "attention_precision": ["fp32", "bf16"],
    }
)
CONFIG = SearchConfig(
    task="digits",
    space=SPACE,
    trials=5,
    batch_size=64,
    seed=1,
    meter="estimate",
    protocol="quick",
    training=TrainingConfig(epochs=4, batch_size=64, learning_rate=5e-3),
    gate=GateConfig(startup_trials=3),
)
ROOT = Path(__file__).parents[3]


def nas_command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "nas", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory, all_measured_eagerly):
    return nas.search(CONFIG, tmp_path_factory.mktemp("runs") / "small", workers=0)


def test_a_search_trains_measures_and_keeps_everything(run):
    trials = run.trials()
    complete = [t for t in trials if t.state == "complete"]
    assert len(complete) == 5, [t.reason for t in trials]
    for trial in complete:
        assert 0.1 < trial.quality <= 1 and trial.quality_se > 0
        assert trial.reading.is_estimate and trial.reading.n_repeats >= 6
        assert trial.prediction.mean > 0 and trial.train_energy_j > 0
        assert run.weights_path(trial.number).is_file()
    readings = {t.reading.protocol_hash for t in complete}
    assert len(readings) == 1
    front = run.front()
    assert 1 <= len(front) <= 5
    assert front.best(max_joules=1.0).quality == max(t.quality for t in complete)
    assert not list(run.folder.rglob("*.tmp"))


def test_the_front_on_the_command_line(run, tmp_path):
    table = nas_command("front", run.folder)
    assert table.returncode == 0 and "estimate" in table.stdout and "±" in table.stdout
    found = json.loads(nas_command("front", run.folder, "--json").stdout)
    assert found["schema"] == 1 and len(found["members"]) == len(run.front())
    csv = nas_command("front", run.folder, "--csv", "--recommended").stdout.splitlines()
    assert len(csv) == 2 and csv[0].startswith("trial,")
    drawn = nas_command("plot", run.folder, "--what", "front", "--to", tmp_path / "front.png")
    assert drawn.returncode == 0 and (tmp_path / "front.png").stat().st_size > 10_000


def test_an_exported_trial_runs_elsewhere(run, tmp_path):
    done = nas_command(
        "export",
        run.folder,
        "--recommended",
        "--to",
        tmp_path / "a",
        "--json",
        "--joule-tolerance",
        "3",
    )
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)["card"]
    assert card == json.loads((tmp_path / "a" / "card.json").read_text())
    assert card["verified"]["output_difference"] == 0
    assert card["verified"]["validation_quality"] == card["searched"]["validation_quality"]
    assert card["verified"]["reading"]["energy_j"] > 0
    assert {p.name for p in (tmp_path / "a").iterdir()} == {
        "model.safetensors",
        "architecture.json",
        "workload.json",
        "check.safetensors",
        "card.json",
        "README.md",
        "labels.json",
        "preprocessing.json",
    }
    again = nas_command("export", run.folder, "--recommended", "--to", tmp_path / "a")
    assert again.returncode == 2 and "new or empty" in again.stderr


@pytest.mark.parametrize("what", ["weights", "joules"])
def test_an_export_that_differs_fails_and_leaves_nothing(run, tmp_path, monkeypatch, what):

    from nas.exporting import verify
    from nas.exporting.artifact import ExportError
    from nas.exporting.export import export

    broken = replace(run, folder=tmp_path / "run")
    shutil.copytree(run.folder, broken.folder)
    trial = run.front().members[-1].trial
    if what == "weights":
        original = verify.reload_formats

        def corrupt(formats, folder, conditions):
            from safetensors.torch import load_file, save_file

            weights = load_file(folder / "model.safetensors")
            weights["head.bias"] += 1.0
            save_file(weights, folder / "model.safetensors")
            return original(formats, folder, conditions)

        monkeypatch.setattr(verify, "reload_formats", corrupt)
        # By the trial's own outputs, or before by those of the compressed file beside it.
        words = "outputs of (format|model)"
    else:
        words = "measured again"
    # Nothing measured twice agrees to one part in a million.
    with pytest.raises(ExportError, match=words):
        export(broken, trial, tmp_path / "out" / "a", joule_tolerance=1e-6)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_second_driver_is_refused(run):
    with sole_writer(run.folder):
        for go_on in (
            lambda: nas.resume(run.folder, trials=6),
            lambda: nas.search(replace(CONFIG, trials=6), run.folder, resume=True),
        ):
            with pytest.raises(RunBusyError, match=rf"another search \(process {os.getpid()} on"):
                go_on()
    assert nas.load(run.folder).config == CONFIG


def test_a_finished_run_is_not_overwritten_nor_resumed_as_another(run):
    with pytest.raises(ValueError, match="new or empty"):
        nas.search(CONFIG, run.folder)
    with pytest.raises(ValueError, match="seed"):
        nas.search(replace(CONFIG, seed=2), run.folder, resume=True)


# A search in a process of its own, to be killed. Where joules do not matter they are made up
# (``unmeasured``): compiling and measuring take ten times as long as such trainings do.
SCRIPT = """
import sys, time, nas
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_e2e import CONFIG
from dataclasses import replace
from nas.cluster import driver as ray_driver
from nas.searching import study
from nas.evaluation.evaluator import TrainingEvaluator
from nas.records.candidate import Outcome, Training
from nas.records.rungs import HalvingConfig
from nas.searching.early_stopping import Stopper
from nas.records.supernet import SupernetConfig
from nas.training.config import DistillConfig, RecoveryConfig, SupernetRecipe
from record_fakes import FormulaMeasure
folder, mode, *words = sys.argv[1:]
config = replace(CONFIG, trials=4)
if "taught" in words:
    config = replace(
        config,
        trials=2,
        teacher="largest",
        training=replace(
            CONFIG.training,
            distill=DistillConfig(feature_weight=0.1),
            recovery=RecoveryConfig(inherit_share=0.5),
        ),
    )
if "shared" in words:
    supernet = SupernetConfig(
        SupernetRecipe(epochs_factor=3.0), measure_first=1, measure_each=99, measure_width=1e9,
        finalists=2, controls=0,
    )
    config = replace(config, supernet=supernet)

class Watched(TrainingEvaluator):
    # Writes each epoch down that is trained; the first driver's trials from 2 on hang after one.
    def evaluate(self, candidate, folder, measure, tell=None):
        from nas.training.checkpoint import CheckpointManager
        after, log = CheckpointManager.save, folder / (mode + ".epochs")
        def noted(checkpoints, epoch, state):
            with log.open("a") as handle:
                handle.write(str(epoch) + " ")
            after(checkpoints, epoch, state)
            while mode == "new" and candidate.number >= 2 and epoch == 6:
                time.sleep(1)
        CheckpointManager.save = noted
        try:
            return super().evaluate(candidate, folder, measure, tell)
        finally:
            CheckpointManager.save = after

class StopsOne(Stopper):
    # Whatever the rule says, trial 1 is stopped and no other.
    def judge(self, number, progress):
        record = super().judge(number, progress)
        if number != 1:
            return None
        training = Training(progress.curve, progress.planned_epochs)
        return record or Outcome("stopped", "to be stopped", training=training)

if "unmeasured" in words:
    ray_driver.RayMeasure = FormulaMeasure
if "halved" in words:
    study.TrainingEvaluator, study.Stopper = Watched, StopsOne
    config = replace(
        config,
        training=replace(config.training, epochs=9),
        halving=HalvingConfig(eta=2, min_epochs=2),
    )

class Say:
    def on_change(self, snapshot, record):
        print(snapshot.complete, snapshot.running, flush=True)
    def on_refine(self, done, total):
        pass
    def on_wait(self, reason):
        pass

    def on_teacher(self, epoch, epochs):
        print(0, 0, flush=True)
    def on_supernet(self, epoch, epochs):
        print("supernet", epoch, flush=True)
if __name__ == "__main__":
    if mode == "resume":
        # What was searched for, and by how many workers, is in the folder.
        nas.resume(folder, listener=Say())
    else:
        nas.search(config, folder, workers=2, listener=Say())
"""


def start(folder, mode, tmp_path, *more):
    script = tmp_path / "search.py"
    here, tests = Path(__file__).parent, Path(__file__).parents[2]
    script.write_text(SCRIPT.format(tests=str(here)))
    path = [str(ROOT), str(tests), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), mode, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(reversed(path))},
        start_new_session=True,
    )


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


# What a driver leaves behind that was killed may still measure; Ctrl-C waits for nothing.
@pytest.mark.parametrize("how, words", [(signal.SIGKILL, []), (signal.SIGINT, ["unmeasured"])])
def test_a_search_that_is_ended_half_way_goes_on_with_resume(tmp_path, how, words):
    folder = tmp_path / "run"
    process = start(folder, "new", tmp_path, *words)
    wait_for_one(process)
    started = time.perf_counter()
    process.send_signal(how)
    process.stdout.read()
    code = process.wait(timeout=90)
    if how == signal.SIGINT:
        # Ctrl-C ends cleanly and soon, not after the rest of the search.
        assert code == 0 and time.perf_counter() - started < 45
    kept = {t.number: t for t in nas.load(folder).trials() if t.state == "complete"}
    assert 1 <= len(kept) < 4
    again = start(folder, "resume", tmp_path, *words)
    _, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    after = {t.number: t for t in nas.load(folder).trials()}
    assert [t.reason or t.state for t in after.values()] == ["complete"] * 4
    assert all(after[number] == trial for number, trial in kept.items())


def test_a_halving_search_that_is_killed_repeats_no_epoch_and_brings_nobody_back(tmp_path):
    folder = tmp_path / "run"
    process = start(folder, "new", tmp_path, "unmeasured", "halved")
    logs = [folder / "trials" / str(number) / "new.epochs" for number in (2, 3)]
    deadline = time.monotonic() + 120
    while not all(log.is_file() and "6" in log.read_text() for log in logs):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.05)
    # The whole group, as a cluster that takes a node away does.
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {t.number: t for t in nas.load(folder).trials()}
    assert [before[n].state for n in sorted(before)][:2] == ["complete", "stopped"]
    assert before[1].epochs == 2 and {before[2].state, before[3].state} == {"running"}
    again = start(folder, "resume", tmp_path, "unmeasured", "halved")
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    after = {t.number: t for t in nas.load(folder).trials()}
    assert sorted(after) == [0, 1, 2, 3]
    assert [after[n].state for n in (0, 2, 3)] == ["complete"] * 3, [after[2].reason]
    assert all(after[number] == before[number] for number in (0, 1))
    assert not (folder / "trials" / "1" / "resume.epochs").exists()
    for number in (2, 3):
        # Rungs are at 2, 4 and 8; the state of 4 was kept, that of 6 was not, or just so.
        trained = (folder / "trials" / str(number) / "resume.epochs").read_text().split()
        assert trained in (list("56789"), list("789"))
        assert [point.epoch for point in after[number].curve] == [2, 4, 8]
        left = {p.name for p in (folder / "trials" / str(number)).iterdir()}
        assert "loop.safetensors" not in left and "progress.json" not in left


def test_a_teacher_is_trained_once_and_found_again_by_a_resumed_search(tmp_path):
    folder = tmp_path / "run"
    process = start(folder, "new", tmp_path, "taught", "unmeasured")
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
    again = start(folder, "resume", tmp_path, "taught", "unmeasured")
    _, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors
    run = nas.load(folder)
    assert record.stat().st_mtime_ns == before and run.teacher() == teacher
    trials = run.trials()
    assert [t.reason or t.state for t in trials] == ["complete"] * 2
    assert run.config.teacher == "largest" and run.config.training.distill.feature_weight == 0.1
    spent = json.loads(nas_command("front", folder, "--json").stdout)["summary"]
    assert spent["teacher_energy_j"] == pytest.approx(teacher.energy_j) and teacher.energy_j > 0
    table = nas_command("front", folder).stdout
    assert "the teacher " in table.splitlines()[-1]
    figures = trials[0].reading
    card = make_card(run, trials[0], Verification(0, 0, 1, 1, 0, 1, 1, figures))
    assert card["teacher"]["source"] == "largest" and card["start"] == trials[0].start
    assert "It learnt from a teacher, d32 L2" in render_readme(card)


def test_a_search_by_a_supernet_is_killed_in_each_phase_and_goes_on(tmp_path):
    folder = tmp_path / "run"

    def killed_at(mode, is_time):
        process = start(folder, mode, tmp_path, "shared")
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
    again = start(folder, "resume", tmp_path, "shared")
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
    shown = json.loads(nas_command("front", folder, "--json").stdout)["summary"]
    assert shown["finished"] and shown["supernet_energy_j"] == pytest.approx(supernet.energy_j)
    refused = nas_command("export", folder, "--trial", inherited[0].number, "--to", tmp_path / "a")
    assert refused.returncode == 2 and "weights of its own" in refused.stderr


def test_a_worker_that_dies_or_raises_is_a_recorded_failure(tmp_path, monkeypatch):
    # Workers are new processes; the training module is swapped by a file on their path.
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('BREAK_TRIALS'):\n"
        "    import nas.evaluation.evaluator as e\n"
        "    original = e.TrainingEvaluator.evaluate\n"
        "    def evaluate(self, candidate, folder, measure, tell=None):\n"
        "        if candidate.number == 1: os.kill(os.getpid(), 9)\n"
        "        if candidate.number == 2: raise MemoryError\n"
        "        if candidate.number == 3: raise RuntimeError('first line\\nsecond')\n"
        "        return original(self, candidate, folder, measure, tell)\n"
        "    e.TrainingEvaluator.evaluate = evaluate\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
    monkeypatch.setenv("BREAK_TRIALS", "1")
    process = start(tmp_path / "run", "new", tmp_path, "unmeasured")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    trials = {t.number: t for t in nas.load(tmp_path / "run").trials()}
    assert trials[0].state == "complete"
    assert trials[1].state == "failed" and "worker died" in trials[1].reason
    assert trials[2].state == "failed" and trials[2].reason == "out of memory"
    assert trials[3].state == "failed" and trials[3].reason == "RuntimeError: first line"


def test_a_search_starts_warm_and_resumes_when_what_it_started_from_is_gone(
    run, tmp_path, monkeypatch
):
    # What it starts from was measured; what it finds itself need not be.
    monkeypatch.setattr("nas.searching.in_process.LocalMeasure", FormulaMeasure)
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    complete = [t for t in run.trials() if t.state == "complete"]
    rows = [Observation.of_energy(t.architecture, run.workload, t.reading) for t in complete]
    reading = complete[0].reading
    provenance = Provenance(
        reading.device,
        reading.source,
        reading.is_estimate,
        reading.protocol_hash,
        (run.workload.key,),
        "2026-11-24",
        {},
    )
    file = tmp_path / "p.safetensors"
    save_predictor(SavedPredictor(CostPredictor.fit(rows), provenance), file)
    config = replace(CONFIG, trials=1, warm_start=(str(copy),), predictor=str(file))
    warm = nas.search(config, tmp_path / "warm", workers=0)
    (first,) = warm.trials()
    cheapest = run.front().members[0]
    assert first.architecture.to_dict() == cheapest.architecture
    # Predicted from its own earlier measurement, by a machine that is busy with other things.
    assert 0.2 < first.prediction.mean / cheapest.energy_j < 5
    assert len(warm.front()) == 1
    shutil.rmtree(copy)
    file.unlink()
    again = nas.resume(warm.folder, trials=2)
    assert [t.state for t in again.trials() if t.state != "dropped"] == ["complete"] * 2


def test_a_finished_search_is_refined_when_it_is_resumed(run, tmp_path):
    copy = shutil.copytree(run.folder, tmp_path / "copy")
    refined = nas.resume(copy, refine=2)
    replicas = [p for p in copy.glob("trials/*/replica-*/result.json")]
    assert 1 <= len(replicas) <= 2
    before = {t.number: t for t in run.trials()}
    again = [t for t in refined.trials() if t.n_evaluations > 1]
    assert sum(t.n_evaluations - 1 for t in again) == len(replicas)
    for trial in again:
        first = before[trial.number]
        assert trial.train_energy_j > first.train_energy_j
        assert trial.reading.n_repeats > first.reading.n_repeats
        # The weights that an export takes are still those of the trial itself.
        assert refined.trial(trial.number).quality == first.quality
    replica = json.loads(replicas[0].read_text())
    assert replica["quality"] != before[replica["number"]].quality, "another seed"
    assert "refined: " in nas_command("resume", copy).stdout


def test_a_missing_cluster_is_one_line(tmp_path):
    done = nas_command(
        "search",
        "quickstart",
        "--trials",
        1,
        "--address",
        "127.0.0.1:1",
        "--run",
        tmp_path / "r",
        "--device",
        "cpu",
    )
    assert done.returncode == 2 and "address must be that of a running Ray cluster" in done.stderr
    assert "Traceback" not in done.stderr
