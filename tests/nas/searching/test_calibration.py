"""Calibration: what is measured before candidates are chosen, and what the gate learns of it."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from record_fakes import DIGITS, SPACE, made_record, true_j

from nas.records.config import SearchConfig
from nas.records.trial import Trial
from nas.searching.calibration import calibration as module
from nas.searching.calibration.calibration import (
    LEAST,
    LEAST_TRIALS,
    MOST,
    BackgroundCalibration,
    Calibration,
    pays,
    spent_in,
)
from nas.searching.calibration.held_out import held_out_errors
from nas.searching.calibration.labels import Labels, cache_of, new_session
from nas.searching.gating.prior_run import Conditions
from predictors.campaign.plan import reference_architecture
from predictors.energy.models import CostPredictor, Observation
from predictors.labels.cache import Label, LabelCache
from predictors.measurement.process import MeasureError
from predictors.measurement.records import read_records
from search_spaces.space import SearchSpace
from search_spaces.space.sampling import sample


def measured(architecture):
    return made_record(architecture, DIGITS, true_j(architecture))


REFERENCE = reference_architecture(DIGITS, "cpu")
CONDITIONS = Conditions.of(measured(REFERENCE).reading, DIGITS)


def made(tmp_path, measure=measured, kind=Calibration, cache=None, **options):
    labels = Labels(CONDITIONS, cache or LabelCache(tmp_path / "labels.jsonl"), new_session())
    path = tmp_path / "calibration.jsonl"
    options = {"device": "cpu", "seed": 0} | options
    return kind(labels, SPACE, measure, path, **options), labels


def test_members_that_fill_the_space_are_measured_between_references(tmp_path):
    order = []

    def measure(architecture):
        order.append("reference" if architecture == REFERENCE else architecture.hash)
        return measured(architecture)

    calibration, labels = made(tmp_path, measure)
    calibration.advance()
    state = calibration.state
    assert order[0] == order[9] == "reference"
    assert state.n_references == order.count("reference") >= 2
    assert LEAST <= state.n_measured == len({*order} - {"reference"}) <= MOST
    assert all(SPACE.contains(label.architecture) for label in labels.all()[1:8])
    assert state.is_done
    assert state.failure is None
    # Nothing else is due until trials are measured.
    assert not calibration.step()
    new = calibration.take()
    assert len(new) == state.n_measured
    assert calibration.take() == []
    records = read_records(tmp_path / "calibration.jsonl").records
    assert len(records) == len(order)
    assert spent_in(tmp_path / "calibration.jsonl") == pytest.approx(state.spent_energy_j)
    assert state.spent_energy_j == sum(record.spent_energy_j for record in records)


def test_measuring_ends_once_held_out_errors_are_small_and_at_the_most_otherwise(tmp_path):
    (tmp_path / "good").mkdir()
    good, _ = made(tmp_path / "good")
    good.advance()
    assert good.state.error < 0.1
    rng = np.random.default_rng(0)

    def noisy(architecture):
        return made_record(architecture, DIGITS, true_j(architecture) * np.exp(rng.normal(0, 1)))

    (tmp_path / "noisy").mkdir()
    bad, _ = made(tmp_path / "noisy", noisy)
    bad.advance()
    assert bad.state.n_measured == MOST
    assert bad.state.error > 0.1


def test_a_second_search_needs_a_reference_alone(tmp_path):
    first, _ = made(tmp_path, n=MOST)
    first.advance()
    second, labels = made(tmp_path, seed=1)
    second.advance()
    state = second.state
    assert (state.n_cached, state.n_measured, state.n_references) == (MOST, 0, 1)
    assert state.error is not None
    assert len(labels.observations()) == MOST
    assert f"{MOST} from earlier searches" in state.describe()


def test_a_search_of_another_space_measures_its_own_members(tmp_path):
    made(tmp_path)[0].advance()
    other = SearchSpace.from_dict(SPACE.to_dict() | {"name": "narrow", "d_model": [48]})
    labels = Labels(CONDITIONS, LabelCache(tmp_path / "labels.jsonl"), "other")
    calibration = Calibration(
        labels, other, measured, tmp_path / "other.jsonl", device="cpu", seed=0
    )
    calibration.advance()
    members = {x.architecture.hash for x in labels.all() if other.contains(x.architecture)}
    assert len(members) >= LEAST
    assert calibration.state.n_measured > 0


def test_trials_are_labels_and_make_references_due(tmp_path):
    calibration, labels = made(tmp_path, n=1)
    calibration.advance()
    before = calibration.state.n_references
    rng = np.random.default_rng(3)
    for number in range(8):
        architecture = sample(SPACE, rng)
        record = measured(architecture)
        trial = Trial.from_dict(
            {
                "candidate": {"number": number, "architecture": architecture.to_dict()},
                "outcome": {
                    "state": "complete",
                    "quality": {"value": 0.5, "standard_error": 0.01},
                    "measurement": {"reading": record.reading.to_dict()},
                },
            }
        )
        calibration.add_trial(trial)
    calibration.advance()
    assert calibration.state.n_references == before + 1
    assert sum(label.weights == "trained" for label in labels.all()) == 8
    # The gate has them from the trials themselves.
    assert len(calibration.take()) == 1


def test_a_trial_under_other_conditions_is_no_label(tmp_path):
    calibration, labels = made(tmp_path)
    architecture = sample(SPACE, np.random.default_rng(0))
    record = made_record(architecture, DIGITS, 1e-6, device="Another")
    trial = Trial.from_dict(
        {
            "candidate": {"number": 0, "architecture": architecture.to_dict()},
            "outcome": {
                "state": "complete",
                "quality": {"value": 0.5, "standard_error": 0.01},
                "measurement": {"reading": record.reading.to_dict()},
            },
        }
    )
    calibration.add_trial(trial)
    assert labels.all() == []


def test_a_failing_member_is_left_out_and_a_failing_device_ends_the_calibration(tmp_path):
    n_failed = 0

    def once(architecture):
        nonlocal n_failed
        if architecture != REFERENCE and not n_failed:
            n_failed += 1
            raise MeasureError("no kernel\nand a traceback")
        return measured(architecture)

    (tmp_path / "once").mkdir()
    calibration, _ = made(tmp_path / "once", once)
    calibration.advance()
    assert calibration.state.failure is None
    assert calibration.state.n_measured >= LEAST - 1

    def never(architecture):
        raise MeasureError("the device is lost\nand a traceback")

    (tmp_path / "never").mkdir()
    lost, _ = made(tmp_path / "never", never)
    lost.advance()
    assert lost.state.failure == "the device is lost"
    assert "ended early: the device is lost" in lost.state.describe()


def test_the_background_measures_beside_and_starts_nothing_after_its_end(tmp_path):
    begun, may_go_on = threading.Event(), threading.Event()
    measuring = []

    def measure(architecture):
        measuring.append(architecture)
        begun.set()
        assert may_go_on.wait(20)
        return measured(architecture)

    calibration, labels = made(tmp_path, measure, BackgroundCalibration)
    calibration.advance()
    assert begun.wait(20)
    closer = threading.Thread(target=calibration.close)
    closer.start()
    while not calibration._is_closed:
        closer.join(0.01)
    may_go_on.set()
    closer.join(20)
    assert len(measuring) == 1
    # Another driver may write to the run by now.
    assert labels.all() == []
    assert not (tmp_path / "calibration.jsonl").exists()
    calibration.advance()
    assert len(measuring) == 1


def test_a_cache_that_cannot_be_written_costs_nothing_but_the_cache(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    calibration, labels = made(tmp_path, cache=LabelCache(blocked / "labels.jsonl"))
    calibration.advance()
    assert calibration.state.failure is None
    assert len(labels.observations()) == calibration.state.n_measured >= LEAST


def test_caches_differ_by_conditions():
    other = replace(CONDITIONS, limits="300 W")
    assert cache_of(CONDITIONS).path == cache_of(CONDITIONS).path
    assert cache_of(CONDITIONS).path != cache_of(other).path


def test_short_searches_and_those_without_it_do_not_calibrate():
    config = SearchConfig(task="digits", space=SPACE, trials=LEAST_TRIALS)
    assert pays(config)
    assert not pays(replace(config, trials=LEAST_TRIALS - 1))
    assert not pays(replace(config, calibration=False))


def test_held_out_errors_never_use_a_label_of_the_same_architecture():
    rng = np.random.default_rng(0)
    members = [sample(SPACE, rng) for _ in range(20)]
    rows = [Observation.of_energy(a, DIGITS, measured(a).reading) for a in members]
    errors = held_out_errors(rows)
    assert errors.shape == (20,)
    assert np.median(errors) < 0.1
    # A label that no other supports is off by itself, and not by its own copies.
    outlier = rows[0].scaled(50)
    errors = held_out_errors([outlier, outlier, *rows[1:]])
    assert min(errors[:2]) > 0.9
    with pytest.raises(ValueError, match="two architectures or more on one workload"):
        held_out_errors(rows[:1])


def test_the_predictor_is_fitted_to_the_labels(tmp_path):
    calibration, labels = made(tmp_path)
    calibration.advance()
    predictor = CostPredictor.fit(labels.observations())
    rng = np.random.default_rng(9)
    members = [sample(SPACE, rng) for _ in range(50)]
    predicted = predictor.predict(members, DIGITS).mean
    errors = np.abs(predicted / np.array([true_j(a) for a in members]) - 1)
    assert np.median(errors) < 0.1


def test_labels_of_references_are_not_observations(tmp_path):
    labels = Labels(CONDITIONS, LabelCache(tmp_path / "labels.jsonl"), "s")
    labels.add(Label(REFERENCE, measured(REFERENCE).reading, "s", is_reference=True))
    assert labels.observations() == []


def test_the_predictor_is_judged_a_few_times_however_many_trials_there_are(tmp_path, monkeypatch):
    judged = []

    def errors(observations, **_):
        judged.append(len(observations))
        return np.array([0.5])

    monkeypatch.setattr(module, "held_out_errors", errors)
    calibration, labels = made(tmp_path)
    calibration.advance()
    for architecture in members(200):
        reading = measured(architecture).reading
        labels.add(Label(architecture, reading, labels.session, "trained"))
        calibration.advance()
    assert judged == sorted(set(judged))
    assert len(judged) <= 4
    assert calibration.state.n_measured == MOST


def members(n):
    rng = np.random.default_rng(4)
    return [sample(SPACE, rng) for _ in range(n)]
