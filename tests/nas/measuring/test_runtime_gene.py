"""A search with several runtimes: one training, a measurement in each that is not ruled out."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from record_fakes import DIGITS, made_record
from search_fakes import SPACE, WORKLOAD, finished, make_trial, reading, report, truth

import nas
from nas.cli.main import main
from nas.core.estimate import Estimate, Score
from nas.core.units import format_joules
from nas.evaluation.evaluator import forget_unfinished
from nas.evaluation.in_runtimes import MEASURED, Subject, measure_in_runtimes
from nas.records.candidate import Candidate, Measurement
from nas.records.config import SearchConfig
from nas.records.device_names import MeasuredDevice
from nas.records.runtime_plan import RuntimePlan
from nas.records.trial import Trial
from nas.searching import in_process, study
from nas.searching.calibration.calibration import Calibration, CalibrationState
from nas.searching.calibration.in_runtimes import Calibrations, Turns
from nas.searching.calibration.labels import Labels
from nas.searching.conditions import conditions_of, labels_under, runtimes_of
from nas.searching.controller import available
from nas.searching.controller.runtime_plans import (
    measure_above,
    no_runtime,
    refusal_of,
    runtime_plans,
)
from nas.searching.gating.surrogates import ArchitectureSurrogates
from nas.searching.gating.warm_start_data import WarmStartData
from predictors.energy.models import Observation
from predictors.measurement.process import MeasureError, MeasureInterrupted
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.sampling import sample

TWO, THREE = ("torch", "onnxruntime"), ("torch", "onnxruntime", "openvino")
GOOD = Score(0.9, 0.001)


def block(precision="fp32", n_kv_heads=2):
    compression = Compression(precision)
    attention = AttentionSpec(2, n_kv_heads, 8, None, compression)
    layer = LayerSpec(attention, FfnSpec(16, None, compression))
    return Architecture(16, (layer,), patch_size=4)


def config(**changes):
    given = {"trials": 4, "sampler": "random", "meter": "estimate", "protocol": "quick"}
    given |= {"space": SPACE.restrict(precisions=("fp32",)), "calibration": False}
    return SearchConfig(task="digits", **(given | changes))


def estimate(low, mean=None, high=None):
    return Estimate(mean or low * 1.1, low, high or low * 1.3, "predicted")


def in_runtime(record, name):
    return replace(record, reading=replace(record.reading, runtime=name))


# The space and the configuration.


def test_a_space_names_its_runtimes_and_is_written_as_it_was_read(tmp_path):
    path = tmp_path / "space.yaml"
    data = SPACE.to_dict()
    path.write_text(json.dumps(data | {"runtime": list(TWO)}))
    space = SearchSpace.from_yaml(path)
    assert space.runtime == TWO and SearchSpace.from_dict(space.to_dict()) == space
    assert config(space=space).runtimes == TWO
    # One runtime more is asked for where the command names others.
    assert config(space=space, runtime=("openvino",)).runtimes == ("openvino",)
    # Spaces without the key have the data and the fingerprint that they had.
    assert "runtime" not in data and SPACE.runtime == () and config().runtimes == ("torch",)
    assert SearchSpace.from_dict(data | {"runtime": "openvino"}).runtime == ("openvino",)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], r"space file .*: runtime must be a list of runtimes or left out, got \[\]"),
        (3, "space file .*: runtime must be a list of runtimes, got 3"),
        (["torch", 1], "space file .*: runtime must be a list of runtimes"),
        (["torch", "torch"], "space file .*: runtime must name each once, got torch, torch"),
    ],
)
def test_runtimes_of_a_space_that_are_no_list_of_names_are_one_line(tmp_path, value, words):
    path = tmp_path / "space.yaml"
    path.write_text(json.dumps(SPACE.to_dict() | {"runtime": value}))
    with pytest.raises(ValueError, match=words):
        SearchSpace.from_yaml(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runtime": ("torch", "onnx")}, "runtime must be one of .*, got 'onnx'"),
        (
            {"runtime": TWO, "measure_on": (MeasuredDevice("edge"),)},
            "measure_on must be empty with several runtimes, got edge with torch, onnxruntime",
        ),
        (
            {"runtime": TWO, "runtime_choices": {"litert": ("fp32",)}},
            "runtime_choices must be of runtimes of the search, torch, onnxruntime, got litert",
        ),
        ({"runtime": TWO, "device": "cuda:0"}, "runtime onnxruntime runs on the CPU"),
    ],
)
def test_runtimes_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        config(**changes)


def test_a_stored_search_has_its_runtimes_again():
    stored = config(runtime=TWO, runtime_choices={"torch": ("fp32", "dense")})
    assert SearchConfig.from_dict(json.loads(json.dumps(stored.to_dict()))) == stored


def test_the_command_takes_runtimes_again_and_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["search", "quickstart", "--runtime", "torch", "--runtime", "onnx"]
    assert main(words) == 2
    said = capsys.readouterr().err.strip()
    assert "runtime must be one of" in said and "'onnx'" in said and len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


# What is real in each runtime.


def probed(space, device, rows, runtime):
    return {
        "torch": report(fp32="real", bf16="real", int8="harmful", int8wo="simulated"),
        "onnxruntime": report(fp32="real", int8="real"),
        "openvino": report(fp32="real", bf16="real", int8="harmful"),
    }[runtime]


def test_a_space_keeps_what_is_real_somewhere_and_each_runtime_measures_its_own():
    domain = ["fp32", "bf16", "int8", "int8wo"]
    space = SearchSpace.from_dict(
        SPACE.to_dict() | {"attention_precision": domain, "ffn_precision": domain}
    )
    with available.probed_by(probed):
        found, choices = available.space_for(space, "cpu", (2048,), THREE)
        lines = available.unmeasured_choices(space, "cpu", (2048,), choices)
        one, none = available.space_for(space, "cpu", (2048,), ("onnxruntime",))
    assert set(found.values("ffn_precision")) == {"fp32", "bf16", "int8", "int8wo"}
    # int8wo is real nowhere, and stays where it runs: the user named it.
    assert set(choices["torch"]) == {"fp32", "bf16", "int8wo", "dense"}
    assert set(choices["onnxruntime"]) == {"fp32", "int8", "dense"}
    # OpenVINO computes in bf16 throughout, which is no choice of a block.
    assert set(choices["openvino"]) == {"fp32", "dense"}
    assert "int8 is not measured in torch: int8 is harmful" in lines
    assert (
        "bf16 is not measured in openvino: it is the precision of a whole network there" in lines
    )
    assert none == {} and one.values("ffn_precision") == ("fp32", "int8")


def test_a_runtime_that_holds_no_member_is_one_line():
    domain = {"attention_precision": ["int8"], "ffn_precision": ["int8"]}
    space = SearchSpace.from_dict(SPACE.to_dict() | domain)
    with (
        available.probed_by(probed),
        pytest.raises(ValueError, match="runtime torch must hold members of the space: attention"),
    ):
        available.space_for(space, "cpu", (2048,), TWO)


# Which runtimes measure a candidate.


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


# Measuring a candidate.


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


def trial_in(number=0, **joules):
    readings = {n: replace(reading(j), runtime=n) for n, j in joules.items()}
    least = min(readings, key=lambda name: readings[name].energy_j)
    plans = tuple(RuntimePlan(name, estimate(1e-6)) for name in readings)
    trial = finished(Candidate(number, block(), runtimes=plans))
    measurement = Measurement(
        readings[least], other_runtimes={n: r for n, r in readings.items() if n != least}
    )
    return replace(trial, outcome=replace(trial.outcome, measurement=measurement))


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


# Predictions.


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


# A whole search with made-up figures.


class Trained:
    """Trains nothing, and measures as the evaluator does; ``trained`` are the candidates."""

    trained: list[int] = []  # noqa: RUF012

    def __init__(self, *_):
        pass

    def evaluate(self, candidate, folder, measure, tell=None):
        type(self).trained.append(candidate.number)
        outcome = finished(candidate).outcome
        inputs = folder.parent.parent / "inputs.npy"
        subject = Subject(DIGITS, None, inputs)
        found = measure_in_runtimes(candidate, outcome.quality, subject, measure, folder)
        return replace(outcome, measurement=found.measurement)


def searched(monkeypatch, folder, fail_at=None, **changes):
    """Search with joules by formula: ONNX Runtime takes 0.8 of torch's, of small networks 1.2."""
    asked = []

    def made(architecture, workload, *, runtime, **_):
        if len(asked) == fail_at:
            raise KeyboardInterrupt
        asked.append((architecture.hash, runtime))
        energy_j = truth(architecture)[1]
        factor = {"torch": 1.0, "onnxruntime": 0.8 if architecture.depth > 1 else 1.2}[runtime]
        return in_runtime(made_record(architecture, workload, energy_j * factor), runtime)

    Trained.trained = []
    monkeypatch.setattr(in_process, "measure_candidate", made)
    monkeypatch.setattr(study, "TrainingEvaluator", Trained)
    run = nas.search(
        config(runtime=TWO, **changes), folder, workers=0, resume=(folder / "run.json").exists()
    )
    return run, asked


