"""What a card says to people of the forms beside the artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.core.markdown import code, plain
from nas.tasks.base.metric import get_metric
from predictors.meters.board import Board, describe_limits
from predictors.meters.flags import NOT_CONVERGED, describe_flags


def describe_forms(card: Mapping[str, Any]) -> str:
    """A table with a row for each form and what is needed to read it; empty where there are none.

    ``card`` is that of ``card.make_card`` with its ``formats`` filled in.
    """
    if not card["formats"]:
        return ""
    metric = get_metric(card["metric"])
    rows, notes = [], []
    for name, form in card["formats"].items():
        verified = form["verified"]
        reading = verified["reading"]
        size = sum(form["files"].values())
        rows.append(
            f"| {name} ({form['title']}) | {', '.join(f'`{file}`' for file in form['files'])} | "
            f"{size:,} | {metric.text(verified['validation_quality'])} | "
            f"{metric.text(verified['test_quality'], verified['test_quality_se'])} | "
            f"{reading['energy_j']:.4g} [{reading['low_j']:.4g}, {reading['high_j']:.4g}] |"
        )
        notes.append(f"- {name}: {_note(form, metric.name)}")
    unit = next(iter(card["formats"].values()))["verified"]["reading"]["unit"]
    return "\n".join(
        [
            "\n## Other formats\n",
            f"| format | files | bytes | validation {metric.name} | test {metric.name} | "
            f"joules per {plain(unit)} |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            "Each was reloaded and run in a fresh process, where outputs, quality and joules",
            "were found anew. Joules are those of the named runtime, not of the search's.",
            "",
            *notes,
            "",
        ]
    )


def joules_are(reading: Mapping[str, Any]) -> str:
    """Whether joules are measured, by what, where, and by which protocol."""
    label = "an estimate" if reading["is_estimate"] else f"measured by {plain(reading['meter'])}"
    return (
        f"{label} ({plain(reading['source'])}) on {plain(board_of(reading))}, "
        f"batch {reading['batch_size']}, protocol {code(reading['protocol_hash'])}"
    )


def board_of(reading: Mapping[str, Any]) -> str:
    """The device and, where they are known, the limits of its board."""
    board = reading["board"]
    limits = "" if board is None else describe_limits(Board.from_dict(board).limits)
    return f"{reading['device']} limited to {limits}" if limits else str(reading["device"])


def flags_of(reading: Mapping[str, Any]) -> str:
    """A sentence on what went wrong while joules were measured, empty where nothing did."""
    flags = [*reading["flags"], *([] if reading["converged"] else [NOT_CONVERGED])]
    return f" Flags of these joules: {describe_flags(flags)}." if flags else ""


def _note(form: Mapping[str, Any], metric: str) -> str:
    verified = form["verified"]
    shape = ", ".join(["batch", *map(str, form["inputs"])])
    opset = f"opset {form['opset']}, " if "opset" in form else ""
    if verified["output_tolerance"] is None:
        judged = (
            f"judged by {metric} on validation data, of which it may lose "
            f"{verified['quality_tolerance']:g}; outputs differ by "
            f"{verified['output_difference']:.2g} at most"
        )
    else:
        judged = (
            f"outputs differ by {verified['output_difference']:.2g} at most (allowed "
            f"{verified['output_tolerance']:.2g})"
        )
    runtime, joules = plain(verified["runtime"]), joules_are(verified["reading"])
    needs = f"needs {' and '.join(form['needs'])}; " if "needs" in form else ""
    return (
        f"{opset}inputs ({shape}) with a batch of any size; {judged}; {needs}run by "
        f"{runtime} ({verified['mode']}); joules: {joules}."
        f"{flags_of(verified['reading'])}"
    )
