"""Queries of a front: budgets, a baseline's quality, a lifetime, one or a few members."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.options.limits import BUDGET_HELP, add_limits, requested_limits
from nas.core.units import format_bytes, format_grams, format_joules, format_milliseconds

if TYPE_CHECKING:
    from nas.analysis.summary import SearchSummary
    from nas.exporting.formats.registry import ExportableFront
    from nas.pareto.lifetime import Lifetime
    from nas.pareto.queries import Front
    from nas.records.trial import Trial
    from nas.store.run import Run

FIRST_BASELINE = "baseline"
# Option, field of a member, text of its values, and what follows the text.
_LIMITS: tuple[tuple[str, str, Callable[[float], str], str], ...] = (
    ("max_latency_ms", "latency_s", format_milliseconds, ""),
    ("max_params", "params", lambda n: f"{n:,.0f}", " parameters"),
    ("max_memory", "peak_memory_bytes", format_bytes, ""),
)


def add_query(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose members by their own figures."""
    parser.add_argument("--max-joules", help=BUDGET_HELP)
    parser.add_argument(
        "--min-quality",
        metavar="SCORE",
        help="minimum quality on validation data in the metric's own unit: 84%%, 2.7 bits (at "
        "most) or 21 BLEU",
    )
    add_limits(parser)
    parser.add_argument(
        "--exportable",
        action="append",
        metavar="FORMAT",
        help="front of the trials that a format of nas export supports, such as onnx (repeatable)",
    )
    one = parser.add_mutually_exclusive_group()
    one.add_argument(
        "--recommended",
        action="store_true",
        help="the member with the fewest joules within one standard error of the best quality",
    )
    one.add_argument(
        "--knee",
        action="store_true",
        help="the member at the knee of the front; an error if it has none",
    )


def add_questions(parser: argparse.ArgumentParser) -> None:
    """Add the options that compare, rank or thin out members."""
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


def queried_front(run: Run, arguments: argparse.Namespace) -> tuple[Front, ExportableFront | None]:
    """Return the members that the options of ``add_query`` allow, except the choice of one.

    The second value describes what ``--exportable`` left out, ``None`` without it.

    Raises:
        ValueError: an option is out of range, or no member of a front that has some qualifies.
    """
    if arguments.exportable is None:
        exportable, front = None, _limited_front(run, arguments)
    else:
        from nas.exporting.formats.registry import exportable_front

        names = [name.strip() for text in arguments.exportable for name in text.split(",")]
        exportable = exportable_front(run, names, requested_limits(arguments))
        front = exportable.front
    limits = {"max_joules": arguments.max_joules, "min_quality": arguments.min_quality}
    return _checked_within(front, **limits), exportable


def _checked_within(front: Front, **limits: Any) -> Front:
    """Return ``front.within(**limits)``; raise, with the extent of the front, if it is empty."""
    if any(limit is not None for limit in limits.values()):
        members = front.within(**limits)
        if not len(members):
            front.best(**limits)
        return members
    return front


def _limited_front(run: Run, arguments: argparse.Namespace) -> Front:
    """Return the front of the trials that satisfy the requested constraints.

    Raises:
        ValueError: no trial does, although the run has a front.
    """
    front = run.front(requested_limits(arguments))
    unlimited = front if len(front) else run.front()
    if len(unlimited) > len(front) == 0:
        extent: list[str] = []
        requested = []
        for option, field, text, unit in _LIMITS:
            if (limit := getattr(arguments, option)) is not None:
                values = [v for m in unlimited if (v := getattr(m, field)) is not None]
                requested.append(f"{option} {limit}")
                extent += [f"{text(min(values))} to {text(max(values))}{unit}"] if values else []
        raise ValueError(
            f"no complete trial satisfies {' and '.join(requested)}: the front has "
            f"{' and '.join(extent) or 'no such figure'}"
        )
    return front


