"""Executors for tests: a search on true Ray or in this process, and one that follows a script."""

from contextlib import closing
from pathlib import Path

from nas.evaluation.executor import Ended, Measuring
from nas.searching.loop import search
from nas.store.driver import Driver
from predictors.measurement.protocol import get_protocol


def on_ray(evaluator, folder, *, driver=None, device="cpu", meter="fake", measured=()):
    """On the Ray that is there; its devices are locked in the folder above its trials."""
    from nas.cluster.driver import TuneExecutor

    measuring = Measuring(device, meter, get_protocol("quick"), Path(folder).parent, measured)
    return closing(TuneExecutor(evaluator, folder, measuring, driver or Driver()))


def in_process(evaluator, folder, *, driver=None, device="cpu", meter="estimate", measured=()):
    from nas.searching.in_process import InProcessExecutor

    measuring = Measuring(device, meter, get_protocol("quick"), Path(folder).parent, measured)
    return closing(InProcessExecutor(evaluator, folder, measuring, driver or Driver(0)))


def run_trials(session, evaluator, folder, *, stopper=None, **options):
    """Search on Ray to the end."""
    with on_ray(evaluator, folder, **options) as executor:
        return search(session, executor, folder, stopper)


class DriverDiedError(Exception):
    """What the loop meets where its process would be killed: nothing more is written."""


class Scripted:
    """Asks ``events`` what becomes of the candidates that run, by their numbers."""

    def __init__(self, slots, events):
        self.slots, self._events = slots, events
        self.running = {}

    def submit(self, candidate):
        self.running[candidate.number] = candidate

    def wait(self, judge):
        event = self._events(self.running)
        done = [event.candidate] if isinstance(event, Ended) else event.candidates
        for candidate in done:
            del self.running[candidate.number]
        return event

    def close(self):
        self.running.clear()
