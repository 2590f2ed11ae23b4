"""``nas front``, ``nas explain`` and ``nas compare``: answers, forms and the shipped schema."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from run_fakes import BASELINE, check_schema, make_run
from search_fakes import failed, finished

from nas.analysis.compare_runs import compare_runs
from nas.analysis.explain import differing_knobs, explain
from nas.cli.main import main
from nas.store import run_file
from search_spaces.space.encoding import decode, encode
from search_spaces.space.sampling import smallest


def judge(candidate):
    """Formulas, but trial 3 fails."""
    if candidate.number == 3:
        return failed(candidate, "out of memory")
    return finished(candidate)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return make_run(folder / "a", judge=judge).folder, make_run(folder / "b", seed=5).folder


@pytest.fixture(scope="module")
def run(folders):
    return run_file.load(folders[0])


def asked(capsys, *words):
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def front_json(capsys, *words):
    data = json.loads(asked(capsys, "front", *words, "--json"))
    check_schema(data, "front")
    return data


def test_members_as_accurate_as_a_baseline(run, capsys, tmp_path):
    whole = front_json(capsys, run.folder)["members"]
    middle = whole[len(whole) // 2]
    kept = front_json(capsys, run.folder, "--at-least-as-accurate-as", middle["trial"])
    assert [m["trial"] for m in kept["members"]] == [
        m["trial"] for m in whole if m["quality"] >= middle["quality"]
    ]
    assert kept["at_least_as_accurate_as"]["trial"] == middle["trial"]
    # Savings are named against it, unless another is asked for.
    assert kept["summary"]["baseline_trial"] == middle["trial"]
    other = ("--at-least-as-accurate-as", middle["trial"], "--baseline", "0")
    assert front_json(capsys, run.folder, *other)["summary"]["baseline_trial"] == 0
    # A file names the trial that has its architecture.
    (tmp_path / "m.json").write_text(json.dumps(middle["architecture"]))
    by_file = front_json(capsys, run.folder, "--at-least-as-accurate-as", tmp_path / "m.json")
    assert by_file == kept
    table = asked(capsys, "front", run.folder, "--at-least-as-accurate-as", middle["trial"])
    assert f"fewer joules than trial {middle['trial']}" in table and " 1x" in table


def test_the_baseline_by_name_and_its_quality(run, capsys):
    quality = run.trials()[0].objectives[0]
    words = ("front", str(run.folder), "--at-least-as-accurate-as", "baseline")
    code = main([*words, "--json"])
    out, err = capsys.readouterr()
    if code == 0:
        data = json.loads(out)
        assert data["at_least_as_accurate_as"] == {
            "trial": 0,
            "quality": quality,
            "energy_j": run.trials()[0].energy_j,
        }
    else:
        assert f"min_quality {quality:.2%} (accuracy)" in err


def test_lifetimes_rank_and_break_even(run, capsys):
    data = front_json(capsys, run.folder, "--inferences", "1e9", "--carbon-g-per-kwh", "36")
    lives = data["lifetimes"]
    assert [x["trial"] for x in lives] == [m["trial"] for m in data["members"]]
    assert [x["energy_j"] for x in lives] == sorted(x["energy_j"] for x in lives)
    for life, m in zip(lives, data["members"], strict=True):
        assert life["energy_j"] == pytest.approx(5.0 + 1e9 * m["energy_j"])
        assert life["carbon_g"] == pytest.approx(life["energy_j"] * 1e-5)
    saved_j = run.trials()[0].energy_j - data["members"][0]["energy_j"]
    spent_j = data["summary"]["train_energy_j"] + data["summary"]["measure_energy_j"]
    assert lives[0]["inferences_to_break_even"] == pytest.approx(spent_j / saved_j)
    table = asked(capsys, "front", run.folder, "--inferences", "1e9")
    assert (
        "lifetime of 1e+09" in table and f"the fewest joules: trial {lives[0]['trial']}" in table
    )
    rows = list(
        csv.DictReader(
            io.StringIO(asked(capsys, "front", run.folder, "--inferences", "1e9", "--csv"))
        )
    )
    assert float(rows[0]["lifetime_energy_j"]) == pytest.approx(lives[0]["energy_j"])


def test_few_members_and_markdown(run, capsys):
    whole = front_json(capsys, run.folder)["members"]
    few = front_json(capsys, run.folder, "--top", "3")["members"]
    assert len(few) == 3 and few[0] == whole[0] and few[-1] == whole[-1]
    lines = asked(capsys, "front", run.folder, "--markdown").splitlines()
    head = lines[0].strip("| ").split(" | ")
    assert lines[1].replace("-", "").replace(":", "").replace("|", "").strip() == ""
    assert len(lines) == len(whole) + 2 and head[:2] == ["trial", "accuracy"]
    assert all(line.count(" | ") == len(head) - 1 for line in lines[: len(whole) + 2])


def test_every_trial_is_explained(run, capsys):
    on_front = {m.trial for m in run.front()}
    seen = set()
    for record in run.trials():
        data = json.loads(asked(capsys, "explain", run.folder, record.number, "--json"))
        check_schema(data, "explain")
        seen.add(data["why"])
        assert (data["why"] == "on the front") == (record.number in on_front)
        text = asked(capsys, "explain", run.folder, record.number)
        assert text.startswith(f"trial {record.number}: {record.architecture.describe()}")
        if data["why"] == "dominated":
            first = data["dominators"][0]
            assert first["trial"] in on_front and f"by trial {first['trial']} (" in text
            rival = run.trial(first["trial"])
            gain = rival.objectives[0] - record.objectives[0]
            assert first["quality_gain"] == pytest.approx(gain) and gain >= 0
            ratio = record.objectives[1] / rival.objectives[1]
            assert first["joules_ratio"] == pytest.approx(ratio) and ratio >= 1
    assert {"on the front", "dominated", "failed"} <= seen
    assert "out of memory" in asked(capsys, "explain", run.folder, "3")


def test_what_would_put_a_trial_on_the_front_does(run):
    for record in run.trials():
        if record.state != "complete":
            continue
        found = explain(run, record.number)
        if found.why != "dominated":
            assert found.needed_energy_j is None
            continue
        others = [r.objectives for r in run.trials() if r.state == "complete"]
        more = found.needed_quality + 1e-9
        assert not any(a >= more and j <= record.energy_j for a, j in others)
        less = found.needed_energy_j * (1 - 1e-9)
        assert not any(a >= record.quality and j <= less for a, j in others)


def test_knobs_that_differ_are_those_of_layers_that_both_have(run):
    space = run.config.space
    genes = encode(BASELINE, space)
    changed = decode(genes | {"layer0.ffn_ratio": 1, "depth": 2}, space)
    knobs = differing_knobs(BASELINE, changed, space)
    assert [(k.name, k.this, k.other) for k in knobs] == [
        ("depth", 4, 2),
        ("layer0.ffn_ratio", 4, 1),
    ]
    assert differing_knobs(BASELINE, BASELINE, space) == []
    names = {k.name for k in differing_knobs(smallest(space), BASELINE, space)}
    assert {"d_model", "depth"} <= names and not any(n.startswith("layer1.") for n in names)


def test_a_limit_that_is_broken_is_named(tmp_path):
    found = make_run(tmp_path / "run", trials=4, max_joules=1e-5)
    explained = explain(found, 0)
    assert explained.why == "breaks a limit" and explained.front_probability is None
    (broken,) = explained.broken
    assert broken.limit == "max_joules" and broken.value > broken.allowed == 1e-5


def test_two_runs_side_by_side(folders, capsys):
    a, b = (run_file.load(folder) for folder in folders)
    found = compare_runs(a, b)
    one, two = found.runs
    assert (one.label, two.label) == ("A", "B") and one.hypervolume > 0 < two.hypervolume
    rivals = {m.trial: m for m in two.members}
    for m in one.members:
        by = one.dominated.get(m.trial, ())
        expected = {
            t
            for t, r in rivals.items()
            if r.quality >= m.quality
            and r.energy_j <= m.energy_j
            and (r.quality, r.energy_j) != (m.quality, m.energy_j)
        }
        assert set(by) == expected
    data = json.loads(asked(capsys, "compare", *folders, "--json"))
    check_schema(data, "compare")
    assert data["runs"][0]["hypervolume"] == one.hypervolume
    table = asked(capsys, "compare", *folders)
    assert f"hypervolume of A: {one.hypervolume:.4f}" in table
    rows = list(csv.DictReader(io.StringIO(asked(capsys, "compare", *folders, "--csv"))))
    assert len(rows) == len(one.members) + len(two.members)
    markdown = asked(capsys, "compare", *folders, "--markdown").splitlines()
    assert len(markdown) == len(rows) + 2
    itself = compare_runs(a, a)
    assert itself.runs[0].hypervolume == itself.runs[1].hypervolume
    assert itself.runs[0].covers == 1 and not itself.runs[0].dominated and itself.notes == ()


def test_what_does_not_compare_is_said(folders, tmp_path, capsys):
    other = shutil.copytree(folders[1], tmp_path / "other")
    path = other / "run.json"
    data = json.loads(path.read_text())
    data["config"] |= {"protocol": "standard", "objectives": ["params"]}
    path.write_text(json.dumps(data))
    found = compare_runs(run_file.load(folders[0]), run_file.load(other))
    assert found.objectives == ("quality", "joules")
    assert any("screening and standard" in note for note in found.notes)
    assert any("quality and joules alone" in note for note in found.notes)
    path.write_text(json.dumps(data | {"config": data["config"] | {"task": "other"}}))
    assert main(["compare", str(folders[0]), str(other)]) == 2
    assert "one task" in capsys.readouterr().err


WRONG = [
    (["front", "{run}", "--top", "0"], "top must be >= 1, got 0"),
    (["front", "{run}", "--top", "2", "--knee"], "--knee"),
    (["front", "{run}", "--inferences", "-1"], "inferences must be finite and > 0, got -1.0"),
    (["front", "{run}", "--at-least-as-accurate-as", "99"], "trial 99 of run"),
    (["front", "{run}", "--at-least-as-accurate-as", "3"], "trial 3 of run"),
    (["front", "{run}", "--at-least-as-accurate-as", "no.json"], "architecture of no.json"),
    (["explain", "{run}", "99"], "trial must be one of run"),
    (["compare", "{run}", "{run}/nowhere"], "run must be the folder of a search"),
]


@pytest.mark.parametrize(("words", "says"), WRONG, ids=lambda v: str(v)[:40])
def test_bad_questions_are_one_line(run, capsys, words, says):
    assert main([word.format(run=run.folder) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and says in err and len(err.splitlines()) == 1


def test_the_example_that_reads_json_runs_as_written(run, capsys, tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "front.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "front.json").write_text(asked(capsys, "front", run.folder, "--json"))
    (tmp_path / "example.py").write_text(example)
    command = [sys.executable, "example.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    first = run.front().members[0]
    assert done.stdout.split() == [str(first.trial), repr(first.energy_j), "False"]
