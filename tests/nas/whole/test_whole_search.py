"""A true search of the digits in this process, and what is then done with its run."""

import json
import os
import shutil
from dataclasses import replace

import pytest
from record_fakes import FormulaMeasure
from small_search import CONFIG

import nas
from nas.cli.main import main
from nas.records.trial import Trial
from nas.store.lock import RunBusyError, sole_writer
from predictors.energy.artifact import Provenance, SavedPredictor, save_predictor
from predictors.energy.models import CostPredictor, Observation

pytestmark = pytest.mark.usefixtures("counted_joules")


@pytest.fixture
def nas_command(capsys):
    """Run a verb of ``nas``; return its exit code, output and errors."""

    def command(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return command


@pytest.fixture(scope="module")
def run(tmp_path_factory, counted_joules):
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


def test_the_front_on_the_command_line(run, tmp_path, nas_command):
    code, table, _ = nas_command("front", run.folder)
    assert code == 0 and "estimate" in table and "±" in table
    found = json.loads(nas_command("front", run.folder, "--json")[1])
    assert found["schema"] == 1 and len(found["members"]) == len(run.front())
    csv = nas_command("front", run.folder, "--csv", "--recommended")[1].splitlines()
    assert len(csv) == 2 and csv[0].startswith("trial,")
    code, *_ = nas_command("plot", run.folder, "--what", "front", "--to", tmp_path / "front.png")
    assert code == 0 and (tmp_path / "front.png").stat().st_size > 10_000


def test_an_exported_trial_runs_elsewhere(run, tmp_path, nas_command):
    words = ["export", run.folder, "--recommended", "--to", tmp_path / "a"]
    code, out, errors = nas_command(*words, "--json")
    assert code == 0, errors
    card = json.loads(out)["card"]
    assert card == json.loads((tmp_path / "a" / "card.json").read_text())
    assert card["verified"]["output_difference"] == 0
    assert card["verified"]["validation_quality"] == card["searched"]["validation_quality"]
    # Within the tolerance that is promised, as nothing else is given.
    assert card["verified"]["joule_ratio"] == pytest.approx(1.0, abs=1e-6)
    assert card["verified"]["is_inside_interval"]
    assert "inside the 95% interval of the search" in (tmp_path / "a" / "README.md").read_text()
    names = {p.name for p in (tmp_path / "a").iterdir()}
    is_compressed = "bf16" in card["architecture"]
    assert ("compressed.safetensors" in names) == is_compressed, card["architecture"]
    assert names - {"compressed.safetensors"} == {
        "model.safetensors",
        "architecture.json",
        "workload.json",
        "check.safetensors",
        "card.json",
        "README.md",
        "labels.json",
        "preprocessing.json",
    }
    code, _, errors = nas_command(*words)
    assert code == 2 and "new or empty" in errors


def times(factor):
    """``measure_fresh`` of a device that takes so much more than it did."""
    from predictors.measurement.runner import measure_fresh

    def measure(*arguments, **options):
        record = measure_fresh(*arguments, **options)
        reading = record.reading
        fields = ("low_j", "energy_j", "high_j")
        dearer = {name: factor * getattr(reading, name) for name in fields}
        return replace(record, reading=replace(reading, **dearer))

    return measure


@pytest.mark.parametrize("what", ["weights", "joules"])
def test_an_export_that_differs_fails_and_leaves_nothing(run, tmp_path, monkeypatch, what):

    from nas.exporting import verify
    from nas.exporting.export import export
    from nas.exporting.formats.base import ExportError

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
        words = "outputs of (format|compressed.safetensors)"
    else:
        words = "measured again, .* allowed within 30%"
        monkeypatch.setattr("predictors.measurement.runner.measure_fresh", times(1.31))
    with pytest.raises(ExportError, match=words):
        export(broken, trial, tmp_path / "out" / "a")
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
    # Predicted from its own earlier measurement.
    assert 0.2 < first.prediction.mean / cheapest.energy_j < 5
    assert len(warm.front()) == 1
    shutil.rmtree(copy)
    file.unlink()
    again = nas.resume(warm.folder, trials=2)
    assert [t.state for t in again.trials() if t.state != "dropped"] == ["complete"] * 2


def test_a_finished_search_is_refined_when_it_is_resumed(run, tmp_path, nas_command):
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
    replica = Trial.from_dict(json.loads(replicas[0].read_text()))
    assert replica.quality != before[replica.number].quality, "another seed"
    assert "refined: " in nas_command("resume", copy)[1]