def test_a_search_trains_once_and_its_front_says_the_runtime(tmp_path, monkeypatch, capsys):
    run, asked = searched(monkeypatch, tmp_path / "run", trials=8)
    trials = run.trials()
    assert sorted(Trained.trained) == [trial.number for trial in trials] and len(trials) == 8
    assert len(asked) == len(set(asked)) == 16
    for trial in trials:
        cheapest = "onnxruntime" if trial.architecture.depth > 1 else "torch"
        assert trial.runtime == trial.reading.runtime == cheapest
        assert set(trial.in_runtimes) == set(TWO)
    front = run.front()
    assert {member.runtime for member in front} <= set(TWO)
    member = front.members[0]
    assert member.energy_j == min(trial.energy_j for trial in trials)
    (other,) = member.other_runtimes_j.items()
    assert other[0] != member.runtime and other[1] > member.energy_j
    assert main(["front", str(run.folder)]) == 0
    shown = capsys.readouterr().out
    assert "runtime" in shown.splitlines()[0] and "onnxruntime" in shown
    assert "runtime: the cheapest of those that a network was measured in" in shown
    assert main(["front", str(run.folder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["members"]
    assert [row["runtime"] for row in rows] == [m.runtime for m in front]
    assert main(["front", str(run.folder), "--csv"]) == 0
    assert f"{other[0]}={other[1]}" in capsys.readouterr().out
    assert main(["explain", str(run.folder), str(member.trial)]) == 0
    shown = capsys.readouterr().out
    assert f"runtime    {member.runtime}, the cheapest measured" in shown
    assert f"{other[0]}: " in shown


def test_an_interrupted_search_measures_only_what_is_missing(tmp_path, monkeypatch):
    run, before = searched(monkeypatch, tmp_path / "run", fail_at=5)
    # The third trial has one reading of two.
    assert len(before) == 5 and not run.trials()[2].in_runtimes
    run, after = searched(monkeypatch, tmp_path / "run")
    assert len({*before, *after}) == len(before) + len(after) == 8
    assert all(set(trial.in_runtimes) == set(TWO) for trial in run.trials())
    assert not list(run.folder.glob(f"trials/*/{MEASURED}"))


def test_a_candidate_that_no_runtime_runs_costs_no_training(tmp_path, monkeypatch):
    choices = {name: ("fp32", "dense") for name in TWO}
    run, _ = searched(
        monkeypatch, tmp_path / "run", trials=4, space=SPACE, runtime_choices=choices
    )
    dropped = [trial for trial in run.trials() if trial.state == "dropped"]
    assert dropped and all("no runtime of the search runs it" in t.reason for t in dropped)
    assert {t.number for t in dropped}.isdisjoint(Trained.trained)


def test_a_report_names_the_runtimes_of_each_trial(tmp_path, monkeypatch):
    from nas.reporting.data import page_data

    run, _ = searched(monkeypatch, tmp_path / "run")
    text = json.dumps(page_data(run))
    assert '"runtime"' in text and "in torch" in text and "in onnxruntime" in text


def test_int8_of_a_converter_is_said_to_have_torchs_quality():
    from nas.analysis.front_table import front_columns, place_text, runtime_notes
    from nas.pareto.queries import Front
    from nas.records.front_member import member_of

    trial = trial_in(torch=3e-6, onnxruntime=1e-6)
    own = replace(trial, candidate=replace(trial.candidate, architecture=block("int8")))
    notes = {}
    for name, each in (("int8", own), ("fp32", trial)):
        front = Front.of([member_of(each, "cpu")])
        notes[name] = runtime_notes(front)
        assert dict((head, cells) for head, cells, _ in front_columns(front))["runtime"] == [
            f"onnxruntime, torch {format_joules(3e-6)}"
        ]
        assert place_text(front) == "d"
    assert any("quality of int8 is that of torch's int8" in line for line in notes["int8"])
    assert not any("int8" in line for line in notes["fp32"])
    plain = make_trial(1, "complete", block(), 0.9, 0.01, reading=reading(1e-6), params=1)
    assert runtime_notes(Front.of([member_of(plain, "cpu")])) == []


@pytest.mark.thorough
def test_a_real_search_measures_in_two_runtimes_and_exports_the_cheapest_form(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    data = {"name": "tiny", "d_model": [16, 32], "depth": [1], "n_heads": [2]}
    data |= {"n_kv_heads": [2], "ffn_ratio": [1, 2], "patch_size": [4], "runtime": list(TWO)}
    (tmp_path / "tiny.yaml").write_text(json.dumps(data))
    words = ["search", "--task", "digits", "--space", "tiny.yaml", "--trials", "2"]
    words += ["--epochs", "1", "--workers", "0", "--meter", "estimate", "--run", "run"]
    assert main([*words, "--device", "cpu", "--no-calibration"]) == 0
    said = capsys.readouterr()
    assert "cpu in torch, onnxruntime" in said.err
    assert "runtime" in said.out
    run = nas.load("run")
    for trial in run.trials():
        assert {r.runtime for r in trial.in_runtimes.values()} | set(trial.left_out_runtimes) == {
            *TWO
        }
        assert trial.reading.energy_j == min(r.energy_j for r in trial.in_runtimes.values())
    member = run.front().members[0]
    assert member.runtime in TWO
    words = ["export", "run", "--trial", str(member.trial), "--to", "model", "--quiet"]
    assert main([*words, "--joule-tolerance", "9"]) == 0
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    is_served = member.runtime == "onnxruntime"
    assert ("onnx" in card["formats"]) == is_served
    assert (tmp_path / "model" / "model.onnx").exists() == is_served
    assert card["verified"]["reading"].get("runtime", "torch") == member.runtime
