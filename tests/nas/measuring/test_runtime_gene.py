"""A search with several runtimes: one training, a measurement in each that is not ruled out."""

import json
from dataclasses import replace
from itertools import groupby

import pytest
from record_fakes import DIGITS, made_record
from runtime_fakes import TWO, block, config, in_runtime, trial_in
from search_fakes import SPACE, finished, make_trial, reading, truth

import nas
from nas.charts.front import front_chart
from nas.cli.main import main
from nas.core.units import format_joules
from nas.evaluation.in_runtimes import MEASURED, Subject, measure_in_runtimes
from nas.searching import in_process, study


class Trained:
    """Trains nothing, and measures as the evaluator does; ``trained`` are the candidates."""

    trained: list[int] = []  # noqa: RUF012

    def __init__(self, *_):
        pass

    def evaluate(self, candidate, folder, measure, tell=None):
        type(self).trained.append(candidate.number)
        outcome = finished(candidate).outcome
        inputs = folder.parent.parent / "inputs.npy"
        subject = Subject(DIGITS, None, inputs)
        found = measure_in_runtimes(candidate, outcome.quality, subject, measure, folder)
        return replace(outcome, measurement=found.measurement)


def searched(monkeypatch, folder, fail_at=None, **changes):
    """Search with joules by formula: ONNX Runtime takes 0.8 of torch's, of small networks 1.2."""
    asked = []

    def made(architecture, workload, *, runtime, **_):
        if len(asked) == fail_at:
            raise KeyboardInterrupt
        asked.append((architecture.hash, runtime))
        energy_j = truth(architecture)[1]
        factor = {"torch": 1.0, "onnxruntime": 0.8 if architecture.depth > 1 else 1.2}[runtime]
        return in_runtime(made_record(architecture, workload, energy_j * factor), runtime)

    Trained.trained = []
    monkeypatch.setattr(in_process, "measure_candidate", made)
    monkeypatch.setattr(study, "TrainingEvaluator", Trained)
    run = nas.search(
        config(runtime=TWO, **changes), folder, workers=0, resume=(folder / "run.json").exists()
    )
    return run, asked


