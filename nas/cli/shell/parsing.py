"""The parser of the command: like argparse's, but it answers in one line and with a hint.

Options are never abbreviated, so that one added later cannot change what a script means. Every
verb takes ``--debug``, before or after it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

_INVALID = re.compile(r"invalid choice: '(.*?)'")


class Parser(argparse.ArgumentParser):
    """A parser whose errors name the nearest verb or option."""

    def __init__(self, **settings: Any) -> None:
        """See ``argparse.ArgumentParser``; its sub-parsers are of this class too."""
        super().__init__(**{"allow_abbrev": False, **settings})
        self._given: list[str] = []
        # Suppressed, so that a verb's parser does not undo what was given before the verb.
        self.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show where an error comes from",
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """See ``argparse``; what a parser does not know is an error of that parser."""
        self._given = list(sys.argv[1:] if args is None else args)
        found, rest = super().parse_known_args(self._given, namespace)
        if rest:
            self.error(f"there is no {_listed(rest)} here")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, and end with exit code 2."""
        text = f"{message}{self._hint(message)} (see {self.prog} --help)"
        report_error(self.prog, text, 2, as_json="--json" in self._given)
        self.exit(2)

    def _hint(self, message: str) -> str:
        from nas.core.nearest import did_you_mean

        wrong = _INVALID.search(message)
        if wrong:
            choices = [str(c) for action in self._actions for c in action.choices or ()]
            return did_you_mean(wrong.group(1), choices)
        known = self._option_string_actions
        for word in self._given:
            option = word.partition("=")[0]
            if option.startswith("--") and option != "--" and option not in known:
                return did_you_mean(option, known)
        return ""


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The verbs of a parser, or the actions of a verb, each with its own parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def leaves(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every command that does something, as its words after ``nas``, with its parser."""
    inner = list(subcommands(parser))
    if not inner:
        yield path, parser
    for name, sub in inner:
        yield from leaves(sub, (*path, name))


def report_error(command: str, text: str, exit_code: int, *, as_json: bool) -> None:
    """One line on stderr, and with ``--json`` the same as the one object on stdout.

    A script that reads JSON so finds an object in any case: the result, or ``error``.
    """
    from nas.core.names import printable

    # Messages quote files, whose control characters a terminal would obey.
    print(f"{command}: {printable(text)}", file=sys.stderr)
    if as_json:
        error = {"command": command, "message": text, "exit_code": exit_code}
        print(json.dumps({"error": error}, allow_nan=False))


def _listed(words: Sequence[str]) -> str:
    return ", ".join(repr(word) for word in words)
