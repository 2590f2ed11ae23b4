"""Labels of a search's measuring conditions: cached ones, the run's own, and new ones."""

from __future__ import annotations

import hashlib
import json
import threading
import uuid

from nas.core.names import TORCH
from nas.core.plain import to_plain
from nas.core.versions import versions
from nas.searching.gating.prior_run import Conditions
from predictors.energy.models import Observation
from predictors.labels.cache import Label, LabelCache
from predictors.labels.repeatability import Repeatability, session_levels
from search_spaces.runtimes.registry import get_runtime

# How the source of estimated joules begins (``predictors.meters.estimate``).
_ESTIMATED = "cpu-seconds"
# The repeatability is fitted again after the labels have grown by this factor.
_MORE = 1.1
# The libraries whose versions change what is measured.
_MEASURING = ("torch", "torchao")


def new_session() -> str:
    """Return a name for the labels of this process."""
    return uuid.uuid4().hex[:16]


def cache_of(conditions: Conditions, runtime: str = TORCH) -> LabelCache | None:
    """Return the cache of labels under ``conditions`` with the installed libraries.

    ``runtime`` is the one of the conditions, whose versions count as well.

    ``None`` where no cache folder can be used: labels then serve this search alone.
    """
    installed = {name: version for name, version in versions().items() if name in _MEASURING}
    installed |= get_runtime(runtime).versions()
    text = json.dumps([to_plain(conditions), installed], sort_keys=True)
    try:
        return LabelCache.of(hashlib.sha256(text.encode()).hexdigest()[:16])
    except OSError:
        return None


class Labels:
    """All labels under a search's conditions: cached ones, the run's own, and new ones."""

    def __init__(
        self,
        conditions: Conditions,
        cache: LabelCache | None,
        session: str,
        runtime: str | None = None,
    ) -> None:
        """Read the ``cache``; ``session`` names this process's labels.

        ``runtime`` is that of the conditions, in a search that has several.
        """
        self.conditions, self.session, self.runtime = conditions, session, runtime
        self._cache = cache
        self._labels: list[Label] = [] if cache is None else cache.read()
        self._lock = threading.Lock()
        self._repeatability: tuple[int, Repeatability] | None = None

    def add(self, label: Label) -> None:
        """Add a label of this session and append it to the cache."""
        with self._lock:
            self._labels.append(label)
        if self._cache is not None:
            try:
                self._cache.add(label)
            except OSError:
                # A full disk must not end a search: the label serves this one.
                self._cache = None

    def all(self) -> list[Label]:
        """Return all labels, oldest first."""
        with self._lock:
            return list(self._labels)

    def repeatability(self) -> Repeatability:
        """Return the repeatability of the device, fitted again for each tenth more labels.

        Progress shows it after each trial, of which there may be thousands.
        """
        labels = self.all()
        if self._repeatability is None or len(labels) >= _MORE * self._repeatability[0] + 1:
            is_estimate = self.conditions.source.startswith(_ESTIMATED)
            found = Repeatability.of(labels, is_estimate=is_estimate)
            self._repeatability = len(labels), found
        return self._repeatability[1]

    def observations(self) -> list[Observation]:
        """Return the labels that the predictor is fitted to, corrected for their sessions."""
        labels = self.all()
        levels = session_levels(labels, self.repeatability())
        workload = self.conditions.workload
        return [
            Observation.of_energy(label.architecture, workload, label.reading).scaled(
                1 / levels[label.session]
            )
            for label in labels
            if not label.is_reference
        ]
