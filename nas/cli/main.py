"""The ``nas`` command: parses, calls one verb, turns expected errors into one line.

Exit codes: 0 done, 1 failed while doing it, 2 bad input, 130 ended by Ctrl-C. Results go to
stdout, progress and errors to stderr. Verb modules import what is heavy inside ``run``, so that
``nas --help`` imports neither torch, ray nor optuna.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from nas.cli.errors import is_bad_input

# One module per verb, in the order of ``nas --help``.
VERBS = (
    "search",
    "resume",
    "front",
    "explain",
    "compare",
    "plot",
    "export",
    "measure",
    "predictor",
    "check-data",
    "doctor",
)
# Characters of an error.
_LONGEST_MESSAGE = 1000


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="nas",
        description="Search Transformer architectures for accuracy against measured joules.",
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        _module(verb).add_parser(subparsers)
    return parser


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"nas.cli.{verb.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        return int(_module(arguments.verb).run(arguments))
    except KeyboardInterrupt:
        print("nas: ended by Ctrl-C", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe went away, as ``nas front RUN | head`` does: not an error.
        sys.stderr.close()
        return 0
    except Exception as error:
        if arguments.debug:
            raise
        lines = str(error).strip().splitlines()
        # Of what somebody else wrote, a message may quote a great deal.
        text = lines[0][:_LONGEST_MESSAGE] if lines else "no message"
        if is_bad_input(error):
            print(f"nas {arguments.verb}: {text}", file=sys.stderr)
            return 2
        print(
            f"nas {arguments.verb}: {type(error).__name__}: {text} (--debug shows where)",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
