"""Labels, predictions and calibration of each runtime of a search."""

from dataclasses import replace

import numpy as np
import pytest
from record_fakes import DIGITS, made_record
from runtime_fakes import TWO, block, config, in_runtime, trial_in
from search_fakes import SPACE, WORKLOAD, reading, truth

from nas.searching.calibration.calibration import Calibration, CalibrationState
from nas.searching.calibration.in_runtimes import Calibrations, Turns
from nas.searching.calibration.labels import Labels
from nas.searching.conditions import conditions_of, labels_under, runtimes_of
from nas.searching.gating.surrogates import ArchitectureSurrogates
from nas.searching.gating.warm_start_data import WarmStartData
from predictors.energy.models import Observation
from predictors.measurement.process import MeasureInterrupted
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.sampling import sample


def members(n, seed=0):
    rng = np.random.default_rng(seed)
    return [sample(SPACE, rng) for _ in range(n)]


def test_each_runtime_has_predictions_of_its_own_and_the_least_counts():
    surrogates = ArchitectureSurrogates(
        WORKLOAD, seed=0, runtimes={name: WarmStartData() for name in TWO}
    )
    for name, factor in zip(TWO, (1.0, 0.5), strict=True):
        labels = [
            Observation.of_energy(a, WORKLOAD, reading(truth(a)[1] * factor)) for a in members(30)
        ]
        surrogates.add_observations(labels, name)
    batch = ArchitectureBatch.of(members(20, seed=1))
    apart, least = surrogates.in_runtimes(batch, 0.9), surrogates.energy_j(batch, 0.9)
    ratio = apart["onnxruntime"].mean / apart["torch"].mean
    assert np.median(ratio) == pytest.approx(0.5, rel=0.1)
    assert np.array_equal(least.mean, np.minimum(apart["torch"].mean, apart["onnxruntime"].mean))
    assert (least.low <= least.mean).all() and (least.mean <= least.high).all()
    assert surrogates.n_prior_energy == 30 and surrogates.log_energy is None


def test_a_runtime_that_does_not_measure_a_member_does_not_count_for_it():
    surrogates = ArchitectureSurrogates(
        WORKLOAD,
        seed=0,
        runtimes={name: WarmStartData() for name in TWO},
        choices={"onnxruntime": ("fp32", "dense")},
    )
    for name, factor in zip(TWO, (1.0, 0.5), strict=True):
        labels = [
            Observation.of_energy(a, WORKLOAD, reading(truth(a)[1] * factor)) for a in members(30)
        ]
        surrogates.add_observations(labels, name)
    batch = ArchitectureBatch.of([block("bf16"), block("fp32")])
    apart, least = surrogates.in_runtimes(batch, 0.9), surrogates.energy_j(batch, 0.9)
    assert least.mean[0] == apart["torch"].mean[0]
    assert least.mean[1] == min(each.mean[1] for each in apart.values())


def test_trials_are_labels_of_each_runtime_that_measured_them():
    surrogates = ArchitectureSurrogates(
        WORKLOAD, seed=0, runtimes={name: WarmStartData() for name in TWO}
    )
    trials = []
    for number, architecture in enumerate(members(30)):
        torch_j = truth(architecture)[1]
        trial = trial_in(number, torch=torch_j, onnxruntime=torch_j / 3)
        trials.append(
            replace(trial, candidate=replace(trial.candidate, architecture=architecture))
        )
    surrogates.refit(trials)
    apart = surrogates.in_runtimes(ArchitectureBatch.of(members(20, seed=1)), 0.9)
    ratio = apart["onnxruntime"].mean / apart["torch"].mean
    assert np.median(ratio) == pytest.approx(1 / 3, rel=0.1)


def test_labels_and_repeatability_are_kept_by_runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    conditions = conditions_of(config(runtime=TWO))
    labels = labels_under(conditions, TWO)
    assert [own.runtime for own in labels.values()] == list(TWO)
    assert labels["onnxruntime"].conditions.device.endswith(", onnxruntime")
    runtimes = runtimes_of(TWO, labels)
    assert runtimes.chosen(None)[0] == "torch"
    assert runtimes.chosen("onnxruntime") == (
        "onnxruntime",
        labels["onnxruntime"].repeatability().interval_sd,
    )


def test_a_calibration_measures_in_each_runtime_and_divides_its_joules(tmp_path):
    conditions = conditions_of(config(runtime=TWO))
    turns, asked = Turns(), []

    def part(own):
        def measure(architecture):
            asked.append(own.runtime)
            record = in_runtime(
                made_record(architecture, DIGITS, truth(architecture)[1]), own.runtime
            )
            return record

        space = SPACE.restrict(precisions=("fp32",))
        return Calibration(
            own, space, lambda a: turns.measure(measure, a), tmp_path / "c.jsonl",
            device="cpu", seed=0, n=3,
        )  # fmt: skip

    session = "s"
    parts = {n: part(Labels(c, None, session, n)) for n, c in zip(TWO, conditions, strict=True)}
    calibrations = Calibrations(parts, turns)
    calibrations.advance()
    assert {name: asked.count(name) for name in TWO} == dict.fromkeys(TWO, 4)
    new = calibrations.take()
    assert {name: len(labels) for name, labels in new.items()} == dict.fromkeys(TWO, 3)
    assert calibrations.take() == {}
    state = calibrations.state
    assert (state.n_measured, state.n_references) == (6, 2)
    assert {part.share for part in parts.values()} == {0.05}
    # A resumed search counts what each runtime took.
    again = part(Labels(conditions[1], None, session, "onnxruntime"))
    assert again.state.spent_energy_j == 4.0
    calibrations.close()
    with pytest.raises(MeasureInterrupted, match="the search has ended"):
        turns.measure(lambda _: None, block())


def test_states_of_runtimes_are_summed_and_the_worst_is_said():
    repeatability = Labels(conditions_of(config())[0], None, "s").repeatability()
    one = CalibrationState(1, 2, 1, 0.1, repeatability, True, 3.0)
    other = CalibrationState(0, 2, 1, None, repeatability, False, 4.0, "the device is lost")
    both = CalibrationState.of_runtimes([one, other])
    assert (both.n_labels, both.error, both.is_done, both.spent_energy_j) == (5, None, False, 7.0)
    assert both.failure == "the device is lost"
    assert CalibrationState.of_runtimes([one]) == one
