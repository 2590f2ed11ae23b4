"""No block of a page escapes: each is of a kind that something here, or a named test, runs."""

import argparse
import importlib
import json
import re
import shlex
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from pages import PAGES, ROOT, blocks, lines_of, name_of

from nas.tasks.registry import FILE_TASKS
from search_spaces.space import SearchSpace

LANGUAGES = {"bash", "json", "python", "text", "toml", "yaml"}
# Programs of others, which come with the development installation, and words of the shell itself.
# What has to be installed elsewhere is tried by nobody, and its page says so.
UNTRIED = {"onnx2tf"}
PROGRAMS = {"optuna-dashboard", "pip", "ray", "tensorboard"}
SHELL = {"cd", "export", "source", "ssh"}
# Python, by whatever path.
PYTHON = re.compile(r"(?:\S*/)?python3?$")


class ParsedError(Exception):
    """A parser has taken its words: nothing is to be run."""


def module_lines():
    """Each ``python -m experiments...`` of a block, a sentence or the list, by page."""
    for page in PAGES:
        text = page.read_text()
        found = [*lines_of(page), *re.findall(r"`(python\s+-m\s+experiments[^`]*)`", text)]
        if page.parent.name == "experiments":
            rows = re.findall(r"^\|[^|]*\| `([^`]+)` \|", text, re.MULTILINE)
            found += [f"python -m experiments.benchmarks.{row}" for row in rows]
        for line in found:
            python, _, module, *options = [*shlex.split(line), "", "", ""]
            # In a sentence a name may stand for itself, and NAME for any.
            is_whole = any(options) or module == "experiments.results"
            is_one = module.startswith("experiments.") and "NAME" not in module
            if python == "python" and is_one and is_whole:
                yield f"{name_of(page)}: {shlex.join([module, *filter(None, options)])}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_of_a_kind_that_is_looked_at(page):
    languages = re.findall(r"^\s*```(.*)$", page.read_text(), re.MULTILINE)
    assert len(languages) % 2 == 0
    assert set(languages[::2]) <= LANGUAGES, languages
    assert set(languages[1::2]) <= {""}, "a block that is not closed, or has no language"
    for text in blocks(page, "text"):
        # What is text is run by nobody: code must not hide there.
        assert not re.search(
            r"^(nas [\w-]+(?![\w-]*:)|make |python|import |from \w+ import )", text, re.MULTILINE
        )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_line_for_a_shell_is_known(page):
    for line in lines_of(page):
        words = shlex.split(line)
        while re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        if words[0] in UNTRIED:
            assert re.search(r"not (been )?(run|tried)", page.read_text())
        if words[0] in ("nas", "make") or words[0] in SHELL | UNTRIED:
            continue
        if PYTHON.match(words[0]):
            # Those of experiments are parsed below, others need only be there. Pip is not
            # imported: setuptools would take this process for pip's, and compile nothing more.
            assert words[1] == "-m", line
            if words[2] != "pip":
                importlib.import_module(words[2].partition(".")[0])
        else:
            folder = Path(sys.executable).parent
            assert words[0] in PROGRAMS and shutil.which(words[0], path=folder), line


def test_there_are_experiments_to_check():
    assert len(set(module_lines())) > 20


@pytest.mark.parametrize("line", sorted(set(module_lines())))
def test_every_experiment_takes_the_options_that_pages_name(line, monkeypatch):
    name, *options = shlex.split(line.partition(": ")[2])
    path = ROOT / name.replace(".", "/")
    module = importlib.import_module(f"{name}.__main__" if path.is_dir() else name)
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    with pytest.raises(SystemExit if "--help" in options else ParsedError):
        module.main(options)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_data_on_pages_can_be_read(page):
    for text in blocks(page, "json"):
        json.loads(text)
    for text in blocks(page, "toml"):
        tomllib.loads(text)
    for text in blocks(page, "yaml"):
        data = yaml.safe_load(text)
        if "d_model" in data:
            assert SearchSpace.from_dict(data).size() > 1
        else:
            assert data["name"] and data.get("kind", "text_classification") in FILE_TASKS


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name
)
def test_python_of_a_page_is_run_by_a_test_that_names_it(page):
    others = [path for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    holders = [path for path in others if f"{page.name}" in path.read_text()]
    assert any(
        '"python"' in path.read_text() or "```python" in path.read_text() for path in holders
    )
