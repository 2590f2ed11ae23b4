"""How many records a slice leaves: ``python -m experiments.campaign.simulation``.

A simulation: nothing is measured. A stated clock moves by stated seconds for each fresh process,
each kind of layer that is compiled, and each item's windows; kernels may be said to fail or to
hang. It runs the campaign's own plan and slices.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.campaign.planned import make_plan, protocol_of
from experiments.formula import formula_record
from nas.cli.output.tables import render_columns
from predictors.campaign.costs import ItemCosts, held_s
from predictors.campaign.failures import compression_choices
from predictors.campaign.plan import Plan, PlanItem
from predictors.campaign.slices import SliceOptions, run_slice
from predictors.measurement.process import MeasureError, MeasureTimeout
from predictors.measurement.protocol import Protocol
from predictors.measurement.records import EnergyRecord, read_records
from search_spaces.architecture import PRECISIONS, SPARSITIES

# The step of the counter that the protocols were made for.
TICK_S = 0.1
_CHOICES = (*PRECISIONS, *SPARSITIES)


class SimulatedBoard:
    """Takes the stated seconds for each item, and returns a record that holds no measured figure.

    With ``overlaps`` a process starts while another's windows run, as the campaign does on a GPU.
    """

    def __init__(
        self,
        costs: ItemCosts,
        protocol: Protocol,
        *,
        overlaps: bool = False,
        fails: Collection[str] = (),
        hangs: Collection[str] = (),
    ) -> None:
        """``fails`` and ``hangs`` are precisions and sparsities whose kernels do so."""
        self._costs, self._protocol, self._overlaps = costs, protocol, overlaps
        self._fails, self._hangs = frozenset(fails), frozenset(hangs)
        self._now_s, self._is_first = 0.0, True

    def clock(self) -> float:
        """Simulated seconds."""
        return self._now_s

    def seconds(self, item: PlanItem) -> float:
        """From the end of the measurement before to the end of this one."""
        hidden_s = self._costs.process_s if self._overlaps and not self._is_first else 0.0
        return self._costs.seconds(item) - min(hidden_s, self._costs.windows_s)

    def __call__(self, item: PlanItem, timeout_s: float | None) -> EnergyRecord:
        """See ``predictors.campaign.slices.MeasureItem``."""
        seconds = self.seconds(item)
        self._is_first = False
        limit_s = float("inf") if timeout_s is None else timeout_s
        choices = {"fp32", "bf16"} & {b.compression.precision for b in item.architecture.blocks}
        choices |= set(compression_choices(item.architecture))
        if self._hangs & choices or seconds > limit_s:
            self._now_s += limit_s
            raise MeasureTimeout(f"measuring took longer than {limit_s:g} s")
        if self._fails & choices:
            self._now_s += self._costs.process_s
            raise MeasureError("the kernel is said to fail")
        self._now_s += seconds
        # A nominal joule: slices count records and do not read their joules.
        return formula_record(item.architecture, item.workload, 1.0, self._protocol)


@dataclass(frozen=True, slots=True)
class SliceCount:
    """Records of one simulated slice; ``seconds`` is the simulated time that it took."""

    number: int
    records: int
    references: int
    quantised: int
    failed: int
    set_aside: int
    seconds: float


def simulate(
    plan: Plan,
    board: SimulatedBoard,
    costs: ItemCosts,
    *,
    slice_s: float,
    n_slices: int,
) -> list[SliceCount]:
    """Run slices of ``plan`` one after another until all is measured."""
    counts: list[SliceCount] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "simulated.jsonl"
        n_before = n_failed = 0
        options = SliceOptions(budget_s=slice_s, sets_aside=True, item_s=costs.seconds)
        for number in range(1, n_slices + 1):
            started_s = board.clock()
            try:
                progress = run_slice(plan, path, board, options, clock=board.clock)
            except MeasureError:
                if counts:
                    # What is left is only what fails, the reference with it.
                    break
                raise
            records = read_records(path).records[n_before:] if path.exists() else ()
            if not records:
                break
            counts.append(
                SliceCount(
                    number,
                    len(records),
                    sum(r.role == "reference" for r in records),
                    sum(bool(set(compression_choices(r.architecture)) - {"2:4"}) for r in records),
                    progress.failed - n_failed,
                    progress.set_aside,
                    board.clock() - started_s,
                )
            )
            n_before, n_failed = n_before + len(records), progress.failed
    return counts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.campaign.simulation", description=__doc__
    )
    parser.add_argument("--protocol", help="brief (default), screening or final")
    parser.add_argument("--slice-s", type=float, default=480.0, help="seconds (default: 480)")
    parser.add_argument("--slices", type=int, default=6, help="how many at most (default: 6)")
    parser.add_argument(
        "--process-s", type=float, default=5.0, help="a fresh process (default: 5)"
    )
    parser.add_argument(
        "--compile-s", type=float, default=40.0, help="a kind of layer (default: 40)"
    )
    parser.add_argument(
        "--windows-s",
        type=float,
        help="holding the device (default: what the protocol does at least, warm-up included, "
        "with a counter that steps each 0.1 s)",
    )
    parser.add_argument(
        "--overlap", action="store_true", help="a process starts while another's windows run"
    )
    for option in ("fails", "hangs"):
        parser.add_argument(
            f"--{option}",
            action="append",
            default=[],
            choices=_CHOICES,
            metavar="CHOICE",
            help=f"a precision or sparsity whose kernel {option} (may be given again)",
        )
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Print the records of each slice."""
    arguments = _parser().parse_args(argv)
    try:
        for name in ("slice_s", "slices", "process_s", "compile_s", "windows_s"):
            value = getattr(arguments, name)
            if value is not None and not 0 < value < float("inf"):
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} must be finite and > 0, got {value!r}")
        protocol = protocol_of("cuda:0", arguments.protocol)
    except ValueError as error:
        print(f"simulation: {error}", file=sys.stderr)
        return 2
    windows_s = arguments.windows_s or held_s(protocol, TICK_S)
    costs = ItemCosts(arguments.process_s, arguments.compile_s, windows_s)
    plan = make_plan("cuda:0", protocol, costs.seconds)
    board = SimulatedBoard(
        costs,
        protocol,
        overlaps=arguments.overlap,
        fails=arguments.fails,
        hangs=arguments.hangs,
    )
    try:
        counts = simulate(plan, board, costs, slice_s=arguments.slice_s, n_slices=arguments.slices)
    except MeasureError as error:
        print(f"simulation: nothing could be measured: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({"costs": asdict(costs), "slices": [asdict(c) for c in counts]}))
        return 0
    head = ("slice", "records", "references", "quantised", "failed", "set aside", "seconds")
    print(render_columns(head, [tuple(str(round(v)) for v in asdict(c).values()) for c in counts]))
    print(
        f"simulated, protocol {protocol.name}: a process {costs.process_s:g} s"
        f"{' (overlapped)' if arguments.overlap else ''}, a kind of layer {costs.compile_s:g} s, "
        f"windows {costs.windows_s:.3g} s; {len(plan.items)} items planned"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
