"""Repeatability: how far the medians of one model differ between processes and sessions.

Windows of one process agree better than processes do: memory placement, clocks and other users of
the machine differ. Labels of one architecture from several sessions show by how much. The model is
``log joules = level + session + process``, with a random effect of each (Searle, Casella &
McCulloch 1992, chapter 3). A device without history has a stated default, which counts as a few
degrees of freedom (a scaled inverse chi-squared prior, Gelman et al. 2013, section 2.6).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from predictors.labels.cache import Label

# Relative standard deviations that are assumed without history: of joules that are estimated from
# time on a CPU with other users, and of a sensor's.
DEFAULT_ESTIMATE_SD, DEFAULT_SENSOR_SD = 0.06, 0.02
# Degrees of freedom that the default counts as.
_DEFAULT_DOF = 4
# Least sessions to separate the variance between sessions from that between processes.
_LEAST_SESSIONS = 3
_Z = 1.96


@dataclass(frozen=True, slots=True)
class Repeatability:
    """Relative standard deviation between medians of new processes in new sessions.

    ``dof`` are its degrees of freedom, the default's included; ``n_sessions`` is the number of
    sessions with a model that another session measured too. ``session_share`` is the part of the
    variance that all labels of a session share, 0 where it is unknown.
    """

    sd: float
    dof: int
    n_sessions: int = 0
    session_share: float = 0.0

    @classmethod
    def default(cls, *, is_estimate: bool) -> Repeatability:
        """Return the stated default of a device without history."""
        return cls(DEFAULT_ESTIMATE_SD if is_estimate else DEFAULT_SENSOR_SD, _DEFAULT_DOF)

    @classmethod
    def of(cls, labels: Sequence[Label], *, is_estimate: bool) -> Repeatability:
        """Return the repeatability that ``labels`` show, together with the default."""
        prior = cls.default(is_estimate=is_estimate)
        by_model: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for label in labels:
            logs = by_model[label.architecture.hash][label.session]
            logs.append(math.log(label.reading.energy_j))
        squares, dof = 0.0, 0
        within_squares, within_dof = 0.0, 0
        sessions: set[str] = set()
        for by_session in by_model.values():
            groups = [np.array(logs) for logs in by_session.values()]
            within_squares += sum(float(((g - g.mean()) ** 2).sum()) for g in groups)
            within_dof += sum(len(g) - 1 for g in groups)
            if len(groups) < 2:
                continue
            sessions |= by_session.keys()
            # One label of each session: two of one session share its effect.
            first = np.array([g[0] for g in groups])
            squares += float(((first - first.mean()) ** 2).sum())
            dof += len(groups) - 1
        variance = (prior.dof * prior.sd**2 + squares) / (prior.dof + dof)
        process_variance = within_squares / within_dof if within_dof else 0.0
        # Processes of one session already differ by so much.
        if within_dof >= _DEFAULT_DOF:
            variance = max(variance, process_variance)
        share = 0.0
        if len(sessions) >= _LEAST_SESSIONS and within_dof >= _DEFAULT_DOF and variance > 0:
            share = max(0.0, 1 - process_variance / variance)
        return cls(math.sqrt(variance), prior.dof + dof, len(sessions), share)

    @property
    def interval_sd(self) -> float:
        """``sd`` that gives a normal interval the width of Student's with ``dof`` degrees."""
        return self.sd * float(t.ppf(0.975, self.dof)) / _Z

    def describe(self) -> str:
        """Return one sentence for a user."""
        if self.n_sessions:
            return f"medians of new sessions differ by {self.sd:.1%} ({self.n_sessions} sessions)"
        return f"medians of new sessions are assumed to differ by {self.sd:.1%} (no history)"


def session_levels(labels: Sequence[Label], repeatability: Repeatability) -> dict[str, float]:
    """Return the factor by which each session's labels were above the device's level.

    It is the session effect's best linear unbiased prediction from models that other sessions
    measured too, so it is near 1 where processes differ more than sessions do, and where there are
    few such models. Labels divided by it compare between sessions.
    """
    share = repeatability.session_share
    by_model: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for label in labels:
        logs = by_model[label.architecture.hash][label.session]
        logs.append(math.log(label.reading.energy_j))
    offsets: dict[str, list[float]] = defaultdict(list)
    for by_session in by_model.values():
        if len(by_session) < 2:
            continue
        level = float(np.mean([np.mean(logs) for logs in by_session.values()]))
        for session, logs in by_session.items():
            offsets[session] += [log_j - level for log_j in logs]
    levels = {}
    for session in {label.session for label in labels}:
        found = offsets.get(session, [])
        shrinkage = len(found) * share / (len(found) * share + 1 - share) if found else 0.0
        levels[session] = math.exp(shrinkage * float(np.mean(found))) if found else 1.0
    return levels
