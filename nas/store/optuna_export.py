"""Write the study of a run as an Optuna journal, which ``optuna-dashboard`` opens."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from nas.core.files import write_text
from nas.store.optuna_trials import RECORD, record_of
from nas.store.run import Run
from nas.store.storage import STUDY_NAME, StudyStore


def export_study(run: Run, path: Path) -> None:
    """Write the study of ``run`` to ``path`` atomically, without changing the run.

    Raises:
        OSError: the file cannot be written.
        StorageError: the study cannot be opened.
    """
    config = run.config
    store = StudyStore.load(
        *(run.folder, config.storage, run.name, config.space),
        goals=config.goals,
        read_only=True,
    )
    entries = _Entries()
    study = optuna.create_study(
        storage=JournalStorage(entries),
        study_name=STUDY_NAME,
        directions=[
            StudyDirection.MAXIMIZE if more else StudyDirection.MINIMIZE
            for more in config.goals.maximize
        ],
    )
    study.add_trials([_plain(frozen) for frozen in store.frozen_trials()])
    text = "".join(json.dumps(entry) + "\n" for entry in entries.all)
    write_text(path, text)


class _Entries(BaseJournalBackend):
    """Entries of a journal in memory, since Optuna's file backend flushes each to disk."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.all += json.loads(json.dumps(logs))

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        yield from self.all[log_number_from:]


def _plain(frozen: FrozenTrial) -> FrozenTrial:
    """Return ``frozen`` with JSON values and with distributions of Optuna's own class."""
    plain, record = copy.copy(frozen), record_of(frozen)
    plain.distributions = {
        name: CategoricalDistribution(one.choices)
        if isinstance(one, CategoricalDistribution)
        else one
        for name, one in frozen.distributions.items()
    }
    if record is not None:
        plain.user_attrs = frozen.user_attrs | {RECORD: record.to_dict()}
    return plain
