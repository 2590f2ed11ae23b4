"""No function has more than eight parameters. Fields of dataclasses are records, and exempt."""

import ast

import pytest
from sources import ROOT, nodes_of, sources, text_of

MOST = 8


def wide(source):
    """Names of functions in ``source`` with more than ``MOST`` parameters."""
    for node in nodes_of(source):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        arguments = node.args
        names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        names += [a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None]
        if len([name for name in names if name not in ("self", "cls")]) > MOST:
            yield getattr(node, "name", "lambda")


def test_no_function_has_more_than_eight_parameters():
    found = {
        f"{path.relative_to(ROOT)} {name}"
        for path in sources()
        if path.relative_to(ROOT).parts[0] != "experiments"
        for name in wide(text_of(path))
    }
    assert not found


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(a, b, c, d, e, f, g, h): ...", []),
        ("def f(self, a, b, c, d, e, f, g, h): ...", []),
        ("def f(a, b, c, d, e, /, f, g, *, h, i): ...", ["f"]),
        ("def f(a, b, c, d, e, f, g, *h, **i): ...", ["f"]),
        ("lambda a, b, c, d, e, f, g, h, i: 0", ["lambda"]),
    ],
)
def test_parameters_are_counted(source, names):
    assert list(wide(source)) == names
