"""Completion scripts: read by the shells themselves where they are, and complete every option."""

import json
import re
import shutil
import subprocess

import pytest

from nas.cli.completion import SHELLS
from nas.cli.main import build_parser, main
from nas.cli.parsing import leaves
from predictors.campaign.protocol import PROTOCOLS


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    from nas.cli.completion_commands import commands
    from nas.cli.completion_scripts import RENDER

    folder = tmp_path_factory.mktemp("completion")
    found = commands(build_parser())
    for shell in SHELLS:
        (folder / shell).write_text(RENDER[shell](found))
    return folder


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_takes_its_script(scripts, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine")
    subprocess.run([shell, "-n", str(scripts / shell)], check=True)


@pytest.mark.parametrize("shell", SHELLS)
def test_each_script_knows_every_command_and_option(scripts, shell):
    text = (scripts / shell).read_text()
    for words, parser in leaves(build_parser()):
        assert " ".join(words) in text
        for option in parser._option_string_actions:
            wanted = option
            if shell == "fish":
                wanted = f"-l {option[2:]} " if option.startswith("--") else f"-s {option[1:]} "
            assert wanted in text, (words, option)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_verb_prints_the_script(scripts, shell, capsys):
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == (scripts / shell).read_text()
    assert main(["completion", shell, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["script"] == (scripts / shell).read_text()


def completed(scripts, folder, *words):
    """What bash offers for the last word."""
    given = " ".join(f"'{word}'" for word in words)
    code = (
        f"source '{scripts / 'bash'}'; COMP_WORDS=(nas {given}); COMP_CWORD={len(words)}; "
        '_nas; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return set(done.stdout.split("\n")) - {""}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fr"], {"front"}),
        (["predictor", ""], {"fit", "predict", "evaluate"}),
        (["predictor", "pre"], {"predict"}),
        (["search", "quick"], {"quickstart"}),
        (["search", "quickstart", "--tri"], {"--trials", "--trial-timeout-s"}),
        (["search", "--task", "dig"], {"digits"}),
        (["measure", "--protocol", ""], set(PROTOCOLS)),
        (["front", "--max-joules", ""], set()),
        (["front", "a r"], {"a run"}),
        (["export", "a run", "--to", "a"], {"a run", "a.json"}),
        (["predictor", "fit", "fit", "--s"], {"--seed"}),
        (["completion", "z"], {"zsh"}),
    ],
    ids=lambda v: " ".join(sorted(v) if isinstance(v, set) else v)[:40],
)
def test_bash_offers_what_may_follow(scripts, tmp_path, words, expected):
    (tmp_path / "a run").mkdir()
    (tmp_path / "a.json").touch()
    assert completed(scripts, tmp_path, *words) == expected


def test_zsh_keeps_its_search_path(scripts):
    # In zsh $path is $PATH: a local of that name hides every command.
    assert not re.search(r"\bpath=", (scripts / "zsh").read_text())
