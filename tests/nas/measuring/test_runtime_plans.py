"""In which order runtimes measure a candidate, what rules one out, and what is stored."""

import json
import math
from dataclasses import replace

import pytest
from record_fakes import DIGITS, made_record
from runtime_fakes import THREE, TWO, block, config, estimate, in_runtime, trial_in
from search_fakes import finished, reading

from nas.core.estimate import Score
from nas.core.units import format_joules
from nas.evaluation.evaluator import forget_unfinished
from nas.evaluation.in_runtimes import MEASURED, Subject, measure_in_runtimes
from nas.records.candidate import Candidate
from nas.records.runtime_plan import RuntimePlan
from nas.records.trial import Trial
from nas.searching.controller.runtime_plans import (
    measure_above,
    no_runtime,
    refusal_of,
    runtime_plans,
)
from predictors.measurement.process import MeasureError, MeasureInterrupted

GOOD = Score(0.9, 0.001)


def plans_of(architecture, predictions, quality_to_beat=lambda _: None, **changes):
    own = config(runtime=THREE, **changes)
    return runtime_plans(own, DIGITS, architecture, predictions, quality_to_beat)


def test_plans_are_by_predicted_joules_and_refusals_come_last():
    predictions = {name: estimate(j) for name, j in zip(THREE, (3e-6, 2e-6, 1e-6), strict=True)}
    choices = {"openvino": ("fp32", "dense")}
    plans = plans_of(block("int8"), predictions, runtime_choices=choices)
    assert [plan.name for plan in plans] == ["onnxruntime", "torch", "openvino"]
    assert "int8 (layers.0.attention) is not real there" in plans[2].refusal
    assert no_runtime(plans) is None and not plans[0].is_required
    assert runtime_plans(config(), DIGITS, block(), {}, None) == ()
    # A limit of the converter is known before a training is spent on the candidate.
    shared = block(n_kv_heads=1)
    served = config(runtime=("torch", "litert"))
    assert "one key-value head" in refusal_of(served, DIGITS, shared, "litert")
    only = runtime_plans(config(runtime=("litert", "executorch")), DIGITS, block("bf16"), {}, None)
    assert no_runtime(only).startswith("no runtime of the search runs it: litert: litert runs")


def test_a_baseline_and_a_limit_of_latency_are_measured_in_every_runtime():
    predictions = {name: estimate(1e-6) for name in THREE}
    assert all(p.is_required for p in plans_of(block(), predictions, None))
    limited = plans_of(block(), predictions, lambda _: 0.99, max_latency_s=1.0)
    assert all(p.is_required and p.measure_above is None for p in limited)
    judged = plans_of(block(), predictions, lambda prediction: 0.99)
    assert [p.measure_above for p in judged] == [0.99] * 3


def test_a_candidate_is_unmeasured_only_where_the_front_beats_it_in_every_runtime():
    def to_beat(prediction):
        return 0.95 if prediction.low > 2e-6 else 0.9 if prediction.low > 1e-6 else None

    dear = {name: estimate(j) for name, j in zip(THREE, (3e-6, 1.5e-6, 4e-6), strict=True)}
    assert measure_above(plans_of(block(), dear, to_beat), estimate(9e-6), to_beat) == 0.9
    cheap = dear | {"openvino": estimate(0.5e-6)}
    assert measure_above(plans_of(block(), cheap, to_beat), estimate(9e-6), to_beat) is None
    # A runtime that cannot run it does not count, nor does its prediction.
    choices = {"openvino": ("int8", "dense")}
    refused = plans_of(block(), cheap, to_beat, runtime_choices=choices)
    assert measure_above(refused, estimate(9e-6), to_beat) == 0.9
    assert measure_above((), estimate(3e-6), to_beat) == 0.95
    assert measure_above((), estimate(3e-6), None) is None


def test_a_runtime_is_ruled_out_by_the_front_or_by_another_runtime():
    plan = RuntimePlan("openvino", estimate(2e-6), measure_above=0.95)
    cheap = {"torch": reading(1.9e-6)}
    assert "a member of the front has a higher quality" in plan.ruled_out(GOOD, {})
    assert plan.ruled_out(Score(0.949, 0.01), {}) is None
    assert f"torch takes {format_joules(1.9e-6)}" in plan.ruled_out(Score(0.99, 0.01), cheap)
    assert plan.ruled_out(Score(0.99, 0.01), {"torch": reading(2.1e-6)}) is None
    assert replace(plan, is_required=True).ruled_out(GOOD, cheap) is None
    assert replace(plan, refusal="no").ruled_out(GOOD, {}) == "no"
    assert RuntimePlan("torch").ruled_out(GOOD, cheap) is None


class Measuring:
    """Joules by runtime; an error in place of a number is raised."""

    def __init__(self, **joules):
        self.joules, self.asked = joules, []

    def __call__(self, architecture, workload, weights, inputs, runtime=None):
        self.asked.append(runtime)
        energy_j = self.joules[runtime]
        if isinstance(energy_j, BaseException):
            raise energy_j
        latency_s = 1e-3 if runtime == "torch" else 5e-3
        record = made_record(architecture, workload, energy_j, latency_s=latency_s)
        return in_runtime(record, runtime)


