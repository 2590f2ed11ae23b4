"""The ``nas`` command: parse, call one verb, report an expected error in one line.

Exit codes: 0 done, 1 failed while doing it, 2 bad input, 130 ended by Ctrl-C, 143 by SIGTERM, 129
by SIGHUP.
Results go to stdout, progress and errors to stderr. With ``--json`` stdout holds one object: the
result or ``{"error": ...}``. Verb modules import heavy packages inside ``run``, so that
``nas --help`` imports neither torch, ray nor optuna.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from nas.cli.shell.parsing import Parser, report_error
from nas.core import interrupts
from nas.core.printing import print_anything

# Set before numpy is imported: its matrices are small here, and on busy cores its threads make
# fitting a predictor five times slower. Torch's threads, used in training, are not affected.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# One module per verb, in the order of ``nas --help``.
VERBS = (
    "search",
    "resume",
    "calibrate",
    "front",
    "explain",
    "compare",
    "plot",
    "report",
    "export",
    "measure",
    "predictor",
    "check-data",
    "doctor",
    "completion",
)
_LONGEST_MESSAGE = 1000
# Bad input beside ``ValueError`` and ``OSError``. Compared by name: importing their modules would
# import optuna, ray or torch at start-up.
_BAD_INPUT = {"StorageError", "RunBusyError", "ClusterError", "MeterError", "RemoteError"}


class _Version(argparse.Action):
    """Look up and print the version, which is slow and therefore not done for other options."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print the version and exit."""
        from importlib.metadata import version

        print(f"nas {version('joulenas')}")
        parser.exit()


def build_parser() -> Parser:
    """Return the parser of the whole command."""
    parser = Parser(
        prog="nas",
        description="Search Transformer architectures for quality under measured joules.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        module = _module(verb)
        module.add_options(subparsers.add_parser(verb, help=module.HELP))
    return parser


def is_bad_input(error: BaseException) -> bool:
    """Return whether other input would avoid ``error`` (exit code 2, else 1)."""
    return isinstance(error, ValueError | OSError) or type(error).__name__ in _BAD_INPUT


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"nas.cli.commands.{verb.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    print_anything()
    try:
        try:
            with interrupts.handled():
                return _run(build_parser().parse_args(argv))
        finally:
            # An error at the interpreter's exit could not be caught.
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader closed the pipe, as in ``nas front RUN | head``: not an error. Python would
        # report the unwritten buffer at its exit.
        _silence_stdout()
        return 0


def _run(arguments: argparse.Namespace) -> int:
    """Run the parsed verb; raise nothing but a closed pipe."""
    command = f"nas {arguments.verb}"
    as_json = bool(getattr(arguments, "json", False))
    try:
        return int(_module(arguments.verb).run(arguments))
    except KeyboardInterrupt:
        code = interrupts.exit_code()
        report_error("nas", f"ended by {interrupts.name_of_end()}", code, as_json=as_json)
        if code != 128 + signal.SIGINT:
            # The signal must end the process, not its command alone.
            raise SystemExit(code) from None
        return code
    except BrokenPipeError:
        raise
    except Exception as error:
        if getattr(arguments, "debug", False):
            raise
        lines = str(error).strip().splitlines()
        # A message may quote a long part of an untrusted file.
        text = lines[0][:_LONGEST_MESSAGE] if lines else "no message"
        if is_bad_input(error):
            report_error(command, text, 2, as_json=as_json)
            return 2
        text = f"{type(error).__name__}: {text} (--debug shows where)"
        report_error(command, text, 1, as_json=as_json)
        return 1


def _silence_stdout() -> None:
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
    except (OSError, ValueError):
        # stdout has no file descriptor, as under a test's capture.
        return


if __name__ == "__main__":
    sys.exit(main())
