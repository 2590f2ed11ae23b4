"""How good a file of records is: ``python -m experiments.campaign_report RECORDS``.

Prints a table of what was measured, repeatability (between halves of one job's windows, and
between jobs), drift and flags, and Kendall's tau of energy against FLOPs; ``--plot`` draws them.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scipy.stats import kendalltau

from nas.core.printing import print_anything
from predictors.measurement.drift import DriftReport, correct_drift
from predictors.measurement.records import EnergyRecord, read_records
from search_spaces.cost.counting import count


@dataclass(frozen=True, slots=True)
class CampaignReport:
    """Figures of one device and protocol. Errors are relative; ``None`` where nothing tells.

    ``split_half`` is the median difference of the medians of a job's odd and even windows;
    ``across_jobs`` that of the same architecture measured in two processes, raw and corrected
    for drift.
    """

    device: str
    source: str
    is_estimate: bool
    n_architectures: int
    n_records: int
    converged: float
    half_width: float
    split_half: float
    across_jobs_raw: float | None
    across_jobs: float | None
    n_repeated: int
    tick_s: float | None
    idle_power_w: float | None
    power_w: tuple[float, float]
    flags: dict[str, int]
    tau_flops: dict[str, float]
    drift: tuple[DriftReport, ...]
    versions: dict[str, str]


def report(records: Sequence[EnergyRecord]) -> list[CampaignReport]:
    """One report for each device, source and protocol among ``records``."""
    groups: dict[tuple[str, str, str], list[EnergyRecord]] = defaultdict(list)
    for record in records:
        r = record.reading
        groups[(r.device, r.source, r.protocol_hash)].append(record)
    return [_report(group) for group in groups.values()]


def _report(records: Sequence[EnergyRecord]) -> CampaignReport:
    raw = [r for r in records if r.role == "candidate"]
    corrected, drift = correct_drift(records)
    first = records[0].reading
    by_workload: dict[str, list[EnergyRecord]] = defaultdict(list)
    for record in corrected:
        by_workload[record.workload.key].append(record)
    taus = {}
    for key, found in by_workload.items():
        if len(found) >= 3:
            flops = [count(r.architecture, r.workload).flops for r in found]
            taus[key] = float(kendalltau(flops, [r.reading.energy_j for r in found]).statistic)
    powers = [r.reading.power_w for r in raw]
    ticks = [r.tick_s for r in raw if r.tick_s is not None]
    idles = [r.idle_power_w for r in raw if r.idle_power_w is not None]
    across = _across_jobs(corrected)
    across_raw = _across_jobs(raw)
    return CampaignReport(
        device=first.device,
        source=first.source,
        is_estimate=first.is_estimate,
        n_architectures=len({(r.architecture.hash, r.workload.key) for r in raw}),
        n_records=len(raw),
        converged=sum(r.reading.converged for r in raw) / len(raw),
        half_width=median(r.reading.half_width_in_process for r in raw),
        split_half=median(
            abs(median(r.repeats_j[::2]) / median(r.repeats_j[1::2]) - 1) for r in raw
        ),
        across_jobs_raw=median(across_raw) if across_raw else None,
        across_jobs=median(across) if across else None,
        n_repeated=len(across),
        tick_s=median(ticks) if ticks else None,
        idle_power_w=median(idles) if idles else None,
        power_w=(min(powers), max(powers)),
        flags=dict(Counter(flag for r in raw for flag in r.flags)),
        tau_flops=taus,
        drift=tuple(drift),
        versions=raw[-1].versions,
    )


def _across_jobs(records: Sequence[EnergyRecord]) -> list[float]:
    """Relative difference of the first two jobs of each architecture that has two."""
    jobs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in records:
        jobs[(record.architecture.hash, record.workload.key)].append(record.reading.energy_j)
    return [abs(found[1] / found[0] - 1) for found in jobs.values() if len(found) > 1]


def render(found: CampaignReport) -> str:
    """The report as lines for people."""

    def percent(value: float | None) -> str:
        return "not known" if value is None else f"{value:.2%}"

    label = f"{found.source}{', an estimate' if found.is_estimate else ''}"
    tick = "none" if found.tick_s is None else f"{found.tick_s * 1e3:.1f} ms"
    idle = "not measured" if found.idle_power_w is None else f"{found.idle_power_w:.1f} W"
    lines = [
        f"{found.device} ({label}): {found.n_architectures} architectures, "
        f"{found.n_records} records, {found.converged:.0%} converged",
        f"  versions            {', '.join(f'{k} {v}' for k, v in found.versions.items())}",
        f"  half-width of 95%   {percent(found.half_width)} (median)",
        f"  split-half          {percent(found.split_half)} (median difference)",
        f"  across jobs         {percent(found.across_jobs)} ({found.n_repeated} repeated; "
        f"{percent(found.across_jobs_raw)} before correcting drift)",
        f"  counter's tick      {tick}",
        f"  idle power          {idle}",
        f"  loaded power        {found.power_w[0]:.1f} to {found.power_w[1]:.1f} W",
        f"  flags               {found.flags or 'none'}",
    ]
    for drift in found.drift:
        state = "applied" if drift.is_applied else "not applied"
        lines.append(
            f"  reference           {drift.workload}, {drift.n_references} measurements in "
            f"{drift.n_sessions} sessions, {percent(drift.span)} from lowest to highest; "
            f"correction {state}: "
            f"deviation {percent(drift.deviation)}, residual {percent(drift.residual)}"
        )
    for key, tau in found.tau_flops.items():
        lines.append(f"  Kendall's tau       {tau:.3f} of energy against FLOPs, {key}")
    return "\n".join(lines)


def plot(records: Sequence[EnergyRecord], path: Path) -> None:
    """Draw energy against FLOPs, one colour a workload, bars for the 95% intervals."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.use("Agg")
    corrected, _ = correct_drift(records)
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for key in sorted({r.workload.key for r in corrected}):
        found = [r for r in corrected if r.workload.key == key]
        joules = [r.reading.energy_j for r in found]
        axes.errorbar(
            [count(r.architecture, r.workload).flops for r in found],
            joules,
            yerr=[
                [r.reading.energy_j - r.reading.low_j for r in found],
                [r.reading.high_j - r.reading.energy_j for r in found],
            ],
            fmt="o",
            markersize=4,
            label=key,
        )
    first = corrected[0].reading
    estimate = ", estimate" if first.is_estimate else ""
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="FLOPs per sample (closed form)",
        ylabel=f"energy per sample [J] ({first.source}{estimate}; 95% interval)",
        title=f"{first.device}: energy against FLOPs",
    )
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    figure.savefig(path, dpi=150)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report of a file."""
    print_anything()
    parser = argparse.ArgumentParser(
        prog="python -m experiments.campaign_report", description=__doc__
    )
    parser.add_argument("records", type=Path, help="a .jsonl of nas measure or the campaign")
    parser.add_argument("--plot", type=Path, help="draw energy against FLOPs to a .png")
    arguments = parser.parse_args(argv)
    try:
        records = read_records(arguments.records).records
        if not any(record.role == "candidate" for record in records):
            raise ValueError(f"records {arguments.records} must hold one or more, got none")
        if arguments.plot is not None:
            plot(records, arguments.plot)
    except (ValueError, OSError) as error:
        print(f"campaign_report: {error}", file=sys.stderr)
        return 2
    for found in report(records):
        print(render(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
