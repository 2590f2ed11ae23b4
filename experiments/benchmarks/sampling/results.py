"""Runs as they end, one JSON line each, so that a broken benchmark goes on where it was.

There is one file for each problem, sampler and number of evaluations in flight, which one process
at a time may write.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """One sampler on one problem with one seed.

    ``volumes``, ``cpu_s`` and ``wall_s`` are by evaluation; the seconds are cumulative and of
    asking and telling alone, not of the objective. ``version`` is of the sampler. Proposals with
    one row (``Problem.row_of``) count once in ``distinct_rows``. ``evaluated_volume`` is that of
    the true losses of all evaluations, where ``volumes`` may be of what was measured best.
    """

    problem: str
    sampler: str
    seed: int
    version: str
    reference: tuple[float, ...]
    distinct_rows: int
    volumes: list[float]
    cpu_s: list[float]
    wall_s: list[float]
    evaluated_volume: float | None = None
    in_flight: int = 1

    @property
    def evaluations(self) -> int:
        """How many there were."""
        return len(self.volumes)


class Results:
    """The runs of a folder."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read or made before it is needed."""
        self._folder = folder

    def add(self, run: Run) -> None:
        """Write one run at once."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(run.problem, run.sampler, run.in_flight)
        # A line that a killed process left unfinished must not take this one along.
        torn = path.exists() and not path.read_bytes().endswith(b"\n")
        with path.open("a") as file:
            file.write("\n" * torn + json.dumps(asdict(run)) + "\n")

    def find(self, problem: str, sampler: str, in_flight: int = 1) -> dict[int, Run]:
        """The last run of each seed."""
        path = self._path(problem, sampler, in_flight)
        if not path.exists():
            return {}
        found = {}
        for line in path.read_text().splitlines():
            try:
                fields = json.loads(line)
                run = Run(**fields | {"reference": tuple(fields["reference"])})
            except (ValueError, TypeError, KeyError):
                continue
            found[run.seed] = run
        return found

    def missing(
        self,
        problem: str,
        sampler: str,
        seeds: Iterable[int],
        *,
        version: str | None,
        evaluations: int,
        reference: tuple[float, ...],
        in_flight: int = 1,
    ) -> list[int]:
        """Seeds whose last run is of another version or reference, too short, or not there.

        ``version`` is ``None`` where any will do.
        """
        found = self.find(problem, sampler, in_flight)
        return [
            seed
            for seed in seeds
            if seed not in found
            or (version is not None and found[seed].version != version)
            or found[seed].evaluations < evaluations
            or not all(
                abs(a - b) <= 1e-9 * max(abs(a), 1.0)
                for a, b in zip(found[seed].reference, reference, strict=True)
            )
        ]

    def _path(self, problem: str, sampler: str, in_flight: int) -> Path:
        workers = f"--{in_flight}-in-flight" * (in_flight > 1)
        return self._folder / f"{problem}--{sampler}{workers}.jsonl"