@dataclass(frozen=True, slots=True)
class Answer:
    """Members in the order of display, and the trial they are compared with.

    With lifetimes, members are ordered by lifetime joules, the best first.
    """

    front: Front
    baseline: Trial | None = None
    lifetimes: tuple[Lifetime, ...] = ()
    exportable: ExportableFront | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON fields beside members."""
        data: dict[str, Any] = {}
        if self.baseline is not None:
            quality, energy_j = self.baseline.objectives
            data["at_least_as_accurate_as"] = {
                "trial": self.baseline.number,
                "quality": quality,
                "energy_j": energy_j,
            }
        if self.exportable is not None:
            data["exportable"] = {
                "formats": list(self.exportable.formats),
                "excluded": {why: list(at) for why, at in self.exportable.excluded.items()},
            }
        if self.lifetimes:
            data["lifetimes"] = [asdict(x) | {"energy_j": x.energy_j} for x in self.lifetimes]
        return data

    def csv_fields(self) -> list[dict[str, Any]]:
        """Return the CSV fields of each member beside its own."""
        if not self.lifetimes:
            return [{} for _ in self.front]
        return [
            {
                "lifetime_inferences": lifetime.inferences,
                "lifetime_energy_j": lifetime.energy_j,
                "lifetime_carbon_g": lifetime.carbon_g,
                "inferences_to_break_even": lifetime.inferences_to_break_even,
            }
            for lifetime in self.lifetimes
        ]

    @property
    def _breaks_even(self) -> bool:
        return any(x.inferences_to_break_even is not None for x in self.lifetimes)

    def columns(self) -> list[tuple[str, list[str], bool]]:
        """Return further columns of the table, as ``nas.analysis.front_table`` does."""
        columns = []
        if self.baseline is not None:
            baseline_j = self.baseline.objectives[1]
            ratios = [f"{baseline_j / m.energy_j:.3g}x" for m in self.front]
            columns.append((f"fewer joules than trial {self.baseline.number}", ratios, False))
        if self.lifetimes:
            energies = [format_joules(x.energy_j) for x in self.lifetimes]
            columns += [
                (f"lifetime of {self.lifetimes[0].inferences:g}", energies, False),
                ("CO2e", [format_grams(x.carbon_g) for x in self.lifetimes], False),
            ]
        if self._breaks_even:
            counts = [x.inferences_to_break_even for x in self.lifetimes]
            texts = ["never" if n is None else f"{n:,.0f}" for n in counts]
            columns.append(("breaks even after", texts, False))
        return columns

    def notes(self, summary: SearchSummary) -> list[str]:
        """Return the notes under the table."""
        notes = [] if self.exportable is None else [self.exportable.describe()]
        if self.lifetimes:
            first = self.lifetimes[0]
            notes.append(
                f"lifetime: training once and {first.inferences:g} {summary.unit}s, CO2e at "
                f"{summary.carbon_g_per_kwh:g} g/kWh; the fewest joules: trial {first.trial}"
            )
        if self._breaks_even:
            notes.append(
                f"breaks even after: {summary.unit}s until the "
                f"{format_joules(summary.spent_energy_j)} of the whole search are saved against "
                f"trial {summary.baseline_trial}"
            )
        return notes


def named_baseline(run: Run, text: str) -> Trial:
    """Return the complete trial that ``--at-least-as-accurate-as`` names.

    Raises:
        ValueError: there is no such trial.
    """
    from nas.records.trial import judged

    complete = judged(run.trials())
    if text == FIRST_BASELINE:
        trials = [r for r in complete if r.baseline]
        lack = f"no baseline of run {run.folder} is complete"
    elif text.isascii() and text.isdecimal():
        trials = [r for r in complete if r.number == int(text)]
        lack = f"trial {text} of run {run.folder} is not complete"
    else:
        trials = _by_file(complete, text)
        lack = f"no complete trial of run {run.folder} has the architecture of {text}"
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
    run: Run, front: Front, arguments: argparse.Namespace, summary: SearchSummary
) -> Answer:
    """Narrow and order the queried ``front``; ``summary`` has the baseline of savings.

    Raises:
        ValueError: an option is out of range, or no member qualifies.
    """
    from nas.pareto.lifetime import lifetimes
    from nas.pareto.queries import Front
    from nas.records.trial import judged

    if arguments.top is not None and (arguments.knee or arguments.recommended):
        option = "--knee" if arguments.knee else "--recommended"
        raise ValueError(f"top must be left out with {option}, which is one member")
    baseline = None
    if arguments.at_least_as_accurate_as is not None:
        baseline = named_baseline(run, arguments.at_least_as_accurate_as)
        front = _checked_within(front, min_quality=baseline.objectives[0])
    if arguments.top is not None:
        front = front.diverse(arguments.top)
    # --knee and --recommended choose among the members that every other option leaves.
    front = one_member(front, arguments)
    if arguments.inferences is None:
        return Answer(front, baseline)
    by_number = {trial.number: trial.objectives for trial in judged(run.trials())}
    savings_from = summary.baseline_trial
    lives = lifetimes(
        front,
        inferences=arguments.inferences,
        carbon_g_per_kwh=summary.carbon_g_per_kwh,
        search_energy_j=summary.spent_energy_j,
        shared_energy_j=_shared_energy_j(run, summary),
        baseline_energy_j=None if savings_from is None else by_number[savings_from][1],
    )
    by_trial = {m.trial: m for m in front}
    ordered = Front(tuple(by_trial[x.trial] for x in lives), front.costs)
    return Answer(ordered, baseline, tuple(lives))


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


def _shared_energy_j(run: Run, summary: SearchSummary) -> float:
    """Return the training joules of the teacher and supernet that every member depends on."""
    total_j = 0.0
    for name, is_used, energy_j in (
        ("teacher", run.config.teacher == "largest", summary.teacher_energy_j),
        ("supernet", run.config.supernet is not None, summary.supernet_energy_j),
    ):
        if is_used and energy_j is None:
            raise ValueError(
                f"--inferences needs the joules that training the {name} took, unknown in this run"
            )
        total_j += energy_j or 0.0
    return total_j
