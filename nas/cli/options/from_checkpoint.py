"""``nas search --from``: which options it takes."""

from __future__ import annotations

import argparse

# Options that choose a start of candidates, which is the checkpoint, with the value of none.
_OTHER_STARTS = {
    "recipe": None,
    "teacher": None,
    "distill": False,
    "inherit": False,
    "halving": False,
    "evaluator": None,
}
_OWN = {"no_fine_tune": False, "hours": None}


def check_from(arguments: argparse.Namespace) -> None:
    """Raise ``ValueError`` unless the options go with ``--from``, or with its absence."""
    if arguments.checkpoint is None:
        for name, unset in _OWN.items():
            if getattr(arguments, name) != unset:
                raise ValueError(f"{_option(name)} requires --from DIR: add it, or leave it out")
        return
    for name, unset in _OTHER_STARTS.items():
        value = getattr(arguments, name)
        if value != unset:
            shown = f"the recipe {value!r}" if name == "recipe" else _option(name)
            raise ValueError(
                f"--from DIR starts every candidate from the checkpoint, which is also the "
                f"teacher: leave out {shown}"
            )
    if arguments.task is None:
        raise ValueError("--from DIR requires --task FILE, the task of the search, got none")
    if arguments.hours is not None and arguments.trials is not None:
        raise ValueError("--hours and --trials both set the number of trials: leave one out")
    if arguments.finalists is not None and arguments.finalists < 0:
        raise ValueError(f"--finalists must be >= 0 with --from, got {arguments.finalists}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
