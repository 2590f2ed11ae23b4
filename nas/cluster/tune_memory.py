"""What Ray Tune keeps of trials that have ended, which nobody reads: the study has it all.

Of each ended trial Tune keeps its last result, statistics of each figure and JSON of both, for a
restore that is never used here: 37 kB, more than all that a search itself knows of a trial. And
where all is over, it writes the JSON of every trial at once, which are 16 kB more of each.
"""

from __future__ import annotations

from typing import Any

# First: it sets what Ray reads when it is imported.

# isort: split
from ray.tune import Callback


class ForgetEnded(Callback):
    """Has Tune forget what complete trials reported, as soon as it has handled their end.

    Those whose worker died are few, and Tune looks for their errors when all is over.
    """

    def __init__(self) -> None:
        """Begin with none that has ended."""
        self._ended: list[Any] = []
        self._resources: dict[Any, Any] = {}

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        """Remember whom to forget: Tune is not done with it yet."""
        self._ended.append(trial)

    def on_step_end(self, iteration: int, trials: Any, **_: Any) -> None:
        """Forget those of this step."""
        for trial in self._ended:
            known = trial.run_metadata
            trial.run_metadata = type(known)()
            # Tune asks it for checkpoints, of which ours have none.
            trial.run_metadata.checkpoint_manager = known.checkpoint_manager
            trial._default_result_or_future = None
            # Each has its own description of the same resources: one will do.
            resources = self._resources.setdefault(
                trial.placement_group_factory, trial.placement_group_factory
            )
            trial.placement_group_factory = resources
            trial._default_placement_group_factory = resources
            # Not as Tune would make it anew.
            trial._state_json = "{}"
        self._ended.clear()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore that is never used here."""
        return {}
