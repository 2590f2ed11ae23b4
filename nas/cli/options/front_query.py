"""Queries of a front beyond budgets: a baseline's quality, a lifetime, a few members."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.core.units import format_grams, format_joules

if TYPE_CHECKING:
    from nas.analysis.summary import SearchSummary
    from nas.exporting.formats.registry import ExportableFront
    from nas.pareto.lifetime import Lifetime
    from nas.pareto.queries import Front, FrontMember
    from nas.records.trial import Trial
    from nas.store.run import Run

FIRST_BASELINE = "baseline"


def add_questions(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--at-least-as-accurate-as",
        metavar="BASELINE",
        help="members with at least the validation quality of a trial: its number, its "
        "architecture file, or 'baseline' for the first of the search",
    )
    parser.add_argument(
        "--inferences",
        type=float,
        metavar="N",
        help="rank by joules of training and N inferences (tokens where joules are per token), "
        "such as 1e9",
    )
    parser.add_argument(
        "--top", type=int, metavar="K", help="K members spread over the whole front"
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """Members in the order of display, and the trial they are compared with.

    With lifetimes, members are ordered by lifetime joules, the best first.
    """

    front: Front
    baseline: Trial | None = None
    lifetimes: tuple[Lifetime, ...] = ()
    held: ExportableFront | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON fields beside members."""
        found: dict[str, Any] = {}
        if self.baseline is not None:
            quality, energy_j = self.baseline.objectives
            found["at_least_as_accurate_as"] = {
                "trial": self.baseline.number,
                "quality": quality,
                "energy_j": energy_j,
            }
        if self.held is not None:
            found["exportable"] = {
                "forms": list(self.held.formats),
                "left_out": {why: list(at) for why, at in self.held.excluded.items()},
            }
        if self.lifetimes:
            found["lifetimes"] = [asdict(x) | {"energy_j": x.energy_j} for x in self.lifetimes]
        return found

    def flat(self) -> list[dict[str, Any]]:
        """Return the CSV fields of each member beside its own."""
        found: list[dict[str, Any]] = [{} for _ in self.front]
        for row, lifetime in zip(found, self.lifetimes, strict=bool(self.lifetimes)):
            row |= {
                "lifetime_inferences": lifetime.inferences,
                "lifetime_energy_j": lifetime.energy_j,
                "lifetime_carbon_g": lifetime.carbon_g,
                "inferences_to_break_even": lifetime.inferences_to_break_even,
            }
        return found

    def columns(self) -> list[tuple[str, list[str]]]:
        """Return further table columns: a head and a cell for each member."""
        found = []
        if self.baseline is not None:
            baseline_j = self.baseline.objectives[1]
            ratios = [f"{baseline_j / m.energy_j:.3g}x" for m in self.front]
            found.append((f"fewer joules than trial {self.baseline.number}", ratios))
        if self.lifetimes:
            first = self.lifetimes[0]
            found += [
                (
                    f"lifetime of {first.inferences:g}",
                    [format_joules(x.energy_j) for x in self.lifetimes],
                ),
                ("CO2e", [format_grams(x.carbon_g) for x in self.lifetimes]),
            ]
            if any(x.inferences_to_break_even is not None for x in self.lifetimes):
                found.append(("breaks even after", [_break_even(x) for x in self.lifetimes]))
        return found

    def notes(self, summary: SearchSummary) -> list[str]:
        """Return the notes under the table."""
        found = [] if self.held is None else [self.held.describe()]
        if not self.lifetimes:
            return found
        first = self.lifetimes[0]
        per_kwh = f"{summary.carbon_g_per_kwh:g} g/kWh"
        found += [
            f"lifetime: training once and {first.inferences:g} {summary.unit}s, CO2e at "
            f"{per_kwh}; the fewest joules: trial {first.trial}"
        ]
        if any(x.inferences_to_break_even is not None for x in self.lifetimes):
            found.append(
                f"breaks even after: {summary.unit}s until the "
                f"{format_joules(summary.spent_energy_j)} of the whole search are saved against "
                f"trial {summary.baseline_trial}"
            )
        return found


