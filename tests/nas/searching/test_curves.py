"""Final qualities of stopped trials, told from the curves of complete ones."""

import numpy as np
import pytest
from search_fakes import SPACE, WORKLOAD, changed, finished, make_trial, reading

from nas.records.config import GateConfig
from nas.records.rungs import RungPoint
from nas.searching.gating.gate import Gate
from nas.searching.gating.learning_curves import LEAST_CURVES, extrapolate
from nas.searching.gating.surrogates import ArchitectureSurrogates
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.sampling import sample

SLOPE, LEVEL = 0.6, -1.5


def make(number, rung_error, rng, noise=0.0, *, stopped=False, epoch=4):
    final = float(np.exp(LEVEL + SLOPE * np.log(rung_error) + rng.normal(0, noise)))
    candidate = make_trial(number, "running", sample(SPACE, rng))
    curve = (RungPoint(epoch, 1 - rung_error, 0.01),)
    if stopped:
        return (
            changed(candidate, state="stopped", curve=curve, planned_epochs=40, reason="x"),
            1 - final,
        )
    done = changed(finished(candidate), curve=curve, planned_epochs=40, quality=1 - final)
    return done, 1 - final


def test_a_law_of_errors_is_found_and_its_deviation_covers_the_truth():
    inside = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        complete = [make(i, rng.uniform(0.1, 0.5), rng, 0.2)[0] for i in range(12)]
        record, truth = make(99, 0.4, rng, 0.2, stopped=True)
        (found,) = extrapolate([*complete, record])
        assert found.record is record and 0 < found.quality < 1
        inside += abs(found.quality - truth) < 2 * found.standard_error
    # Two deviations of a t distribution with ten degrees of freedom hold 93%.
    assert 130 <= inside <= 148


def test_without_noise_it_is_exact_and_far_away_less_sure():
    rng = np.random.default_rng(0)
    complete = [make(i, e, rng, 0.05)[0] for i, e in enumerate(np.linspace(0.1, 0.2, 10))]
    near, far = (make(90, e, rng, 0.0, stopped=True) for e in (0.15, 0.8))
    found = extrapolate([*complete, near[0], far[0]])
    assert found[0].quality == pytest.approx(near[1], abs=0.01)
    relative = [f.standard_error / (1 - f.quality) for f in found]
    assert relative[1] > 2 * relative[0]


def test_few_curves_or_those_of_other_rungs_say_nothing():
    rng = np.random.default_rng(1)
    complete = [make(i, 0.1 + 0.02 * i, rng)[0] for i in range(LEAST_CURVES)]
    record, _ = make(90, 0.4, rng, stopped=True)
    assert len(extrapolate([*complete, record])) == 1
    assert extrapolate([*complete[1:], record]) == []
    other, _ = make(91, 0.4, rng, stopped=True, epoch=12)
    assert extrapolate([*complete, other]) == []


def test_errors_that_rise_as_the_rungs_fall_are_taken_for_chance():
    rng = np.random.default_rng(2)
    complete = [make(i, e, rng)[0] for i, e in enumerate(np.linspace(0.1, 0.5, 9))]
    finals = sorted(r.quality for r in complete)
    complete = [changed(r, quality=a) for r, a in zip(complete, finals, strict=True)]
    low, high = (make(90, e, rng, stopped=True)[0] for e in (0.1, 0.9))
    found = extrapolate([*complete, low, high])
    assert found[0].quality == found[1].quality


def test_the_gate_learns_qualities_of_stopped_trials():
    rng = np.random.default_rng(3)
    complete = [make(i, rng.uniform(0.1, 0.5), rng, 0.1)[0] for i in range(12)]
    complete = [changed(r, reading=reading(1e-5 * (1 + r.number))) for r in complete]
    stopped = [make(50 + i, 0.9, rng, stopped=True)[0] for i in range(12)]
    gates = []
    for records in (complete, [*complete, *stopped]):
        gate = Gate(ArchitectureSurrogates(WORKLOAD, seed=0), GateConfig())
        gate.refit(records)
        gates.append(gate)
    batch = ArchitectureBatch.of([r.architecture for r in stopped])
    plain, told = (g.surrogates.quality(batch, 0.9) for g in gates)
    # It has seen what they are like.
    assert told.in_range.all() and not plain.in_range.all()
    assert gates[0].front_numbers == gates[1].front_numbers
