"""What a file of records says of the board, and what keeps it from being used."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import StatisticsError, median, stdev
from typing import Any

from predictors.campaign.failures import read_failures
from predictors.campaign.stages import N_REFERENCES
from predictors.measurement.protocol import PROTOCOLS, Protocol
from predictors.measurement.records import EnergyRecord, read_records
from search_spaces.architecture.layer_kinds import PLAIN, compressed_layer_kinds


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one board under one protocol; ``None`` is what the records do not say.

    ``between_processes`` is the relative standard deviation of the reference over fresh processes.
    ``within_process`` is the median relative half-width of its intervals. ``cross_check`` is the
    largest relative difference of the counter from integrated power.
    ``compile_s`` are seconds a kind of layer, by precision.
    """

    device: str
    protocol: str
    n_records: int
    n_references: int
    n_failed: int
    between_processes: float | None
    within_process: float | None
    tick_s: float | None
    cross_check: float | None
    idle_power_w: float | None
    compile_s: dict[str, float]
    flags: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def read_figures(path: Path) -> list[Figures]:
    """Figures of the records at ``path``, one for each device and protocol."""
    groups: dict[tuple[str, str], list[EnergyRecord]] = defaultdict(list)
    for record in read_records(path).records:
        name = str(record.protocol.get("name"))
        groups[record.reading.device, name].append(record)
    n_failed = len(read_failures(path))
    return [_figures(*key, records, n_failed) for key, records in groups.items()]


def compile_seconds(records: Sequence[EnergyRecord]) -> dict[str, float]:
    """Median seconds of compiling one kind of layer, by the precision of its blocks."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        precisions = {b.compression.precision for b in record.architecture.blocks} - set(PLAIN)
        kinds = compressed_layer_kinds(record.architecture)
        if len(precisions) == 1 and kinds and record.compile_s > 0:
            found[precisions.pop()].append(record.compile_s / kinds)
    return {precision: median(seconds) for precision, seconds in sorted(found.items())}


def _figures(device: str, protocol: str, records: list[EnergyRecord], n_failed: int) -> Figures:
    references = [r for r in records if r.role == "reference"]
    energies = [r.reading.energy_j for r in references]
    spread = stdev(energies) / median(energies) if len(energies) > 1 else None
    ticks = [r.tick_s for r in records if r.tick_s is not None]
    checks = [r.cross_check for r in records if r.cross_check is not None]
    idles = [r.idle_power_w for r in records if r.idle_power_w is not None]
    return Figures(
        device=device,
        protocol=protocol,
        n_records=len(records),
        n_references=len(references),
        n_failed=n_failed,
        between_processes=spread,
        within_process=median(r.reading.half_width_in_process for r in references)
        if references
        else None,
        tick_s=median(ticks) if ticks else None,
        cross_check=max(checks, key=abs) if checks else None,
        idle_power_w=median(idles) if idles else None,
        compile_s=compile_seconds(records),
        flags=dict(Counter(flag for r in records for flag in r.flags)),
    )


def render(found: Figures) -> str:
    """The figures as lines for people."""

    def percent(value: float | None) -> str:
        return "not known" if value is None else f"{value:.2%}"

    tick = "not known" if found.tick_s is None else f"{found.tick_s * 1e3:.1f} ms"
    idle = "not measured" if found.idle_power_w is None else f"{found.idle_power_w:.1f} W"
    compiling = ", ".join(f"{name} {s:.1f} s" for name, s in found.compile_s.items())
    flags = ", ".join(f"{flag} {n}" for flag, n in sorted(found.flags.items()))
    return "\n".join(
        [
            f"{found.device}, protocol {found.protocol}: {found.n_records} records, "
            f"{found.n_references} of them of the reference; {found.n_failed} failures",
            f"  spread between processes  {percent(found.between_processes)} "
            f"(half-width within one: {percent(found.within_process)})",
            f"  counter's tick            {tick}",
            f"  counter against power     {percent(found.cross_check)} at most",
            f"  idle power                {idle}",
            f"  compiling a kind          {compiling or 'not measured'}",
            f"  flags                     {flags or 'none'}",
        ]
    )


def problems(path: Path) -> list[str]:
    """What keeps the records at ``path`` from being used as labels; none where they may be."""
    try:
        file = read_records(path)
    except ValueError as error:
        return [str(error).splitlines()[0]]
    if not file.records:
        return ["holds no record"]
    found: list[str] = []
    hashes = {protocol.hash for protocol in PROTOCOLS.values()}
    lacking: Counter[str] = Counter()
    for record in file.records:
        for what, is_wrong in _wrongs(record, hashes).items():
            lacking[what] += is_wrong
    found += [f"{what} in {n} of {len(file.records)} records" for what, n in lacking.items() if n]
    boards = {r.reading.board.uuid for r in file.records if r.reading.board is not None}
    limits = {r.reading.limits for r in file.records}
    if len(boards) > 1:
        found.append(f"records of {len(boards)} boards: give each a file of its own")
    if len(limits) > 1:
        found.append(f"records under {len(limits)} settings of the board (limits, clocks, ECC)")
    n_doubles = len(file.records) - len({(r.job, r.session, r.order) for r in file.records})
    if n_doubles:
        found.append(f"{n_doubles} records that are there already")
    n_references = _n_references(file.records)
    if n_references < N_REFERENCES:
        found.append(f"{n_references} readings of one reference, {N_REFERENCES} are needed")
    return found


def _n_references(records: Sequence[EnergyRecord]) -> int:
    """Readings of one model by one protocol, each of a process of its own."""
    jobs: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for record in records:
        if record.role == "reference":
            model = record.architecture.hash, record.workload.key, record.reading.protocol_hash
            jobs[model].add(record.job)
    return max(map(len, jobs.values()), default=0)


def _wrongs(record: EnergyRecord, hashes: set[str]) -> dict[str, bool]:
    reading, board = record.reading, record.reading.board
    is_gpu = reading.meter == "nvml"
    return {
        "an estimate in place of a sensor's figure": reading.is_estimate,
        "a protocol that is no preset": reading.protocol_hash not in hashes,
        "no host": not reading.host,
        "no session": not record.session,
        "no driver": is_gpu and not reading.driver,
        "no board": is_gpu and board is None,
        "joules that are not the median of their windows": not _is_of_its_windows(record),
        "another workload than the reading's": reading.workload != record.workload.key,
        "a protocol with the hash of another": not _is_by_its_protocol(record),
    }


def _is_of_its_windows(record: EnergyRecord) -> bool:
    reading, repeats_j = record.reading, record.repeats_j
    try:
        level_j = median(repeats_j)
    except (TypeError, StatisticsError):
        return False
    is_whole = len(repeats_j) == reading.n_repeats and all(map(math.isfinite, repeats_j))
    return is_whole and math.isclose(level_j, reading.energy_j, rel_tol=1e-6)


def _is_by_its_protocol(record: EnergyRecord) -> bool:
    try:
        return Protocol.from_dict(record.protocol).hash == record.reading.protocol_hash
    except (ValueError, TypeError):
        return False
