"""Log a run's trials for TensorBoard, by Ray Tune's own callback.

Ray's ``TBXLoggerCallback`` writes what a Tune trial reports into Tune's folder, which is removed
when the search ends, and our trials report whole records. So each ended trial is passed to the
callback as a trial of plain figures, with a folder ``trial-N`` that is whole or absent: a resumed
search writes those that are missing.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.tune.logger import TBXLoggerCallback

from nas.records.trial import Trial
from nas.searching.controller.session import Listener, Snapshot
from search_spaces.space import SearchSpace
from search_spaces.space.encoding import encode
from search_spaces.workload import SAMPLE

_LOG = logging.getLogger(__name__)
_STEP = "training_iteration"


class TensorBoardLog:
    """A ``Listener`` that logs each trial when it has ended, and calls another listener."""

    def __init__(
        self,
        space: SearchSpace,
        folder: Path,
        unit: str = SAMPLE,
        listener: Listener | None = None,
    ) -> None:
        """Log to ``folder`` what it does not contain; joules are per ``unit``."""
        self._space, self._folder, self._unit = space, folder, unit
        self._listener = listener
        self._is_lost = False

    def take_up(self, records: Iterable[Trial]) -> None:
        """Log trials that ended before: the search was killed, or began without a log."""
        for record in records:
            self._log(record)

    def on_change(self, snapshot: Snapshot, record: Trial | None) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        if record is not None:
            self._log(record)
        if self._listener is not None:
            self._listener.on_change(snapshot, record)

    def on_teacher(self, epoch: int, epochs: int) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        if self._listener is not None:
            self._listener.on_teacher(epoch, epochs)

    def on_supernet(self, epoch: int, epochs: int) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        if self._listener is not None:
            self._listener.on_supernet(epoch, epochs)

    def on_refine(self, done: int, total: int) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        if self._listener is not None:
            self._listener.on_refine(done, total)

    def on_wait(self, reason: str) -> None:
        """See ``nas.searching.controller.session.Listener``."""
        if self._listener is not None:
            self._listener.on_wait(reason)

    def _log(self, record: Trial) -> None:
        if self._is_lost or record.state not in ("complete", "stopped"):
            return
        try:
            log_trial(record, self._space, self._folder, self._unit)
        except OSError as error:
            # Continue the search, since the study has all of it.
            self._is_lost = True
            _LOG.warning(f"TensorBoard files cannot be written, and nothing more is: {error}")


@dataclass(frozen=True, eq=False)
class _Trial:
    """The part of a Tune trial that Ray's callback reads."""

    local_path: str
    evaluated_params: dict[str, Any]

    def init_local_path(self) -> None:
        """Do nothing: the folder exists."""


def log_trial(record: Trial, space: SearchSpace, folder: Path, unit: str = SAMPLE) -> None:
    """Write the event file of an ended trial, unless there is one; its joules are per ``unit``.

    Raises:
        OSError: it cannot be written.
    """
    final = folder / f"trial-{record.number}"
    if final.exists():
        return
    temporary = folder / f".trial-{record.number}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    # Ray's callback cannot write None.
    genes = {
        name: "none" if value is None else value
        for name, value in encode(record.architecture, space).items()
    }
    # The callback's types require a whole Tune trial, of which it reads three attributes.
    trial: Any = _Trial(str(temporary), genes)
    logger: Any = TBXLoggerCallback()  # type: ignore[no-untyped-call]
    logger.log_trial_start(trial)
    for point in record.curve:
        logger.log_trial_result(0, trial, {_STEP: point.epoch, "curve_quality": point.quality})
    logger.log_trial_result(0, trial, {_STEP: record.epochs or 1, **figures(record, unit)})
    logger.log_trial_end(trial)
    temporary.rename(final)


def figures(record: Trial, unit: str = SAMPLE) -> dict[str, float]:
    """Return a trial's figures by their names in TensorBoard; units are suffixes.

    ``energy_j_per_...`` names the unit of work, such as ``energy_j_per_output_token``.
    """
    reading = record.reading
    optional = {
        "quality": record.quality,
        "quality_se": record.quality_se,
        "test_quality": record.test_quality,
        f"energy_j_per_{unit.replace(' ', '_')}": record.energy_j,
        "latency_s": None if reading is None else reading.latency_s,
        # Distinguishes a meter's joules from an estimate.
        "energy_is_measured": None
        if record.energy_j is None
        else float(reading is not None and not reading.is_estimate),
        "params": record.params,
        "training_s": record.duration_s,
        "train_energy_j": record.train_energy_j,
        "measure_energy_j": record.measure_energy_j,
        "predicted_energy_j": None if record.prediction is None else record.prediction.mean,
        "stopped_early": float(record.state == "stopped"),
    }
    return {name: float(value) for name, value in optional.items() if value is not None}
