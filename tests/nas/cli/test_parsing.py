"""Mistakes at the prompt: one line, the nearest name, JSON where JSON was asked for."""

import json
import os
import pty
import subprocess
import sys

import pytest
from search_fakes import SPACE, drive, make_session, report

from nas.cli.main import build_parser, main
from nas.cli.shell.parsing import leaves
from nas.records.config import SearchConfig
from nas.store import new_run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "quickstart-1"
    new_run.create(folder, SearchConfig(task="digits", space=SPACE, trials=6), "fake")
    drive(make_session(folder, trials=6, sampler="random"))
    return folder


WRONG = [
    (["fornt"], "nas: ", "did you mean 'front'?"),
    (["predictor", "predct"], "nas predictor: ", "did you mean 'predict'?"),
    (["front", "x", "--max-joule", "1mJ"], "nas front: ", "did you mean '--max-joules'?"),
    (["export", "x", "--knee", "--too", "y"], "nas export: ", "did you mean '--to'?"),
    (["front", "x", "--max-params", "many"], "nas front: ", "invalid int value: 'many'"),
    (["search", "quickstart", "--trails=3"], "nas search: ", "did you mean '--trials'?"),
    (["plot", "x", "--what", "fornt", "--to", "y"], "nas plot: ", "did you mean 'front'?"),
    ([], "nas: ", "VERB"),
]


@pytest.mark.parametrize(("words", "start", "part"), WRONG, ids=lambda v: str(v)[:30])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_mistyped_command_is_one_line_with_the_nearest_name(words, start, part, as_json, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*words, "--json"] if as_json else words)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and err.startswith(start) and part in err
    if as_json:
        error = json.loads(out)["error"]
        assert error["exit_code"] == 2 and part in error["message"]
    else:
        assert out == ""


@pytest.mark.parametrize(
    ("line", "near"),
    [
        (["search", "quickstart", "--sampler", "nsga", "--device", "cpu"], "nsga2"),
        (["search", "quickstart", "--objective", "latencey", "--device", "cpu"], "latency"),
        (["search", "quickstart", "--evaluator", "supernett", "--device", "cpu"], "supernet"),
        (["search", "quickstart", "--space", "digits-tny"], "digits-tiny"),
        (["measure", "--space", "digits-tiny", "--sample", "1", "--protocol", "quik"], "quick"),
        (["measure", "--space", "digits-tiny", "--sample", "1", "--regime", "latncy"], "latency"),
        (
            [
                *("measure", "--space", "digits-tiny", "--sample", "1"),
                *("--device", "cpu", "--meter", "estimat"),
            ],
            "estimate",
        ),
    ],
)
def test_a_mistyped_value_has_a_hint(line, near, tmp_path, monkeypatch, capsys):
    from search_spaces.compression import probing

    # What the device runs is not the subject, and probing compiles.
    monkeypatch.setattr(probing, "probe", lambda device, **_: report(fp32="real"))
    monkeypatch.chdir(tmp_path)
    assert main([*line, "--json"]) == 2
    out, err = capsys.readouterr()
    assert f"did you mean {near!r}?" in err
    assert json.loads(out)["error"]["message"] in err


@pytest.mark.parametrize("beside", [True, False])
def test_a_mistyped_run_has_a_hint(run_folder, beside, tmp_path, monkeypatch, capsys):
    if beside:
        given = str(run_folder.with_name("quickstrt-1"))
    else:
        # A name alone is looked for where searches put their runs.
        (tmp_path / "runs").symlink_to(run_folder.parent)
        monkeypatch.chdir(tmp_path)
        given = "quickstart1"
    assert main(["front", given]) == 2
    whole = str(run_folder) if beside else "runs/quickstart-1"
    assert f"(did you mean {whole!r}?)" in capsys.readouterr().err


@pytest.mark.parametrize("line", [["front", "x"], ["export", "x", "--to", "y"]])
def test_a_minimum_of_accuracy_is_one_of_quality(line, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*line, "--min-accuracy", "84%"])
    assert ended.value.code == 2
    assert "did you mean '--min-quality'?" in capsys.readouterr().err


def test_an_unknown_option_is_named_before_the_one_that_is_missing(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["plot", "x", "--out", "y"])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and len(error.splitlines()) == 1
    assert "unknown argument '--out'" in error and "required: --to" in error
    assert error.index("'--out'") < error.index("--to")


def test_options_are_not_abbreviated(capsys):
    with pytest.raises(SystemExit):
        main(["front", "x", "--kne"])
    assert "did you mean '--knee'?" in capsys.readouterr().err


@pytest.mark.parametrize("line", [["--debug", "front", "{}"], ["front", "{}", "--debug"]])
def test_debug_may_stand_before_or_after_the_verb(line, tmp_path):
    with pytest.raises(ValueError, match="run must be"):
        main([word.format(tmp_path) for word in line])


def test_every_command_gives_json_and_same_options_mean_the_same():
    seen = {}
    # They differ for a reason: a baseline is a file before a search and a trial after it, a
    # batch size may be searched for only where there is measuring, a recipe has its own seed, and
    # a device is torch's before a search and one of the run's after it, a run's task is only
    # a file that has moved, and a search has one runtime where `nas measure` compares several.
    differ = {
        "--baseline",
        "--batch-size",
        "--device",
        "--runtime",
        "--seed",
        "--task",
        "--workers",
    }
    for words, parser in leaves(build_parser()):
        options = parser._option_string_actions
        assert "--json" in options, words
        assert "--debug" in options, words
        for name in options.keys() - differ:
            action = options[name]
            form = (action.type, action.nargs, action.metavar, action.default, type(action))
            assert seen.setdefault(name, form) == form, f"{name} of nas {' '.join(words)}"
    # Units are suffixes, as in records.
    assert not [n for n in seen if n.endswith(("-seconds", "-timeout", "-ms-s", "-time"))]


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out.startswith("nas ")


@pytest.mark.parametrize(
    "options",
    [[], *(pytest.param([form], marks=pytest.mark.thorough) for form in ("--json", "--csv"))],
)
def test_a_reader_that_goes_away_is_no_error(run_folder, options):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "nas", "front", str(run_folder), *options],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


_BAR = """
from nas.cli.output.progress import StepProgress
with StepProgress("evaluate") as progress:
    progress.on_step(1, 2, "half")
"""


def shown(terminal, **environment):
    """What the bar writes to stderr, which is a terminal or a pipe."""
    ours = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    ours |= {"TERM": "xterm-256color", **environment}
    if not terminal:
        command = [sys.executable, "-c", _BAR]
        return subprocess.run(command, env=ours, capture_output=True, check=True).stderr
    leader, follower = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", _BAR], env=ours, stderr=follower)
    os.close(follower)
    text = b""
    try:
        while chunk := os.read(leader, 4096):
            text += chunk
    except OSError:
        pass  # The terminal's end.
    os.close(leader)
    assert process.wait() == 0
    return text


def test_colours_and_bars_are_for_terminals_that_want_them():
    assert b"\x1b[3" in shown(True)
    plain = shown(True, NO_COLOR="1")
    assert b"evaluate" in plain and b"\x1b[3" not in plain
    for environment in ({}, {"FORCE_COLOR": "1"}):
        assert b"\x1b" not in shown(False, **environment)


def test_plots_are_named_in_json(run_folder, tmp_path, capsys):
    to = tmp_path / "front.png"
    assert main(["plot", str(run_folder), "--what", "front", "--to", str(to), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"drawn": {"front": str(to)}, "missing": {}}
    assert to.is_file()
