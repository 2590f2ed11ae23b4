"""What ``nas search`` takes from its options: teacher, baselines, prior runs, task, run folder."""

import json
from pathlib import Path

import pytest
from cli_fakes import plain, write_models, write_run
from search_fakes import SPACE, drive, make_session, report
from text_fakes import reviews, write_table, write_task

from nas.charts.of_run import charts_of
from nas.cli.commands.search import _warm_start_notes as warm_start_notes
from nas.cli.main import build_parser, main
from nas.cli.options.search_config import INHERIT_SHARE
from nas.cli.options.search_config import config_of as search_config
from nas.records.config import SearchConfig
from nas.store import new_run, run_file
from search_spaces.space.sampling import largest, smallest

LEAST, MOST = smallest(SPACE), largest(SPACE)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def models(tmp_path):
    return write_models(tmp_path / "models")


@pytest.mark.parametrize(
    ("options", "teacher", "share"),
    [
        ([], None, None),
        (["--distill"], "largest", None),
        (["--inherit"], "largest", INHERIT_SHARE),
        (["--teacher", "model"], "{tmp}/model", None),
        (["--distill", "--teacher", "model", "--inherit"], "{tmp}/model", INHERIT_SHARE),
    ],
)
def test_options_of_the_teacher_are_kept_in_the_run(
    tmp_path, monkeypatch, options, teacher, share
):
    from search_spaces.compression import probing

    monkeypatch.setattr(probing, "probe", lambda device, **_: report(fp32="real"))
    monkeypatch.chdir(tmp_path)
    line = ["search", "quickstart", "--device", "cpu", "--epochs", "7", *options]
    config = search_config(build_parser().parse_args(line))
    assert config.teacher == (teacher and teacher.format(tmp=tmp_path))
    assert (config.training.distill is None) == (teacher is None)
    assert config.training.recovery.inherit_share == share and config.training.epochs == 7
    new_run.create(tmp_path / "run", config, "fake")
    assert run_file.load(tmp_path / "run").config == config
    # Going on with a run needs none of them again.
    again = ["search", "--resume", "--run", str(tmp_path / "run")]
    assert search_config(build_parser().parse_args(again)) == config


def test_the_same_line_starts_a_run_and_goes_on_with_it(tmp_path, monkeypatch):
    import nas
    from search_spaces.compression import probing

    monkeypatch.setattr(probing, "probe", lambda device, **_: report(fp32="real"))
    monkeypatch.chdir(tmp_path)
    asked = []

    def search(config, folder, **options):
        asked.append((folder, options["resume"]))
        if not options["resume"]:
            new_run.create(folder, config, "fake")
        raise ValueError("no more is needed")

    monkeypatch.setattr(nas, "search", search)
    named = ["search", "quickstart", "--device", "cpu", "--resume", "--quiet"]
    for line in (named, named, [*named, "--run", "own"], [*named, "--run", "own"]):
        assert main(line) == 2
    first, own = Path("runs/quickstart-1"), Path("own")
    assert asked == [(first, False), (first, True), (own, False), (own, True)]


def test_baselines_follow_the_recipes_own_each_once(models, tmp_path, monkeypatch):
    from search_spaces.compression import probing

    monkeypatch.setattr(probing, "probe", lambda device, **_: report(fp32="real"))
    monkeypatch.chdir(models)
    files = ["own.json", "two.json", "artifact", "recipes.json"]
    options = [word for name in files for word in ("--baseline", name)]
    line = ["search", "quickstart", "--device", "cpu", *options]
    config = search_config(build_parser().parse_args(line))
    recipes = search_config(build_parser().parse_args(line[:4])).baselines
    own = (plain(32, 4), plain(48, 2), plain(24, 4))
    assert config.baselines == (*recipes, *own) and len(recipes) == 1
    # The recipe's baseline is of its own space; the user's are asked for by name.
    other = [*line[:4], "--space", "digits-tiny", *options]
    assert search_config(build_parser().parse_args(other)).baselines == (*own, *recipes)
    new_run.create(tmp_path / "again", config, "fake")
    again = ["search", "--resume", "--run", str(tmp_path / "again")]
    for resumed in (again, [*again, *options]):
        assert search_config(build_parser().parse_args(resumed)) == config


def test_baselines_are_named_in_the_front_and_the_picture(tmp_path, capsys):
    folder = tmp_path / "run"
    config = SearchConfig(task="digits", space=SPACE, trials=2, baselines=(LEAST, MOST))
    new_run.create(folder, config, "fake")
    drive(make_session(folder, trials=2, sampler="random", baselines=(LEAST, MOST)))
    assert main(["front", str(folder), "--json"]) == 0
    members = json.loads(capsys.readouterr().out)["members"]
    assert [m["trial"] for m in members if m["baseline"]] == [0, 1]
    assert main(["front", str(folder)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "(baseline)" in line]
    assert len(rows) == 2
    (chart,) = charts_of(run_file.load(folder), "front")
    marks = {series.role: series.marks for series in chart.series}
    assert {m.trial for m in marks["baseline"]} == {0, 1}
    # A ring around the point that each is besides.
    both = {m.trial for m in (*marks["front"], *marks.get("trained", ()))}
    assert both >= {0, 1}


def test_what_is_taken_of_earlier_runs_is_said(run_folder, tmp_path, monkeypatch):
    from search_spaces.compression import probing

    monkeypatch.setattr(probing, "probe", lambda device, **_: report(fp32="real"))
    options = ["--device", "cpu", "--warm-start", str(run_folder), "--run", str(tmp_path / "r")]
    arguments = build_parser().parse_args(["search", "quickstart", *options])
    config = search_config(arguments)
    assert config.warm_start == (str(run_folder),) and config.predictor is None
    run, first = warm_start_notes(arguments, config)
    assert run.startswith(f"warm start from {run_folder} (run-") and "12 trials: " in run
    assert "qualities not taken: epochs, learning_rate" in run
    assert "joules by transfer (device 'd', here " in run and first[-1].isdigit()
    # What a resumed search has kept is not read again.
    new_run.create(tmp_path / "r", config, "fake")
    again = build_parser().parse_args(["search", "--resume", "--run", str(tmp_path / "r")])
    assert search_config(again) == config and warm_start_notes(again, config) == []


def test_a_task_file_is_found_from_any_folder(tmp_path, monkeypatch):
    from search_spaces.compression import probing

    monkeypatch.setattr(probing, "probe", lambda device, **_: report(fp32="real"))
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "all.csv", reviews(60))
    write_task(tmp_path / "words.yaml", data="all.csv", sequence_length=12)
    options = ["--task", "words.yaml", "--space", "encoder-base", "--trials", "2"]
    line = ["search", "--device", "cpu", *options]
    config = search_config(build_parser().parse_args(line))
    assert config.task == str(tmp_path / "words.yaml")
