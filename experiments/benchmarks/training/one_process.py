"""The session of a search that runs in this process, one candidate at a time, without Ray."""

from __future__ import annotations

from pathlib import Path

from nas.records.config import SearchConfig
from nas.searching.controller.sampler_by_name import make_sampler
from nas.searching.controller.session import Session
from nas.searching.gating.gate import CandidatePool, Gate
from nas.store.storage import StudyStore
from nas.tasks.registry import get_task


def open_session(config: SearchConfig, folder: Path, name: str) -> Session:
    """Create the study ``name`` in ``folder`` with the sampler and the gate of ``config``."""
    workload = get_task(config.task).workload(config.batch_size)
    sampler = make_sampler(
        config.sampler,
        config.seed,
        config.space,
        workload,
        startup_trials=config.gate.startup_trials,
    )
    store = StudyStore.create(folder, None, name, config.space, sampler)
    pool = CandidatePool.sample(config.space, config.seed)
    gate = Gate(workload, config.gate, seed=config.seed, pool=pool)
    return Session(config, workload, store, gate)
