"""docs/tutorial.md, from its search to its last line, with fewer and shorter trainings."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from pages import DOCS, output_of

PAGE = (DOCS / "tutorial.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
# The last of an option counts. Joules of a busy machine may be any multiple.
SMALLER = {
    "search": ["--trials", "4", "--epochs", "3"],
    "export": ["--joule-tolerance", "5"],
}
# Whether a trial is dominated depends on what was found.
BY_CHANCE = {"dominated"}


def header_of(text):
    """The columns of the first table in a text, without what aligns them."""
    lines = text.splitlines()
    rule = next((at for at, line in enumerate(lines) if line.startswith("-----")), None)
    return None if rule is None else lines[rule - 1].split()


def labels_of(text):
    """The words that begin indented lines."""
    return set(re.findall(r"^  ([a-z]+) ", text, re.MULTILINE))


@pytest.mark.e2e
def test_the_tutorial_runs_from_its_search_to_its_last_line(tmp_path):
    # A budget of 10 uJ must hold on any machine.
    environment = os.environ | {"JOULENAS_CPU_WATTS_PER_CORE": "0.05"}
    printed, n_commands, n_shown = "", 0, 0
    for language, block in BLOCKS:
        if language == "python":
            printed = output_of(block, tmp_path, timeout=120)
        elif language == "text":
            assert header_of(printed) == header_of(block)
            assert labels_of(block) - labels_of(printed) <= BY_CHANCE
            # Figures are those of one run, words are not.
            ours, theirs = (text.splitlines()[0] for text in (block, printed))
            if header_of(block) is None:
                assert re.findall(r"[a-z]{5,}", ours) == re.findall(r"[a-z]{5,}", theirs)
            n_shown += 1
        for line in block.splitlines() if language == "bash" else ():
            words = shlex.split(line)
            if words[0] != "nas":
                continue
            done = subprocess.run(
                [sys.executable, "-m", *words, *SMALLER.get(words[1], [])],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            printed, n_commands = done.stdout, n_commands + 1
    assert n_commands == 8 and n_shown == 4
    for path in ("front.svg", "runs/tutorial/report.html", "model/card.json"):
        assert (tmp_path / path).stat().st_size > 0