def measured(measure, folder, plans=None, quality=GOOD, **changes):
    folder.mkdir(exist_ok=True)
    plans = plans or tuple(RuntimePlan(name) for name in THREE)
    candidate = Candidate(3, block(), estimate(1e-7), runtimes=plans, **changes)
    subject = Subject(DIGITS, None, folder / "inputs.npy")
    return measure_in_runtimes(candidate, quality, subject, measure, folder)


def test_the_cheapest_runtime_has_the_trials_joules(tmp_path):
    measure = Measuring(torch=3e-6, onnxruntime=1e-6, openvino=2e-6)
    found = measured(measure, tmp_path)
    assert found.measurement.reading.runtime == "onnxruntime" and found.spent_j == 3.0
    assert list(found.measurement.in_runtimes()) == ["onnxruntime", "openvino", "torch"]
    assert found.measurement.left_out_runtimes == {}
    # Within a limit of latency the cheapest of those that keep it.
    subject = Subject(DIGITS, None, tmp_path / "inputs.npy")
    candidate = Candidate(3, block(), runtimes=tuple(RuntimePlan(name) for name in THREE))
    (tmp_path / "other").mkdir()
    limited = measure_in_runtimes(
        candidate, GOOD, subject, measure, tmp_path / "other", max_latency_s=2e-3
    )
    assert limited.measurement.reading.runtime == "torch"


def test_what_predictions_rule_out_is_not_measured_and_says_why(tmp_path):
    measure = Measuring(torch=1e-6, onnxruntime=3e-6, openvino=2e-6)
    plans = (
        RuntimePlan("torch", estimate(0.9e-6)),
        RuntimePlan("openvino", estimate(1.5e-6)),
        RuntimePlan("onnxruntime", estimate(0.95e-6, 3e-6, 4e-6)),
    )
    found = measured(measure, tmp_path, plans)
    assert measure.asked == ["torch", "onnxruntime"]
    assert list(found.measurement.left_out_runtimes) == ["openvino"]
    assert f"torch takes {format_joules(1e-6)}" in found.measurement.left_out_runtimes["openvino"]


def test_a_candidate_that_the_front_dominates_is_measured_in_no_runtime(tmp_path):
    measure = Measuring()
    plans = tuple(RuntimePlan(name, estimate(1e-6), measure_above=0.95) for name in TWO)
    found = measured(measure, tmp_path, plans, measure_above=0.95)
    assert measure.asked == [] and found.measurement.reading is None
    assert set(found.measurement.left_out_runtimes) == set(TWO)
    # A trial says in which runtime its prediction is.
    trial = Trial(Candidate(0, block(), estimate(1e-6), runtimes=plans[::-1]))
    assert trial.runtime == "onnxruntime"


def test_a_runtime_that_fails_is_left_out_and_a_candidate_fails_where_all_do(tmp_path):
    cause = MeasureError("its converter refuses it")
    measure = Measuring(torch=2e-6, onnxruntime=cause, openvino=MeasureInterrupted("killed"))
    found = measured(measure, tmp_path)
    assert found.measurement.reading.runtime == "torch"
    assert found.measurement.left_out_runtimes == {
        "onnxruntime": "its converter refuses it",
        "openvino": "killed",
    }
    with pytest.raises(MeasureError, match="torch: no"):
        measured(Measuring(**dict.fromkeys(THREE, MeasureError("no"))), tmp_path / "all")


def test_a_trial_with_two_of_three_runtimes_measured_goes_on(tmp_path):
    measure = Measuring(torch=3e-6, onnxruntime=MeasureError("no"), openvino=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        measured(measure, tmp_path)
    again = Measuring(torch=math.nan, onnxruntime=math.nan, openvino=2e-6)
    found = measured(again, tmp_path)
    assert again.asked == ["openvino"]
    assert found.measurement.reading.runtime == "openvino" and found.spent_j == 2.0
    assert found.measurement.left_out_runtimes == {"onnxruntime": "no"}
    # A damaged file costs its measurements alone, and an ended trial has none.
    (tmp_path / MEASURED).write_text('{"records": {"torch": {}}, "failures": {}}')
    whole = Measuring(torch=3e-6, onnxruntime=1e-6, openvino=2e-6)
    assert measured(whole, tmp_path).measurement.reading.runtime == "onnxruntime"
    assert whole.asked == list(THREE)
    forget_unfinished(tmp_path)
    assert not (tmp_path / MEASURED).exists()


def test_a_trial_is_stored_with_its_runtimes_and_repeated_in_the_cheapest():
    trial = trial_in(torch=3e-6, onnxruntime=1e-6)
    again = Trial.from_dict(json.loads(json.dumps(trial.to_dict())))
    assert again == trial and again.in_runtimes == trial.in_runtimes
    assert again.runtime == "onnxruntime"
    assert [plan.name for plan in again.replica_runtimes] == ["onnxruntime"]
    tuned = again.finalist(5)
    assert [plan.name for plan in tuned.runtimes] == list(TWO)
    assert all(plan.measure_above is None for plan in tuned.runtimes)
    assert finished(Candidate(0, block())).replica_runtimes == ()
