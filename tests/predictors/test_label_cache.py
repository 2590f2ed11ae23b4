"""Labels kept for later searches, and how well a device's medians repeat."""

import math
from dataclasses import replace

import numpy as np
import pytest
from search_fakes import SPACE, reading

from predictors.labels.cache import Label, LabelCache
from predictors.labels.repeatability import (
    DEFAULT_ESTIMATE_SD,
    DEFAULT_SENSOR_SD,
    Repeatability,
    session_levels,
)
from predictors.meters.base import EnergyReading
from search_spaces.space.sampling import sample


def members(n, seed=0):
    rng = np.random.default_rng(seed)
    found = {}
    while len(found) < n:
        member = sample(SPACE, rng)
        found[member.hash] = member
    return list(found.values())


def simulated(rng, *, n_sessions, session_sd, process_sd, n_models=3, repeats=3):
    """Labels of a device whose sessions and processes differ by these deviations."""
    models = members(n_models)
    labels = []
    for session in range(n_sessions):
        effect = rng.normal(0, session_sd)
        for model, log_j in zip(models, np.linspace(-12, -8, n_models), strict=True):
            for _ in range(repeats):
                energy_j = math.exp(log_j + effect + rng.normal(0, process_sd))
                labels.append(Label(model, reading(energy_j), str(session)))
    return labels


def test_labels_are_read_as_they_were_added(tmp_path):
    cache = LabelCache(tmp_path / "new" / "labels.jsonl")
    assert cache.read() == []
    labels = [
        Label(member, reading(1e-6 * (1 + n)).between_sessions(0.05), f"s{n}", "trained", n == 1)
        for n, member in enumerate(members(3))
    ]
    for label in labels:
        cache.add(label)
    assert LabelCache(cache.path).read() == labels


def test_damaged_lines_are_left_out(tmp_path):
    cache = LabelCache(tmp_path / "labels.jsonl")
    first, second = (Label(m, reading(1e-6), "s") for m in members(2))
    cache.add(first)
    with cache.path.open("a") as file:
        file.write('{"architecture": {"d_mo\n[1, 2]\nnull\n' + "[" * 5000 + "\n")
    cache.add(second)
    assert cache.read() == [first, second]


def test_weights_of_a_label_are_random_or_trained():
    with pytest.raises(ValueError, match="weights must be random or trained, got 'none'"):
        Label(members(1)[0], reading(1e-6), "s", "none")


def test_a_device_without_history_has_the_stated_default():
    estimated = Repeatability.of([], is_estimate=True)
    assert estimated == Repeatability.default(is_estimate=True)
    assert (estimated.sd, estimated.n_sessions) == (DEFAULT_ESTIMATE_SD, 0)
    assert Repeatability.of([], is_estimate=False).sd == DEFAULT_SENSOR_SD
    # Few degrees of freedom widen the interval.
    assert estimated.interval_sd > estimated.sd
    assert "no history" in estimated.describe()


@pytest.mark.parametrize(("session_sd", "process_sd"), [(0.05, 0.02), (0.0, 0.08), (0.1, 0.0)])
def test_the_deviation_between_sessions_is_learnt(session_sd, process_sd):
    rng = np.random.default_rng(0)
    labels = simulated(rng, n_sessions=40, session_sd=session_sd, process_sd=process_sd)
    found = Repeatability.of(labels, is_estimate=True)
    true_sd = math.hypot(session_sd, process_sd)
    assert found.sd == pytest.approx(true_sd, rel=0.25)
    assert found.n_sessions == 40
    assert found.session_share == pytest.approx(session_sd**2 / true_sd**2, abs=0.25)


def test_processes_of_one_session_bound_the_deviation_from_below():
    rng = np.random.default_rng(1)
    labels = simulated(rng, n_sessions=1, session_sd=0.0, process_sd=0.2, repeats=10)
    assert Repeatability.of(labels, is_estimate=True).sd > 0.12


def test_labels_divided_by_their_session_level_compare():
    rng = np.random.default_rng(2)
    labels = simulated(rng, n_sessions=12, session_sd=0.15, process_sd=0.01)
    levels = session_levels(labels, Repeatability.of(labels, is_estimate=True))
    first = labels[0].architecture
    raw = [math.log(x.reading.energy_j) for x in labels if x.architecture == first]
    corrected = [
        math.log(x.reading.energy_j / levels[x.session]) for x in labels if x.architecture == first
    ]
    assert np.std(corrected) < np.std(raw) / 4


def test_nothing_is_corrected_where_processes_differ_more_than_sessions():
    rng = np.random.default_rng(3)
    labels = simulated(rng, n_sessions=12, session_sd=0.0, process_sd=0.1)
    levels = session_levels(labels, Repeatability.of(labels, is_estimate=True))
    assert np.std(np.log(list(levels.values()))) < 0.05


def test_the_interval_of_a_new_session_contains_the_next_median():
    rng = np.random.default_rng(4)
    sd = 0.05
    inside = []
    for _ in range(2000):
        first, later = np.exp(rng.normal(0, sd, 2))
        one = replace(reading(1.0), low_j=0.999, high_j=1.001)
        one = replace(one, energy_j=first, low_j=first * 0.999, high_j=first * 1.001)
        wide = one.between_sessions(sd)
        inside.append(wide.low_j <= later <= wide.high_j)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_a_widened_reading_keeps_the_interval_of_its_windows():
    one = reading(1e-6)
    wide = one.between_sessions(0.05)
    assert wide.half_width > 5 * one.half_width
    assert wide.half_width_in_process == one.half_width == one.half_width_in_process
    within_sd = math.log(1.02 / 0.98) / (2 * 1.96)
    assert one.relative_sd == pytest.approx(within_sd)
    assert wide.relative_sd == pytest.approx(math.hypot(within_sd, 0.05))
    assert EnergyReading.from_dict(wide.to_dict()) == wide
    assert one.between_sessions(0.0) is one
    # Records of one process stay as they were.
    assert "between_sd" not in one.to_dict()
    assert EnergyReading.from_dict(one.to_dict()) == one


def test_a_deviation_between_sessions_must_be_a_number():
    with pytest.raises(ValueError, match="between_sd must be finite and >= 0, got -1"):
        replace(reading(1e-6), between_sd=-1.0)
