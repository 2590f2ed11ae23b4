"""Trials that fail in every way, by number; what runs them is the true driver on true Ray."""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from record_fakes import made_record, true_j
from search_fakes import WORKLOAD, finished, truth

from nas.core.estimate import Score
from nas.core.files import read_json, write_json
from nas.core.retry import is_os_error, persist
from nas.records.candidate import Measurement, Outcome
from predictors.measurement.process import MeasureInterrupted

EPOCHS = 4


def note(path, text):
    """One line of a log that outlives whoever wrote it."""

    def append():
        with path.open("a") as log:
            log.write(f"{text}\n")

    persist(append, is_os_error)


def notes(path):
    return path.read_text().split() if path.is_file() else []


@dataclass(frozen=True)
class Faulty:
    """Trains in steps that it keeps; ``faults`` say what befalls which trial, and at which epoch.

    Those that kill wait to be killed: their process's number is in the log.
    """

    faults: dict[int, str] = field(default_factory=dict)
    epoch_s: float = 0.02

    def evaluate(self, candidate, folder, measure, tell=None):
        fault = self.faults.get(candidate.number)
        note(folder / "attempts", os.getpid())
        first = len(notes(folder / "attempts")) == 1
        if fault == "is always killed":
            os.kill(os.getpid(), 9)
        state = folder / "state.json"
        try:
            start = read_json(state)["epoch"]
        except ValueError:
            start = 0
        for epoch in range(start + 1, EPOCHS + 1):
            time.sleep(self.epoch_s)
            # Kept before it is noted: who waits for the note may kill at once.
            write_json(state, {"epoch": epoch})
            note(folder / "epochs", epoch)
            if epoch == 2:
                self._befall(fault, first)
        record = measure(candidate.architecture, WORKLOAD, folder / "weights", folder / "inputs")
        quality, _ = truth(candidate.architecture)
        measurement = Measurement(record.reading)
        return Outcome("complete", quality=Score(quality, 0.003), measurement=measurement)

    def _befall(self, fault, first):
        if fault == "waits to be killed" and first or fault == "hangs":
            time.sleep(60)
        elif fault == "memory":
            raise MemoryError
        elif fault == "gpu memory":
            import torch

            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")
        elif fault == "full disk" and first:
            _fill_disk(for_s=1.0)
        elif fault == "data away" and first:
            raise OSError(errno.ESTALE, "Stale file handle")


def _fill_disk(for_s):
    """Have every flush of this process fail for a while, as on a full disk."""
    fsync, until = os.fsync, time.monotonic() + for_s

    def full(descriptor):
        if time.monotonic() < until:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    os.fsync = full


def faulty_measure(log, faults):
    """Stands for ``measure_fresh`` in the measuring task; ``faults`` befall a trial's first."""

    def measure(architecture, workload, *, weights, protocol, **_):
        number = weights.parent.name
        note(log / f"{number}.measured", os.getpid())
        first = len(notes(log / f"{number}.measured")) == 1
        fault = faults.get(int(number)) if first else None
        if fault == "waits to be killed":
            time.sleep(60)
        if fault == "sensor lost":
            raise MeasureInterrupted("NVML: GPU is lost")
        return made_record(architecture, workload, true_j(architecture, workload))

    return measure


def wait_for(condition, for_s=120):
    deadline = time.monotonic() + for_s
    while not condition():
        assert time.monotonic() < deadline, "never came about"
        time.sleep(0.02)


@dataclass(frozen=True)
class Failing:
    """Raises what ``faults`` say of a trial, each time; others it makes complete."""

    faults: dict[int, Callable[[Path], None]] = field(default_factory=dict)

    def evaluate(self, candidate, folder, measure, tell=None):
        note(folder / "attempts", os.getpid())
        if candidate.number in self.faults:
            self.faults[candidate.number](folder)
        return finished(candidate).outcome


def meet_full_disk(folder):
    """What a write says where the disk of the run stays full."""
    fsync, os.fsync = os.fsync, _no_room
    try:
        write_json(folder / "state.json", {})
    finally:
        os.fsync = fsync


def _no_room(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")
