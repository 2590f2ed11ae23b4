"""What may follow each word of a ``nas`` command line, for the scripts that complete it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nas.cli.shell.parsing import subcommands

# Names of arguments that are paths, where their type does not say so.
_PATHS = frozenset({"run", "run_a", "run_b", "warm_start", "predictor", "task", "space"})


@dataclass(frozen=True, slots=True)
class Argument:
    """An option, or a word without one: its ``names`` are then empty.

    ``words`` are the values that it may have where those are known, ``files`` whether it may be a
    path. A flag takes no value.
    """

    names: tuple[str, ...]
    help: str
    takes_value: bool
    words: tuple[str, ...] = ()
    files: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A command by its words after ``nas``: what it takes, and the commands below it."""

    words: str
    help: str
    options: tuple[Argument, ...]
    positionals: tuple[Argument, ...]
    below: tuple[tuple[str, str], ...]


def commands(parser: argparse.ArgumentParser) -> tuple[Command, ...]:
    """``nas`` itself, every verb and every action."""
    return tuple(_walk(parser, "", ""))


def _walk(parser: argparse.ArgumentParser, words: str, text: str) -> Iterator[Command]:
    helps = {
        choice.dest: choice.help or ""
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for choice in action._choices_actions
    }
    plain = [a for a in parser._actions if not isinstance(a, argparse._SubParsersAction)]
    yield Command(
        words,
        text,
        tuple(_argument(a) for a in plain if a.option_strings),
        tuple(_argument(a) for a in plain if not a.option_strings),
        tuple(helps.items()),
    )
    for name, sub in subcommands(parser):
        yield from _walk(sub, f"{words} {name}".strip(), helps[name])


def _argument(action: argparse.Action) -> Argument:
    words = tuple(map(str, action.choices)) if action.choices else _known_words(action.dest)
    return Argument(
        tuple(action.option_strings),
        (action.help or "").replace("%%", "%"),
        action.nargs != 0,
        words if action.nargs != 0 else (),
        action.type is Path or action.dest in _PATHS,
    )


@cache
def _known_words(name: str) -> tuple[str, ...]:
    """The names that come with the project for an argument; plug-ins may add to them."""
    # Imported here: the registries import numpy, and nas --help has no need of them.
    if name == "task":
        from nas.tasks.registry import TASKS

        return tuple(TASKS)
    if name == "space":
        from search_spaces.space.presets import PRESETS

        return tuple(PRESETS)
    if name == "recipe":
        from nas.searching.recipes import recipe_names

        return tuple(recipe_names())
    if name in ("protocol", "regime"):
        from predictors.measurement.protocol import PROTOCOLS, REGIMES

        return tuple(PROTOCOLS) if name == "protocol" else REGIMES
    if name == "sampler":
        from nas.records.config import SAMPLERS

        return SAMPLERS
    if name == "objective":
        from nas.records.goals import COSTS

        return tuple(COSTS)
    if name == "evaluator":
        from nas.cli.options.search_options import EVALUATORS

        return EVALUATORS
    if name == "meter":
        from predictors.meters.select import meter_names

        return meter_names()
    return ("cpu", "cuda:0") if name == "device" else ()
