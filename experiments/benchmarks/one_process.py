"""The session of a search that runs in this process, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from nas.records.config import SearchConfig
from nas.searching.controller.sampler_by_name import make_sampler
from nas.searching.controller.session import Listener, Session
from nas.searching.gating.gate import CandidatePool, Gate
from nas.searching.gating.surrogates import ArchitectureSurrogates
from nas.store.storage import StudyStore
from predictors.energy.models import Observation
from search_spaces.workload import Workload


def open_session(
    config: SearchConfig,
    workload: Workload,
    folder: Path,
    name: str,
    *,
    listener: Listener | None = None,
    make_surrogates: Callable[..., ArchitectureSurrogates] = ArchitectureSurrogates,
    make_gate: Callable[..., Gate] = Gate,
    observations: Sequence[Observation] = (),
) -> Session:
    """Create the study ``name`` in ``folder`` with the sampler and the gate of ``config``.

    ``observations`` are labels from before the search.
    """
    surrogates = make_surrogates(workload, goals=config.goals, seed=config.seed)
    surrogates.add_observations(observations)
    gate = make_gate(surrogates, config.gate, pool=CandidatePool.sample(config.space, config.seed))
    sampler = make_sampler(config, surrogates, pruning=gate.pruning)
    store = StudyStore.create(folder, config.storage, name, config.space, sampler, config.goals)
    return Session(config, workload, store, gate, listener)
