"""Completion scripts: read by the shells themselves where they are, and complete every option."""

import json
import os
import pty
import re
import select
import shlex
import shutil
import subprocess
import time

import pytest

from nas.cli.main import build_parser, main
from nas.cli.shell.completion import SHELLS, render
from nas.cli.shell.parsing import leaves
from predictors.measurement.protocol import PROTOCOLS


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        (folder / shell).write_text(render(build_parser(), shell))
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
        # As words, or in the name of a function or list of the script.
        name = "_".join(words).replace("-", "_")
        assert " ".join(words) in text or f"_nas_{name}_" in text
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


def bash_offers(script, folder, words):
    given = " ".join(f"'{word}'" for word in words)
    code = (
        f"source '{script}'; COMP_WORDS=(nas {given}); COMP_CWORD={len(words)}; "
        '$(complete -p nas | sed "s/.* -F \\([^ ]*\\) .*/\\1/"); printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split("\n")


def fish_offers(script, folder, words):
    code = f"source '{script}'; complete -C {shlex.quote(typed(words))}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    # Each line is a word, quoted where it must be, a tab, and what it means.
    return [line.split("\t")[0].rstrip("/").replace("\\", "") for line in done.stdout.split("\n")]


def zsh_offers(script, folder, words):
    # zsh completes only at a prompt: one in a terminal of ours, whose compadd also writes down
    # what it is given. The script is a file of $fpath, as its page says.
    functions = folder.parent / "functions"
    functions.mkdir()
    shutil.copy(script, functions / "_nas")
    found, end = folder.parent / "found", folder.parent / "end"
    start = folder.parent / "start"
    start.write_text(f"""
fpath=('{functions}' $fpath)
autoload -Uz compinit; compinit -D -u
compadd() {{
    if [[ ${{@[(I)-[OAD]]}} = 0 ]]; then
        local -a matches
        builtin compadd -A matches "$@"
        print -rl -- $matches >> '{found}'
    fi
    builtin compadd "$@"
}}
zle -C offer list-choices _main_complete; bindkey '^I' offer
finish() {{ print end >> '{end}' }}
zle -N finish; bindkey '^X' finish
""")
    ours, its = pty.openpty()
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"], cwd=folder, stdin=its, stdout=its, stderr=its, start_new_session=True
    )
    os.close(its)
    try:
        os.write(ours, f"source '{start}'\n{typed(words)}\t\x18".encode())
        until = time.monotonic() + 20
        while not end.exists() and time.monotonic() < until:
            if select.select([ours], [], [], 0.05)[0]:
                os.read(ours, 4096)  # a terminal that nobody reads stands still
        assert end.exists(), "zsh did not answer in 20 s"
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    return found.read_text().replace("\\", "").split("\n") if found.exists() else []


def typed(words):
    """A line that ends in the word to complete, which nobody has closed a quote behind."""
    return " ".join(["nas", *map(shlex.quote, words[:-1]), words[-1].replace(" ", "\\ ")])


OFFERS = {"bash": bash_offers, "fish": fish_offers, "zsh": zsh_offers}


@pytest.mark.parametrize("shell", SHELLS)
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
        (["search", "--device", "c"], {"cpu", "cuda:0"}),
        (["front", "--max-joules", ""], set()),
        (["front", "a r"], {"a run"}),
        (["export", "a run", "--to", "a"], {"a run", "a.json"}),
        (["predictor", "fit", "fit", "--s"], {"--seed"}),
        (["completion", "z"], {"zsh"}),
    ],
    ids=lambda v: " ".join(sorted(v) if isinstance(v, set) else v)[:40],
)
def test_a_shell_offers_what_may_follow(scripts, tmp_path, shell, words, expected):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine")
    folder = tmp_path / "here"
    (folder / "a run").mkdir(parents=True)
    (folder / "a.json").touch()
    assert set(OFFERS[shell](scripts / shell, folder, words)) - {""} == expected


def test_zsh_keeps_its_search_path(scripts):
    # In zsh $path is $PATH: a local of that name hides every command.
    assert not re.search(r"\bpath=", (scripts / "zsh").read_text())
