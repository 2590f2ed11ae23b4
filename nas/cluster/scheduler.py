"""A scheduler of Ray Tune that asks the search's driver whether a trial trains on.

Tune's own schedulers know one metric. A stopped trial is neither paused nor resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

# From a trial's id and what it reports to whether it trains on.
Judge = Callable[[str, Mapping[str, Any]], bool]


class EarlyStoppingScheduler(FIFOScheduler):
    """Starts trials in their order and stops those that ``judge`` does not let train on."""

    def __init__(self, judge: Judge) -> None:
        """``judge`` is called for each report of a trial."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._judge = judge

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop the trial or let it train on, at once."""
        goes_on = self._judge(trial.trial_id, result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)
