"""The project's source files, each parsed once in a process of tests."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
OURS = ("nas", "predictors", "search_spaces", "experiments")


@cache
def sources():
    """Every file of ``OURS``, in order."""
    return tuple(path for top in OURS for path in sorted((ROOT / top).rglob("*.py")))


@cache
def text_of(path):
    return path.read_text()


@cache
def tree_of(text):
    return ast.parse(text)


@cache
def nodes_of(text):
    """All nodes of a source text."""
    return tuple(ast.walk(tree_of(text)))
