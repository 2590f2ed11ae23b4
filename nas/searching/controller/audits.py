"""Audits: pruned candidates that a search evaluates, to estimate how often the gate is wrong."""

from __future__ import annotations

from collections.abc import Container, Iterable

from nas.records.config import GateConfig
from nas.searching.gating.pruning import Pruning
from search_spaces.architecture import Architecture


class Audits:
    """Chooses the pruned candidates of one search to evaluate."""

    def __init__(self, config: GateConfig, pruning: Pruning, audited: Iterable[str]) -> None:
        """Draw from ``pruning``; ``audited`` are hashes of candidates that were chosen before."""
        self._config, self._pruning = config, pruning
        self._audited = set(audited)

    def draw(self, n_trained: int, exclude: Container[str]) -> Architecture | None:
        """Return a random pruned candidate whose hash is not in ``exclude``, if an audit is due.

        ``None`` also where the sampler considers no candidates beside its proposals: then
        ``takes`` audits the next proposal that the gate prunes.
        """
        drawn = self._pruning.draw(exclude) if self._is_due(n_trained) else None
        if drawn is not None:
            self._audited.add(drawn.hash)
        return drawn

    def takes(self, architecture: Architecture, n_trained: int) -> bool:
        """Return whether a proposal that the gate prunes is evaluated as an audit."""
        if architecture.hash not in self._audited and not self._is_due(n_trained):
            return False
        self._audited.add(architecture.hash)
        return True

    def _is_due(self, n_trained: int) -> bool:
        """Whether fewer of the trials after the startup are audits than configured."""
        n_chosen = n_trained - self._config.startup_trials
        return len(self._audited) + 1 <= self._config.audit_share * n_chosen