def test_a_search_trains_once_and_its_front_says_the_runtime(tmp_path, monkeypatch, capsys):
    run, asked = searched(monkeypatch, tmp_path / "run", trials=8)
    trials = run.trials()
    assert sorted(Trained.trained) == [trial.number for trial in trials] and len(trials) == 8
    assert len(asked) == len(set(asked)) == 16
    for trial in trials:
        cheapest = "onnxruntime" if trial.architecture.depth > 1 else "torch"
        assert trial.runtime == trial.reading.runtime == cheapest
        assert set(trial.in_runtimes) == set(TWO)
    front = run.front()
    assert {member.runtime for member in front} <= set(TWO)
    # The chart names the runtime where it changes along the front.
    names = [text.text for text in front_chart(run, "estimate").texts]
    assert names == [name for name, _ in groupby(m.runtime for m in front)]
    member = front.members[0]
    assert member.energy_j == min(trial.energy_j for trial in trials)
    (other,) = member.other_runtimes_j.items()
    assert other[0] != member.runtime and other[1] > member.energy_j
    assert main(["front", str(run.folder)]) == 0
    shown = capsys.readouterr().out
    assert "runtime" in shown.splitlines()[0] and "onnxruntime" in shown
    assert "runtime: the cheapest of those that a network was measured in" in shown
    assert main(["front", str(run.folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["members"]
    assert [row["runtime"] for row in rows] == [m.runtime for m in front]
    assert main(["front", str(run.folder), "--csv"]) == 0
    assert f"{other[0]}={other[1]}" in capsys.readouterr().out
    assert main(["explain", str(run.folder), str(member.trial)]) == 0
    shown = capsys.readouterr().out
    assert f"runtime    {member.runtime}, the cheapest measured" in shown
    assert f"{other[0]}: " in shown


def test_an_interrupted_search_measures_only_what_is_missing(tmp_path, monkeypatch):
    run, before = searched(monkeypatch, tmp_path / "run", fail_at=5)
    # The third trial has one reading of two.
    assert len(before) == 5 and not run.trials()[2].in_runtimes
    run, after = searched(monkeypatch, tmp_path / "run")
    assert len({*before, *after}) == len(before) + len(after) == 8
    assert all(set(trial.in_runtimes) == set(TWO) for trial in run.trials())
    assert not list(run.folder.glob(f"trials/*/{MEASURED}"))


def test_a_candidate_that_no_runtime_runs_costs_no_training(tmp_path, monkeypatch):
    choices = {name: ("fp32", "dense") for name in TWO}
    run, _ = searched(
        monkeypatch, tmp_path / "run", trials=4, space=SPACE, runtime_choices=choices
    )
    dropped = [trial for trial in run.trials() if trial.state == "dropped"]
    assert dropped and all("no runtime of the search runs it" in t.reason for t in dropped)
    assert {t.number for t in dropped}.isdisjoint(Trained.trained)


def test_a_report_names_the_runtimes_of_each_trial(tmp_path, monkeypatch):
    from nas.reporting.data import page_data

    run, _ = searched(monkeypatch, tmp_path / "run")
    text = json.dumps(page_data(run))
    assert '"runtime"' in text and "in torch" in text and "in onnxruntime" in text


def test_int8_of_a_converter_is_said_to_have_torchs_quality():
    from nas.analysis.front_table import front_columns, place_text, runtime_notes
    from nas.pareto.queries import Front
    from nas.records.front_member import member_of

    trial = trial_in(torch=3e-6, onnxruntime=1e-6)
    own = replace(trial, candidate=replace(trial.candidate, architecture=block("int8")))
    notes = {}
    for name, each in (("int8", own), ("fp32", trial)):
        front = Front.of([member_of(each, "cpu")])
        notes[name] = runtime_notes(front)
        assert dict((head, cells) for head, cells, _ in front_columns(front))["runtime"] == [
            f"onnxruntime, torch {format_joules(3e-6)}"
        ]
        assert place_text(front) == "d"
    assert any("quality of int8 is that of torch's int8" in line for line in notes["int8"])
    assert not any("int8" in line for line in notes["fp32"])
    plain = make_trial(1, "complete", block(), 0.9, 0.01, reading=reading(1e-6), params=1)
    assert runtime_notes(Front.of([member_of(plain, "cpu")])) == []


@pytest.mark.thorough
def test_a_real_search_measures_in_two_runtimes_and_exports_the_cheapest_form(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    data = {"name": "tiny", "d_model": [16, 32], "depth": [1], "n_heads": [2]}
    data |= {"n_kv_heads": [2], "ffn_ratio": [1, 2], "patch_size": [4], "runtime": list(TWO)}
    (tmp_path / "tiny.yaml").write_text(json.dumps(data))
    words = ["search", "--task", "digits", "--space", "tiny.yaml", "--trials", "2"]
    words += ["--epochs", "1", "--workers", "0", "--meter", "estimate", "--run", "run"]
    assert main([*words, "--device", "cpu", "--no-calibration"]) == 0
    said = capsys.readouterr()
    assert "cpu in torch, onnxruntime" in said.err
    assert "runtime" in said.out
    run = nas.load("run")
    for trial in run.trials():
        assert {r.runtime for r in trial.in_runtimes.values()} | set(trial.left_out_runtimes) == {
            *TWO
        }
        assert trial.reading.energy_j == min(r.energy_j for r in trial.in_runtimes.values())
    member = run.front().members[0]
    assert member.runtime in TWO
    words = ["export", "run", "--trial", str(member.trial), "--to", "model", "--quiet"]
    assert main([*words, "--joule-tolerance", "9"]) == 0
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    is_served = member.runtime == "onnxruntime"
    assert ("onnx" in card["formats"]) == is_served
    assert (tmp_path / "model" / "model.onnx").exists() == is_served
    assert card["verified"]["reading"].get("runtime", "torch") == member.runtime
