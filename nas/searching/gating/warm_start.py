"""Warm start of a search: prior runs of its task, and a predictor of joules.

It is read once, when the search starts, and saved in the run directory (``warm_start.json`` and
``predictor.safetensors``), so that a resumed search needs nothing else. Qualities are taken only
from runs with the same training recipe and teacher. Joules are pooled with the search's own if
they were measured under the same conditions; others become the predictor's prior, by transfer.
Trials of prior runs are neither trials of the search nor on its front.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nas.core.files import read_json, write_json
from nas.core.plain import from_plain, to_plain
from nas.records.config import SearchConfig
from nas.records.fingerprints import task_contents
from nas.searching.gating.prior_run import Conditions, PriorRun, measured_under
from nas.searching.gating.warm_start_data import QualityLabel, WarmStartData
from nas.tasks.registry import get_task
from predictors.energy.artifact import SavedPredictor, load_predictor, save_predictor
from predictors.energy.models import CostPredictor, Observation
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from search_spaces.space.encoding import Genes, encode

SCHEMA_VERSION = 1
_WARM_START, _PREDICTOR = "warm_start.json", "predictor.safetensors"
# One trial in this many may evaluate a front member of a prior run.
_INITIAL_SHARE = 4


@dataclass(frozen=True)
class PriorRow:
    """One prior trial of a member of a space; ``None`` marks a figure that is not comparable."""

    genes: Genes
    quality: float | None
    quality_se: float
    reading: EnergyReading | None


@dataclass(frozen=True, slots=True)
class _Stored:
    """The content of ``warm_start.json``."""

    conditions: Conditions
    runs: tuple[PriorRun, ...]
    schema: int = SCHEMA_VERSION
    further: tuple[Conditions, ...] = ()


@dataclass(frozen=True)
class WarmStart:
    """Prior runs and predictor; ``conditions`` are the search's, ``None`` without a warm start.

    ``further`` are the conditions in each further runtime of the search.
    """

    conditions: Conditions | None = None
    runs: tuple[PriorRun, ...] = ()
    predictor: SavedPredictor | None = None
    further: tuple[Conditions, ...] = ()

    @property
    def predictor_is_same(self) -> bool:
        """Whether the predictor was fitted to the search's own device, runtime and meter."""
        if self.predictor is None or self.conditions is None:
            return False
        provenance = self.predictor.provenance
        return (provenance.device, provenance.source) == (
            self.conditions.device,
            self.conditions.source,
        )

    def in_runtimes(self, names: Sequence[str]) -> dict[str, WarmStart]:
        """Return the warm start for each runtime of the search, the main one first."""
        if self.conditions is None:
            return dict.fromkeys(names, self)
        return {
            name: replace(self, conditions=conditions, further=())
            for name, conditions in zip(names, (self.conditions, *self.further), strict=True)
        }

    def for_gate(self, *, seed: int) -> WarmStartData:
        """Prior data for the gate of a search."""
        observations: list[Observation] = []
        others: dict[Conditions, list[Observation]] = defaultdict(list)
        qualities = []
        for run in self.runs:
            for trial in run.trials:
                for reading in trial.readings:
                    label = Observation.of_energy(trial.architecture, run.workload, reading)
                    conditions = Conditions.of(reading, run.workload)
                    same = conditions == self.conditions
                    (observations if same else others[conditions]).append(label)
                if run.qualities_differ_by is None:
                    qualities.append(
                        QualityLabel(trial.architecture, trial.quality, trial.quality_se)
                    )
        source = None if self.predictor is None else self.predictor.predictor
        if source is None and others:
            source = CostPredictor.fit(others[self._main_other], seed=seed)
        return WarmStartData(tuple(observations), tuple(qualities), source, self.predictor_is_same)

    @property
    def _main_other(self) -> Conditions:
        """The conditions, other than the search's own, of most prior trials."""
        every = (
            Conditions.of(reading, run.workload)
            for run in self.runs
            for trial in run.trials
            for reading in trial.readings
        )
        return Counter(c for c in every if c != self.conditions).most_common(1)[0][0]

    def prior_rows(self, space: SearchSpace) -> list[PriorRow]:
        """Prior trials of members of ``space``, for a sampler."""
        rows = []
        for run in self.runs:
            for trial in run.trials:
                try:
                    genes = encode(trial.architecture, space)
                except ValueError:
                    continue
                own = (self.conditions, *self.further)
                same = (r for r in trial.readings if Conditions.of(r, run.workload) in own)
                quality = trial.quality if run.qualities_differ_by is None else None
                reading = min(same, key=lambda r: r.energy_j, default=None)
                if quality is not None or reading is not None:
                    rows.append(PriorRow(genes, quality, trial.quality_se, reading))
        return rows

    def initial_candidates(self, space: SearchSpace, trials: int) -> list[Architecture]:
        """Front members of the prior runs in ``space``, at most a quarter of ``trials``.

        If that is fewer than all, they are spread evenly over each front, ends included.
        """
        candidates: dict[str, Architecture] = {}
        for run in self.runs:
            members = sorted(
                (t for t in run.trials if t.on_front and space.contains(t.architecture)),
                key=lambda t: t.reading.energy_j,
            )
            most = max(1, trials // _INITIAL_SHARE // len(self.runs))
            chosen = np.unique(np.linspace(0, len(members) - 1, min(most, len(members))).round())
            for position in chosen.astype(int):
                architecture = members[position].architecture
                candidates.setdefault(architecture.hash, architecture)
        return list(candidates.values())[: max(1, trials // _INITIAL_SHARE)]

    def notes(self, config: SearchConfig) -> list[str]:
        """A line for each source: what is used of it, what is not, and why."""
        lines = []
        if self.predictor is not None and self.conditions is not None:
            use = "predicts joules from the first trial"
            if not self.predictor_is_same:
                of = self.predictor.provenance
                use = (
                    f"is of {of.device!r} ({of.source}), here {self.conditions.device!r} "
                    f"({self.conditions.source}): a prior, adapted as measurements arrive"
                )
            lines.append(f"predictor {config.predictor} {use}; {self.predictor.predictor.basis}")
        lines += [self._note(run) for run in self.runs]
        if self.runs:
            n = len(self.initial_candidates(config.space, config.trials))
            lines.append(f"evaluated first, from fronts of prior runs: {n}")
            if config.sampler != "ehvi":
                lines.append(f"sampler {config.sampler} uses no prior trials; the gate does")
        return lines

    def _note(self, run: PriorRun) -> str:
        assert self.conditions is not None
        n = len(run.trials)
        parts = [f"qualities not taken: {run.qualities_differ_by}"]
        if run.qualities_differ_by is None:
            parts = ["qualities taken"]
        every = [Conditions.of(r, run.workload) for trial in run.trials for r in trial.readings]
        for conditions in (self.conditions, *self.further):
            same = every.count(conditions)
            where = f" on {conditions.device!r}" if self.further else ""
            if same:
                parts.append(f"joules {'' if same == n else f'of {same} '}taken{where}")
        own = (self.conditions, *self.further)
        for other in dict.fromkeys(c for c in every if c not in own):
            how = "by transfer"
            if self.predictor is not None:
                how = "not taken, since a predictor is given"
            elif other != self._main_other:
                how = "not taken, since another run's are the prior"
            parts.append(f"joules {how} ({self.conditions.differences(other)})")
        return f"warm start from {run.path} ({run.name}), {n} trials: {'; '.join(parts)}"

    def save(self, folder: Path) -> None:
        """Write the warm start into a run directory; without one nothing is written."""
        if self.conditions is None:
            return
        if self.predictor is not None:
            save_predictor(self.predictor, folder / _PREDICTOR)
        stored = _Stored(self.conditions, self.runs, further=self.further)
        write_json(folder / _WARM_START, to_plain(stored))


def collect_warm_start(
    config: SearchConfig, conditions: Conditions, *further: Conditions
) -> WarmStart:
    """Read the runs and the predictor that ``config`` names, for a search under ``conditions``.

    ``further`` are the conditions in each further runtime of the search.

    Raises:
        ValueError: a run or the predictor is missing, damaged, or of another task, workload or
            protocol.
        StorageError: the study of a run cannot be opened.
    """
    if not config.warm_start and config.predictor is None:
        return WarmStart()
    predictor = None
    if config.predictor is not None:
        predictor = load_predictor(Path(config.predictor))
        # A predictor of another device is allowed: it is adapted by the search's measurements.
        predictor.check(protocol_hash=conditions.protocol_hash, workload=conditions.workload.key)
    runs: dict[str, PriorRun] = {}
    for path in config.warm_start:
        run = _read(path, config, conditions)
        runs.setdefault(run.name, run)
    return WarmStart(conditions, tuple(runs.values()), predictor, further)


def load_warm_start(folder: Path, config: SearchConfig) -> WarmStart | None:
    """Read what ``WarmStart.save`` wrote into a run directory, ``None`` if it wrote nothing.

    Raises:
        ValueError: a file is damaged; one line that names it.
    """
    if not config.warm_start and config.predictor is None:
        return WarmStart()
    path = folder / _WARM_START
    if not path.is_file():
        return None
    data = read_json(path)
    try:
        stored = from_plain(_Stored, data, "warm start")
        if stored.schema != SCHEMA_VERSION:
            raise ValueError(f"must have schema {SCHEMA_VERSION}, got {stored.schema!r}")
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    predictor = None if config.predictor is None else load_predictor(folder / _PREDICTOR)
    return WarmStart(stored.conditions, stored.runs, predictor, stored.further)


def _is_of_task(theirs: SearchConfig, ours: SearchConfig) -> bool:
    """Whether both searches have one task, of which each search from a checkpoint has a copy."""
    if ours.checkpoint is None or theirs.checkpoint is None:
        return theirs.task == ours.task
    return task_contents(Path(theirs.task)) == task_contents(Path(ours.task))


def _read(path: str, config: SearchConfig, conditions: Conditions) -> PriorRun:
    from nas.store.run_file import load

    try:
        run = load(path)
        if not _is_of_task(run.config, config):
            raise ValueError(f"must be of task {config.task}, got a run of {run.task}")
        ours = get_task(config.task).workload(1)
        if run.workload.with_batch_size(1) != ours:
            raise ValueError(f"must have inputs as task {config.task} has them now, and differ")
        return PriorRun.of(path, measured_under(run, conditions), config)
    except ValueError as error:
        raise ValueError(f"warm_start {path}: {error}") from None