def named_baseline(found: Run, text: str) -> Trial:
    """Return the complete trial that ``--at-least-as-accurate-as`` names.

    Raises:
        ValueError: there is no such trial.
    """
    from nas.records.trial import judged

    complete = judged(found.trials())
    if text == FIRST_BASELINE:
        trials = [r for r in complete if r.baseline]
        lack = f"no baseline of run {found.folder} is complete"
    elif text.isascii() and text.isdecimal():
        trials = [r for r in complete if r.number == int(text)]
        lack = f"trial {text} of run {found.folder} is not complete"
    else:
        trials = _by_file(complete, text)
        lack = f"no complete trial of run {found.folder} has the architecture of {text}"
    if not trials:
        raise ValueError(
            f"at_least_as_accurate_as must be a complete trial's number, an architecture file or "
            f"{FIRST_BASELINE!r}, got {text!r}: {lack}"
        )
    return trials[0]


def _by_file(complete: Sequence[Trial], text: str) -> list[Trial]:
    from nas.cli.options.architecture_files import read_named

    if not Path(text).exists():
        return []
    hashes = {named.architecture.hash for named in read_named(Path(text))}
    if len(hashes) > 1:
        raise ValueError(f"{text} must hold one architecture to compare with, got {len(hashes)}")
    return [r for r in complete if r.architecture.hash in hashes]


def answer(
    found: Run,
    chosen: Front,
    arguments: argparse.Namespace,
    summary: SearchSummary,
    held: ExportableFront | None = None,
) -> Answer:
    """Narrow ``chosen`` by the options.

    ``summary`` is the run's, with the baseline of savings; ``held`` is the front of
    ``--exportable``.

    Raises:
        ValueError: an option is out of range, or no member qualifies.
    """
    from nas.pareto.lifetime import lifetimes
    from nas.pareto.queries import Front

    if arguments.top is not None and (arguments.knee or arguments.recommended):
        option = "--knee" if arguments.knee else "--recommended"
        raise ValueError(f"top must be left out with {option}, which is one member")
    baseline = None
    if arguments.at_least_as_accurate_as is not None:
        baseline = named_baseline(found, arguments.at_least_as_accurate_as)
        least = baseline.objectives[0]
        # Raises, with the extent of the front, if no member qualifies.
        chosen.best(min_quality=least)
        chosen = chosen.within(min_quality=least)
    if arguments.top is not None:
        chosen = chosen.diverse(arguments.top)
    chosen = one_member(chosen, arguments)
    if arguments.inferences is None:
        return Answer(chosen, baseline, held=held)
    lives = lifetimes(
        chosen,
        inferences=arguments.inferences,
        carbon_g_per_kwh=summary.carbon_g_per_kwh,
        search_energy_j=summary.spent_energy_j,
        shared_energy_j=_shared_energy_j(found, summary),
        baseline_energy_j=None
        if summary.baseline_trial is None
        else _energy_j(found, summary.baseline_trial),
    )
    by_trial: dict[int, FrontMember] = {m.trial: m for m in chosen}
    ordered = Front(tuple(by_trial[x.trial] for x in lives), chosen.costs)
    return Answer(ordered, baseline, tuple(lives), held)


def one_member(front: Front, arguments: argparse.Namespace) -> Front:
    """Return the member of ``--recommended`` or ``--knee``, or all of ``front``.

    Raises:
        ValueError: the front has no knee.
    """
    from nas.pareto.queries import Front

    if arguments.recommended:
        return Front((front.recommended(),), front.costs)
    if not arguments.knee:
        return front
    # Raises for an empty front, which has no extent to report.
    front.best()
    member = front.knee()
    if member is None:
        raise ValueError(
            f"this front of {len(front)} member{'s' * (len(front) != 1)} has no knee: no member "
            f"stands clearly above the line between its ends; --recommended chooses by standard "
            f"errors"
        )
    return Front((member,), front.costs)


def _shared_energy_j(found: Run, summary: SearchSummary) -> float:
    """Return the training joules of the teacher and supernet that every member depends on."""
    total_j = 0.0
    for what, there, energy_j in (
        ("teacher", found.config.teacher == "largest", summary.teacher_energy_j),
        ("supernet", found.config.supernet is not None, summary.supernet_energy_j),
    ):
        if there and energy_j is None:
            raise ValueError(
                f"--inferences needs the joules that training the {what} took, unknown in this run"
            )
        total_j += energy_j or 0.0
    return total_j


def _energy_j(found: Run, number: int) -> float:
    return next(r for r in found.trials() if r.number == number).objectives[1]


def _break_even(lifetime: Lifetime) -> str:
    count = lifetime.inferences_to_break_even
    return "never" if count is None else f"{count:,.0f}"
