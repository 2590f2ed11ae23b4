"""An argparse parser that reports errors in one line, with a hint.

Options cannot be abbreviated, so that a new option never changes the meaning of a script. Every
verb takes ``--debug``, before or after its name.
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
    """Parser whose errors name the nearest verb or option."""

    def __init__(self, **settings: Any) -> None:
        """See ``argparse.ArgumentParser``; sub-parsers have this class too."""
        super().__init__(**{"allow_abbrev": False, **settings})
        self._words: list[str] = []
        # Without a default, a verb's parser does not reset a --debug before the verb.
        self.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the traceback of an error",
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """See ``argparse``; report an unknown word as an error of this parser."""
        self._words = list(sys.argv[1:] if args is None else args)
        parsed, rest = super().parse_known_args(self._words, namespace)
        if rest:
            self.error(f"unknown argument {_listed(rest)}")
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        """Report ``message`` in one line and exit with code 2."""
        unknown = self._unknown_option()
        if unknown is not None and message.startswith("the following arguments are required"):
            # argparse reports a mistyped option as missing.
            message = f"unknown argument {unknown!r}; {message}"
        text = f"{message}{self._hint(message, unknown)} (see {self.prog} --help)"
        report_error(self.prog, text, 2, as_json="--json" in self._words)
        self.exit(2)

    def _unknown_option(self) -> str | None:
        """Return the first option of the command line that this parser does not have."""
        options = (word.partition("=")[0] for word in self._words)
        known = {*self._option_string_actions, "--"}
        return next((o for o in options if o.startswith("--") and o not in known), None)

    def _hint(self, message: str, unknown: str | None) -> str:
        from nas.core.nearest import did_you_mean

        wrong = _INVALID.search(message)
        if wrong:
            choices = [str(c) for action in self._actions for c in action.choices or ()]
            return did_you_mean(wrong.group(1), choices)
        return "" if unknown is None else did_you_mean(unknown, self._option_string_actions)


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the verbs of a parser, or the actions of a verb, each with its own parser."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def leaves(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Yield every complete command: its words after ``nas``, and its parser."""
    inner = list(subcommands(parser))
    if not inner:
        yield path, parser
    for name, sub in inner:
        yield from leaves(sub, (*path, name))


def report_error(command: str, text: str, exit_code: int, *, as_json: bool) -> None:
    """Print one line on stderr, and with ``--json`` the same as the one object on stdout.

    A script then always reads one JSON object: the result or ``error``.
    """
    from nas.core.names import printable

    # Messages quote untrusted files, which may contain control characters.
    print(f"{command}: {printable(text)}", file=sys.stderr)
    if as_json:
        error = {"command": command, "message": text, "exit_code": exit_code}
        print(json.dumps({"error": error}, allow_nan=False))


def _listed(words: Sequence[str]) -> str:
    return ", ".join(repr(word) for word in words)
