"""What was known before a search: earlier runs of its task, and a predictor of joules.

Read once, when the search starts, and kept in its run folder (``earlier.json`` and
``predictor.safetensors``), so that a resumed search needs nothing else. Accuracies are taken from
runs of the same training recipe and teacher only. Joules are pooled with the search's own where
device, meter, protocol and workload are the same; others are the prior of the predictor, by
transfer. Earlier trials are neither trials of the search nor on its front.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nas.core.files import read_json, write_json
from nas.records.config import SearchConfig
from nas.searching.gating.prior_knowledge import Knowledge, KnownAccuracy
from nas.searching.gating.prior_run import EarlierRun, Situation, measured_in
from nas.tasks.registry import get_task
from predictors.energy.artifact import SavedPredictor, load_predictor, save_predictor
from predictors.energy.models import EnergyPredictor, Observation
from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace
from search_spaces.space.encoding import Genes, encode

SCHEMA_VERSION = 1
_EARLIER, _PREDICTOR = "earlier.json", "predictor.safetensors"
# Of the search's trials, those that go to the front of earlier runs.
_FIRST_SHARE = 4


@dataclass(frozen=True)
class Figures:
    """What is known of one member of a space; ``None`` where it does not compare."""

    genes: Genes
    accuracy: float | None
    accuracy_se: float
    reading: EnergyReading | None


@dataclass(frozen=True)
class Earlier:
    """All of it. ``situation`` is the search's own, ``None`` where nothing was asked for."""

    situation: Situation | None = None
    runs: tuple[EarlierRun, ...] = ()
    predictor: SavedPredictor | None = None

    @property
    def predictor_is_same(self) -> bool:
        """Whether the predictor was fitted to the search's own device and meter."""
        if self.predictor is None or self.situation is None:
            return False
        known = self.predictor.provenance
        return (known.device, known.source) == (self.situation.device, self.situation.source)

    def knowledge(self, space: SearchSpace, *, seed: int) -> Knowledge:
        """For the gate of a search of ``space``."""
        observations: list[Observation] = []
        others: dict[Situation, list[Observation]] = defaultdict(list)
        accuracies = []
        for run in self.runs:
            for trial in run.trials:
                found = Observation.from_reading(trial.architecture, run.workload, trial.reading)
                situation = Situation.of(trial.reading, run.workload)
                (observations if situation == self.situation else others[situation]).append(found)
                if run.accuracies_differ_by is None:
                    accuracies.append(
                        KnownAccuracy(trial.architecture, trial.accuracy, trial.accuracy_se)
                    )
        source = None if self.predictor is None else self.predictor.predictor
        if source is None and others:
            source = EnergyPredictor.fit(others[self._main_other], seed=seed)
        rivals = tuple(
            (f.accuracy - f.accuracy_se, f.reading.high_j)
            for f in self.figures(space)
            if f.accuracy is not None and f.reading is not None
        )
        return Knowledge(
            tuple(observations), tuple(accuracies), rivals, source, self.predictor_is_same
        )

    @property
    def _main_other(self) -> Situation:
        """Of the situations that are not the search's own, the one with most trials."""
        found = (Situation.of(t.reading, run.workload) for run in self.runs for t in run.trials)
        return Counter(s for s in found if s != self.situation).most_common(1)[0][0]

    def figures(self, space: SearchSpace) -> list[Figures]:
        """For a sampler: what compares with the search's own, of members of ``space``."""
        found = []
        for run in self.runs:
            for trial in run.trials:
                try:
                    genes = encode(trial.architecture, space)
                except ValueError:
                    continue
                same = Situation.of(trial.reading, run.workload) == self.situation
                accuracy = trial.accuracy if run.accuracies_differ_by is None else None
                reading = trial.reading if same else None
                if accuracy is not None or reading is not None:
                    found.append(Figures(genes, accuracy, trial.accuracy_se, reading))
        return found

    def first(self, space: SearchSpace, trials: int) -> list[Architecture]:
        """Front members of the earlier runs in ``space``, for a quarter of ``trials`` at most.

        Evenly over each front, ends included, since a quarter may not hold all.
        """
        found: dict[str, Architecture] = {}
        for run in self.runs:
            members = sorted(
                (t for t in run.trials if t.on_front and space.contains(t.architecture)),
                key=lambda t: t.reading.energy_j,
            )
            most = max(1, trials // _FIRST_SHARE // len(self.runs))
            chosen = np.unique(np.linspace(0, len(members) - 1, min(most, len(members))).round())
            for position in chosen.astype(int):
                architecture = members[position].architecture
                found.setdefault(architecture.hash, architecture)
        return list(found.values())[: max(1, trials // _FIRST_SHARE)]

    def notes(self, config: SearchConfig) -> list[str]:
        """A line for each source: what is taken of it, what is not, and why."""
        lines = []
        if self.predictor is not None and self.situation is not None:
            where = "predicts joules from the first trial"
            if not self.predictor_is_same:
                known = self.predictor.provenance
                where = (
                    f"is of {known.device!r} ({known.source}), here {self.situation.device!r} "
                    f"({self.situation.source}): a prior, adapted as measurements arrive"
                )
            lines.append(f"predictor {config.predictor} {where}; {self.predictor.predictor.basis}")
        lines += [self._note(run) for run in self.runs]
        if self.runs:
            n = len(self.first(config.space, config.trials))
            lines.append(f"proposed first, of earlier fronts: {n}")
            if config.sampler != "ehvi":
                lines.append(
                    f"sampler {config.sampler} learns from this search alone; the gate knows more"
                )
        return lines

    def _note(self, run: EarlierRun) -> str:
        assert self.situation is not None
        n = len(run.trials)
        parts = [f"accuracies not taken: {run.accuracies_differ_by}"]
        if run.accuracies_differ_by is None:
            parts = ["accuracies taken"]
        situations = [Situation.of(trial.reading, run.workload) for trial in run.trials]
        same = sum(situation == self.situation for situation in situations)
        if same:
            parts.append("joules taken" if same == n else f"joules of {same} taken")
        for other in dict.fromkeys(s for s in situations if s != self.situation):
            how = "by transfer"
            if self.predictor is not None:
                how = "not taken, since a predictor is given"
            elif other != self._main_other:
                how = "not taken, since another run's are the prior"
            parts.append(f"joules {how} ({self.situation.differences(other)})")
        return f"warm start from {run.path} ({run.name}), {n} trials: {'; '.join(parts)}"

    def save(self, folder: Path) -> None:
        """Write it into a run folder; nothing where there is nothing to write."""
        if self.situation is None:
            return
        if self.predictor is not None:
            save_predictor(self.predictor, folder / _PREDICTOR)
        write_json(
            folder / _EARLIER,
            {
                "schema": SCHEMA_VERSION,
                "situation": self.situation.to_dict(),
                "runs": [run.to_dict() for run in self.runs],
            },
        )


def gather(config: SearchConfig, situation: Situation) -> Earlier:
    """What ``config`` asks to start from, for a search that measures in ``situation``.

    Raises:
        ValueError: a run or the predictor is missing, damaged, or of another task, workload or
            protocol.
        StorageError: the study of a run cannot be opened.
    """
    if not config.warm_start and config.predictor is None:
        return Earlier()
    predictor = None
    if config.predictor is not None:
        predictor = load_predictor(Path(config.predictor))
        # Of another device, it is adapted by what is measured here.
        predictor.check(protocol_hash=situation.protocol_hash, workload=situation.workload.key)
    runs: dict[str, EarlierRun] = {}
    for path in config.warm_start:
        found = _read(path, config, situation)
        runs.setdefault(found.name, found)
    return Earlier(situation, tuple(runs.values()), predictor)


def load_earlier(folder: Path, config: SearchConfig) -> Earlier | None:
    """What ``Earlier.save`` kept in a run folder, ``None`` where it did not get to that.

    Raises:
        ValueError: a file is damaged; one line that names it.
    """
    if not config.warm_start and config.predictor is None:
        return Earlier()
    path = folder / _EARLIER
    if not path.is_file():
        return None
    data = read_json(path)
    try:
        if not isinstance(data, dict) or data.keys() != {"schema", "situation", "runs"}:
            raise ValueError("must have exactly the keys schema, situation, runs")
        if data["schema"] != SCHEMA_VERSION:
            raise ValueError(f"must have schema {SCHEMA_VERSION}, got {data['schema']!r}")
        situation = Situation.from_dict(data["situation"])
        runs = tuple(EarlierRun.from_dict(run) for run in data["runs"])
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    predictor = None if config.predictor is None else load_predictor(folder / _PREDICTOR)
    return Earlier(situation, runs, predictor)


def _read(path: str, config: SearchConfig, situation: Situation) -> EarlierRun:
    from nas.store.run import load

    try:
        run = load(path)
        if run.task != config.task:
            raise ValueError(f"must be of task {config.task}, got a run of {run.task}")
        ours = get_task(config.task).workload(1)
        if run.workload.with_batch_size(1) != ours:
            raise ValueError(f"must have inputs as task {config.task} has them now, and differ")
        return EarlierRun.of(path, measured_in(run, situation), config)
    except ValueError as error:
        raise ValueError(f"warm_start {path}: {error}") from None
