"""What a user meets at the prompt: one-line errors, exit codes, help, units."""

import json
import shutil

import pytest
from cli_fakes import write_models, write_run
from search_fakes import report

from nas.cli.main import main
from nas.core.units import format_joules, parse_joules


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run_folder(tmp_path, finished_run):
    """A copy of it, to do with what one likes."""
    return shutil.copytree(finished_run, tmp_path / "run")


@pytest.fixture
def models(tmp_path):
    return write_models(tmp_path / "models")


def test_front_table_json_csv_and_knee_agree(run_folder, capsys):
    assert main(["front", str(run_folder), "--json"]) == 0
    members = json.loads(capsys.readouterr().out)["members"]
    energies = [m["energy_j"] for m in members]
    assert len(members) >= 2 and energies == sorted(energies)
    assert all(0 < m["front_probability"] <= 1 for m in members)
    assert main(["front", str(run_folder)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == len(members) + 5 + 2
    assert table[-1].startswith("spent by the search: ") and "CO2e" in table[-1]
    assert main(["front", str(run_folder), "--baseline", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("saving: ")
    assert main(["front", str(run_folder), "--csv"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(members) + 1
    assert main(["front", str(run_folder), "--knee", "--json"]) == 0
    (knee,) = json.loads(capsys.readouterr().out)["members"]
    assert knee in members


def test_a_budget_is_kept(run_folder, capsys):
    main(["front", str(run_folder), "--json"])
    members = json.loads(capsys.readouterr().out)["members"]
    budget = members[1]["energy_j"]
    assert main(["front", str(run_folder), "--json", "--max-joules", repr(budget)]) == 0
    kept = json.loads(capsys.readouterr().out)["members"]
    assert [m["trial"] for m in kept] == [m["trial"] for m in members[:2]]


WRONG = [
    (["search", "quickstart", "--baseline", "{tmp}/no.json", "--run", "{tmp}/r"], ["no.json"]),
    (["search", "quickstart", "--baseline", "{tmp}", "--run", "{tmp}/r"], ["architecture.json"]),
    (
        ["search", "quickstart", "--baseline", "{tmp}/models/junk.json", "--run", "{tmp}/r"],
        ["junk.json"],
    ),
    (
        ["search", "quickstart", "--baseline", "{tmp}/models/outside.json", "--run", "{tmp}/r"],
        ["baseline", "outside.json", "digits-tiny", "d_model must be one of", "10"],
    ),
    (
        ["search", "quickstart", "--baseline", "{tmp}/models/unfit.json", "--run", "{tmp}/r"],
        ["baseline", "unfit.json", "patch_size must divide", "3"],
    ),
    (
        ["search", "quickstart", "--baseline", "{tmp}/models/two.json", "--trials", "2"],
        ["trials must be >= the number of baselines, 3", "2"],
    ),
    (
        ["search", "quickstart", "--warm-start", "{tmp}/no", "--run", "{tmp}/r"],
        ["warm_start {tmp}/no", "folder of a search"],
    ),
    (
        ["search", "quickstart", "--predictor", "{tmp}/no.safetensors", "--run", "{tmp}/r"],
        ["no.safetensors", "readable"],
    ),
    (
        ["search", "quickstart", "--predictor", "{tmp}/models/own.json", "--run", "{tmp}/r"],
        ["own.json", "safetensors"],
    ),
    (
        ["search", "quickstart", "--resume", "--run", "{run}", "--warm-start", "{run}"],
        ["warm_start", "differ"],
    ),
    (["front", "{tmp}/nowhere"], ["run must be the folder of a search", "nowhere"]),
    (["front", "{run}", "--max-joules", "-1"], ["joules must be a number > 0", "-1"]),
    (["front", "{run}", "--max-joules", "2 parsec"], ["joules", "parsec"]),
    (["front", "{run}", "--max-joules", "1nJ"], ["no member", "1 nJ"]),
    (["front", "{run}", "--min-quality", "3"], ["min_quality", "[0, 1]", "3"]),
    (["front", "{run}", "--min-quality", "21 BLEU"], ["min_quality", "quality", "21 BLEU"]),
    (
        ["front", "{run}", "--min-quality", "100%"],
        ["no member", "min_quality 100.00% (accuracy)"],
    ),
    (["front", "{run}", "--baseline", "99"], ["baseline", "99"]),
    (["front", "{run}", "--carbon-g-per-kwh", "-3"], ["carbon_g_per_kwh", "-3"]),
    (["search", "quickstart", "--carbon-g-per-kwh", "0"], ["carbon_g_per_kwh", "0"]),
    (["plot", "{run}", "--what", "front", "--to", "{tmp}/x.txt"], [".png"]),
    (["plot", "{run}", "--what", "front", "--to", "{tmp}/no/x.png"], ["writable", "x.png"]),
    (["export", "{run}", "--trial", "99", "--to", "{tmp}/a"], ["trial", "99", "0 to"]),
    (["export", "{run}", "--trial", "0", "--knee", "--to", "{tmp}/a"], ["--trial"]),
    (["export", "{run}", "--trial", "0", "--to", "{tmp}/a"], ["weights"]),
    (["export", "{run}", "--trial", "0", "--to", "{run}"], ["weights", "0"]),
    (["search", "nonsense"], ["recipe must be one of", "quickstart"]),
    (["search", "quickstrt"], ["did you mean 'quickstart'"]),
    (["search"], ["recipe", "--task"]),
    (["search", "quickstart", "--task", "digts", "--run", "{tmp}/r"], ["did you mean 'digits'"]),
    (["search", "quickstart", "--space", "nope"], ["space must be one of", "nope"]),
    (["search", "quickstart", "--trials", "0"], ["trials", ">= 1", "0"]),
    (["search", "quickstart", "--workers", "-1"], ["workers", ">= 0", "-1"]),
    (
        ["search", "quickstart", "--workers", "0", "--address", "auto"],
        ["workers must be >= 1 with address auto", "Ray"],
    ),
    (["search", "quickstart", "--workers", "0", "--log", "tensorboard"], ["workers", "log"]),
    (["search", "quickstart", "--max-joules", "x"], ["joules", "x"]),
    (["search", "quickstart", "--sampler", "best"], ["sampler", "tpe", "best"]),
    (["search", "quickstart", "--meter", "ruler", "--run", "{tmp}/r"], ["meter", "estimate"]),
    (["search", "quickstart", "--meter", "nvml", "--run", "{tmp}/r"], ["for cpu", "nvml"]),
    (["search", "quickstart", "--device", "cuda:77", "--run", "{tmp}/r"], ["device", "cuda:77"]),
    (
        ["search", "quickstart", "--teacher", "{tmp}/nowhere", "--run", "{tmp}/r"],
        ["teacher must be the folder of an exported artifact", "nowhere"],
    ),
    (["search", "quickstart", "--resume", "--distill", "--run", "{run}"], ["teacher", "differ"]),
    (["search", "quickstart", "--task", "no.yaml", "--run", "{tmp}/r"], ["no.yaml", "readable"]),
    (
        ["search", "quickstart", "--storage", "bogus", "--run", "{tmp}/r", "--workers", "0"],
        ["cannot be opened"],
    ),
    (["search", "--resume", "--run", "{tmp}/r"], ["run must be the folder"]),
    (
        ["search", "quickstart", "--resume", "--run", "{tmp}/models"],
        ["run must be the folder"],
    ),
    (["search", "quickstart", "--run", "{run}"], ["new or empty", "nas resume"]),
    (
        ["search", "quickstart", "--run", "/proc/x/run", "--workers", "0"],
        ["writable", "/proc/x/run"],
    ),
    (["search", "quickstart", "--resume", "--seed", "5", "--run", "{run}"], ["seed", "differ"]),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=lambda v: " ".join(v)[:50])
def test_bad_input_is_one_line_exit_code_2_and_nothing_half_written(
    run_folder, models, tmp_path, capsys, monkeypatch, arguments, words
):
    from search_spaces.compression import probing

    true_probe = probing.probe

    def probed(device, **rest):
        return true_probe(device, **rest) if device != "cpu" else report(fp32="real")

    monkeypatch.setattr(probing, "probe", probed)
    monkeypatch.chdir(tmp_path)
    before = sorted(str(p) for p in tmp_path.rglob("*") if p.name != "writer.lock")
    filled = [a.format(tmp=tmp_path, run=run_folder) for a in arguments]
    assert main(filled) == 2
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith(("searching", "exporting"))]
    assert out == "" and len(lines) == 1, err
    assert all(word.format(tmp=tmp_path) in lines[0] for word in words), lines[0]
    assert sorted(str(p) for p in tmp_path.rglob("*") if p.name != "writer.lock") == before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 1}', "\xff", '{"schema": 9, "config": {}}']
)
def test_a_corrupt_run_file_is_one_line(run_folder, capsys, text):
    (run_folder / "run.json").write_text(text, encoding="latin-1")
    assert main(["front", str(run_folder)]) == 2
    err = capsys.readouterr().err
    assert "run.json" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"task": 3},
        {"space": []},
        {"trials": "x"},
        {"gate": {}},
        {"training": {"epochs": 0}},
        {"baselines": [1]},
        {"teacher": "largest"},
        {"x": 1},
    ],
)
def test_a_run_file_with_a_wrong_configuration_is_one_line(run_folder, capsys, change):
    path = run_folder / "run.json"
    data = json.loads(path.read_text())
    data["config"] |= change
    path.write_text(json.dumps(data))
    code = main(["front", str(run_folder)])
    err = capsys.readouterr().err
    assert code in (0, 2) and "Traceback" not in err and len(err.splitlines()) <= 1
    if code == 0:
        assert change in ({"task": 3}, {"gate": {}})


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError, match="run must be"):
        main(["--debug", "front", str(tmp_path)])


def test_doctor_says_what_would_be_used(capsys):
    assert main(["doctor", "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["meter"] in {"estimate", "rapl"}
    assert {m["name"] for m in found["meters"]} >= {"nvml", "rapl", "estimate"}
    assert main(["doctor", "--device", "cpu"]) == 0
    assert "used:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "joules"),
    [("2mJ", 2e-3), ("150 uJ", 1.5e-4), ("3µJ", 3e-6), ("0.002", 0.002), ("1e-3J", 1e-3)],
)
def test_joules_are_read_with_their_unit(text, joules):
    assert parse_joules(text) == pytest.approx(joules)


@pytest.mark.parametrize(
    ("joules", "text"), [(1.25e-3, "1.25 mJ"), (15.2e-6, "15.2 µJ"), (2.0, "2 J"), (3e-9, "3 nJ")]
)
def test_joules_are_shown_with_the_unit_that_fits(joules, text):
    assert format_joules(joules) == text
