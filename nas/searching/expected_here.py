"""Expected training time on this machine: the model, scaled by a few timed steps."""

from __future__ import annotations

import numpy as np

from nas.records.config import SearchConfig
from nas.searching.expected import Load, expected
from nas.tasks.registry import get_task
from nas.training.timing import timed_step_s
from search_spaces.space.sampling import sample

_CANDIDATES = 16
_SEED = 0
# Preferred modelled time of the timed step: long enough to time, short enough not to wait.
_WANTED_STEP_S = 0.1
_MINUTE_S = 60.0


def expected_line(config: SearchConfig) -> str:
    """Return the expected training time as a sentence; training takes a second or two.

    Raises:
        ValueError: the task or the device does not exist.
    """
    task = get_task(config.task)
    load, rng = Load.of(task, config.batch_size), np.random.default_rng(_SEED)
    batch_size = config.training.batch_size
    members = [sample(config.space, rng) for _ in range(_CANDIDATES)]
    steps_s = load.step_s(members, batch_size)
    at = int(np.abs(np.log(steps_s / _WANTED_STEP_S)).argmin())
    timed_s = timed_step_s(members[at], load.workload, task, config.training, config.device)
    times = expected(config, load).scaled(timed_s / float(steps_s[at]))
    return (
        f"expected training time: {_span(times.mean_s, times.least_s, times.most_s)}, measuring "
        f"not included (estimate: steps of one candidate, scaled to the others by operations)"
    )


def _span(mean_s: float, least_s: float, most_s: float) -> str:
    if most_s < 1.5:
        return "about 1 s a trial or less"
    if mean_s < 1:
        return f"about 1 s a trial, {_text(most_s)} at most"
    return f"about {_text(mean_s)} a trial, from {_text(least_s)} to {_text(most_s)}"


def _text(seconds: float) -> str:
    if seconds < 1:
        return "less than 1 s"
    if seconds < 2 * _MINUTE_S:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE_S:.0f} min"
