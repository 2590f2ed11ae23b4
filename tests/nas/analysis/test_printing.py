"""No command ends for a character that the output's encoding lacks."""

import io
import os
import subprocess
import sys

import pytest
from run_fakes import make_run

from nas.cli.main import build_parser, main
from nas.cli.shell.parsing import leaves

ENCODINGS = ("ascii", "cp437", "cp1252", "cp932", "latin-1")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("printing") / "ünï-実行", trials=12)


def printed(monkeypatch, encoding, *words):
    """Exit code and bytes of both streams, which are strict in their encoding."""
    streams = []
    for name in ("stdout", "stderr"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
        monkeypatch.setattr(sys, name, stream)
        streams.append(stream)
    try:
        code = main(list(map(str, words)))
    except SystemExit as ended:
        code = ended.code
    for stream in streams:
        stream.flush()
    return code, *(stream.buffer.getvalue() for stream in streams)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "words",
    [
        ("front", "{run}"),
        ("front", "{run}", "--markdown"),
        ("front", "{run}", "--csv"),
        ("front", "{run}", "--recommended", "--inferences", "1e9"),
        ("explain", "{run}", "1"),
        ("compare", "{run}", "{run}"),
        ("plot", "{run}", "--what", "front", "--to", "{to}/front.png"),
        ("report", "{run}", "--to", "{to}/page.html"),
    ],
)
def test_every_table_is_printed(run, tmp_path, monkeypatch, encoding, words):
    filled = [word.format(run=run.folder, to=tmp_path) for word in words]
    code, out, err = printed(monkeypatch, encoding, *filled)
    assert code == 0, err
    if words[0] in ("front", "explain", "compare") and "--csv" not in words:
        text = out.decode(encoding)
        assert ("uJ" in text and "+-" in text) if encoding == "ascii" else "J" in text


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_errors_and_help_are_printed(run, tmp_path, monkeypatch, encoding):
    code, _, err = printed(monkeypatch, encoding, "front", tmp_path / "nö-実行-\udc80")
    assert code == 2 and b"run must be the folder of a search" in err
    for words, _ in leaves(build_parser()):
        code, out, err = printed(monkeypatch, encoding, *words, "--help")
        assert code in (None, 0) and out


@pytest.mark.parametrize("changes", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C"}])
def test_a_command_of_its_own_process_prints(run, changes):
    env = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} | changes
    command = [sys.executable, "-m", "nas", "front", run.folder]
    done = subprocess.run(command, env=env, capture_output=True, check=False)
    assert done.returncode == 0 and b"uJ" in done.stdout and b"+-" in done.stdout, done.stderr
