"""The estimated time of arrival: its rule by a fake clock, and searches replayed."""

import heapq

import numpy as np
import pytest

from nas.cli.output.eta import Eta


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


def replay(durations_s, slots):
    """Run trials on ``slots``, and return ETA by true remaining time after each that ended."""
    clock = Clock()
    eta, waiting, running, told = Eta(clock), list(enumerate(durations_s)), [], []

    def start():
        while waiting and len(running) < slots:
            number, duration_s = waiting.pop(0)
            eta.start(number)
            heapq.heappush(running, (clock.now_s + duration_s, number))

    start()
    assert eta.remaining_s(len(durations_s)) is None
    while running:
        clock.now_s, number = heapq.heappop(running)
        eta.end(number)
        start()
        told.append((clock.now_s, eta.remaining_s(len(waiting) + len(running))))
    end_s = told[-1][0]
    assert told[-1][1] == 0
    return [(at_s, eta_s, end_s - at_s) for at_s, eta_s in told[:-1]]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_equal_trials_end_when_the_estimate_says(slots):
    for _, eta_s, left_s in replay([10.0] * (12 * slots), slots)[slots - 1 :: slots]:
        # Half a mean duration is allowed for the idle slots of the last trials.
        assert left_s <= eta_s <= left_s + 5.0 * (slots - 1) / slots + 1e-9


def test_running_trials_count_by_what_they_lack_of_the_mean():
    clock = Clock()
    eta = Eta(clock)
    eta.start(0)
    clock.now_s = 10.0
    eta.end(0)
    eta.start(1)
    clock.now_s = 14.0
    assert eta.remaining_s(1) == pytest.approx(6.0)
    assert eta.remaining_s(3) == pytest.approx(26.0)
    # A trial that takes longer than the mean is expected to end now.
    clock.now_s = 40.0
    assert eta.remaining_s(1) == 0.0


def test_a_trial_that_another_driver_started_does_not_count():
    clock = Clock()
    eta = Eta(clock)
    clock.now_s = 5.0
    eta.end(3)
    assert eta.remaining_s(4) is None


def test_later_trials_weigh_more_than_the_first():
    clock = Clock()
    eta = Eta(clock)
    for number, duration_s in enumerate([30.0] * 4 + [10.0] * 16):
        eta.start(number)
        clock.now_s += duration_s
        eta.end(number)
    assert 10.0 < eta.remaining_s(1) < 12.0


def test_from_a_third_on_it_is_within_30_percent_in_most_replays():
    """Searches of 33 trials on two workers whose durations spread by a factor of two."""
    rng, inside, total = np.random.default_rng(0), 0, 0
    for _ in range(100):
        for at_s, eta_s, left_s in replay(8.0 * rng.lognormal(0.0, 0.35, 33), 2):
            # Near the end, a share of what is left is less than the time of one trial.
            whole_s = at_s + left_s
            if at_s >= whole_s / 3:
                total += 1
                inside += abs(at_s + eta_s - whole_s) <= 0.3 * left_s + 0.02 * whole_s
    assert total > 1000 and inside / total > 0.9
