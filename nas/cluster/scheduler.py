"""Halving as a scheduler of Ray Tune, for our driver and for any Tune of two objectives.

Tune's own schedulers know one metric. With plain Tune, trials report epoch, quality, its standard
error and joules:

    tune.TuneConfig(scheduler=HalvingScheduler(HalvingConfig(eta=3, min_epochs=1)), ...)

Our driver hands over a ``judge`` instead, which knows joules that were measured meanwhile. A
stopped trial is neither paused nor brought back.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from nas.records.rungs import HalvingConfig, RungPoint
from nas.searching.early_stopping.halving import Halving

# From a trial's id and what it reports to whether it goes on.
Judge = Callable[[str, Mapping[str, Any]], bool]


class HalvingScheduler(FIFOScheduler):
    """Starts trials in their order and stops those that fall behind at a rung."""

    def __init__(
        self,
        config: HalvingConfig | None = None,
        *,
        epoch: str = "training_iteration",
        quality: str = "quality",
        standard_error: str = "standard_error",
        energy_j: str = "energy_j",
        judge: Judge | None = None,
    ) -> None:
        """Start with empty rungs.

        Args:
            config: The rule's, its defaults by default.
            epoch: What reports call the epochs trained for.
            quality: What they call the quality, which is maximised.
            standard_error: What they call its standard error; 0 where they do not say it.
            energy_j: What they call joules, or any other positive cost, which is minimised.
            judge: Decides in place of all this.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.n_stopped = 0
        rule = _ReportRule(config or HalvingConfig(), epoch, quality, standard_error, energy_j)
        self._judge = judge or rule

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Stop or go on, at once."""
        if self._judge(trial.trial_id, result):
            return str(TrialScheduler.CONTINUE)
        self.n_stopped += 1
        return str(TrialScheduler.STOP)

    def debug_string(self) -> str:
        """For Tune's console."""
        return f"halving by quality and joules: {self.n_stopped} stopped"


class _ReportRule:
    """The rule on what reports say themselves."""

    def __init__(
        self, config: HalvingConfig, epoch: str, quality: str, standard_error: str, energy_j: str
    ) -> None:
        self._config = config
        self._rule = Halving(config)
        self._epoch, self._quality = epoch, quality
        self._standard_error, self._energy_j = standard_error, energy_j
        self._energies_j: dict[Hashable, float] = {}
        self._order: dict[str, int] = {}

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether the trial goes on; reports without both objectives decide nothing."""
        if any(name not in result for name in (self._epoch, self._quality, self._energy_j)):
            return True
        order = self._order.setdefault(trial_id, len(self._order))
        rung = self._config.rung_at(int(result[self._epoch]))
        self._energies_j[trial_id] = float(result[self._energy_j])
        # Trials that do not report at each epoch are compared at the first report past a rung.
        if rung is None or trial_id in self._rule.trials_at(rung):
            return True
        error = float(result.get(self._standard_error, 0.0))
        self._rule.reach(trial_id, RungPoint(rung, float(result[self._quality]), error))
        if order < self._config.startup_trials:
            return True
        return self._rule.verdict(trial_id, rung, self._energies_j).goes_on
