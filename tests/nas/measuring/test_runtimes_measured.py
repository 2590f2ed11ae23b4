"""Joules of one network in several runtimes: plans, records, the command, a search."""

import json
from dataclasses import replace

import pytest
from record_fakes import DIGITS, made_record
from search_fakes import SPACE, finished

import nas
from nas.cli.main import main
from nas.measuring.measure import Forms
from nas.measuring.networks import plan_networks
from nas.records.config import SearchConfig
from nas.searching import in_process, study
from nas.searching.calibration.labels import cache_of
from nas.searching.conditions import conditions_of
from nas.searching.controller import available
from predictors.campaign.active import Bench
from predictors.campaign.plan import PlanItem, plan_items
from predictors.energy.artifact import Provenance
from predictors.energy.evaluation import by_device
from predictors.measurement.protocol import get_protocol
from predictors.measurement.records import EnergyRecord, read_records
from predictors.meters.base import EnergyReading
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.compression.realness import real_choices
from search_spaces.runtimes.registry import RUNTIMES

QUICK = get_protocol("quick")
BENCH = Bench("cpu", "estimate", "cpu-seconds x 6 W", "Fake", QUICK)
ORT, VINO = RUNTIMES["onnxruntime"], RUNTIMES["openvino"]


def small(precision="fp32"):
    compression = Compression(precision)
    layer = LayerSpec(AttentionSpec(2, 2, 8, None, compression), FfnSpec(16, None, compression))
    return Architecture(16, (layer,), patch_size=4)


def test_a_plan_has_torch_first_and_names_what_a_runtime_cannot_hold(tmp_path):
    items = [PlanItem(small(), DIGITS), PlanItem(small("bf16"), DIGITS)]
    plan = plan_networks(items, BENCH, tmp_path / "r.jsonl", [ORT], n_rounds=2)
    assert [[i.runtime for i in group] for group in plan.rounds.groups] == [
        ["torch", "onnxruntime"],
        ["torch"],
    ]
    (line,) = plan.left_out
    assert line.startswith("onnxruntime digits/b128") and line.endswith("fp32, int8, not bf16")
    with pytest.raises(ValueError, match="runtime must be one that holds the architectures: "):
        plan_networks(items[1:], BENCH, tmp_path / "r.jsonl", [ORT], n_rounds=1)


def test_runtimes_have_records_and_keys_of_their_own():
    plan = plan_items([], protocol=QUICK, device="cpu")
    torch, ort = PlanItem(small(), DIGITS), PlanItem(small(), DIGITS, runtime="onnxruntime")
    assert plan.key(torch) != plan.key(ort)
    record = made_record(small(), DIGITS, 1e-5)
    served = replace(record, reading=replace(record.reading, runtime="onnxruntime"))
    # Readings in torch stay as they were before there were other runtimes.
    assert "runtime" not in record.to_dict()["reading"]
    assert EnergyReading.from_dict(record.reading.to_dict()).place == "Fake"
    read = EnergyRecord.from_dict(json.loads(json.dumps(served.to_dict())))
    assert read.reading.runtime == "onnxruntime" and read.reading.place == "Fake, onnxruntime"
    assert len(by_device([record, served])) == 2
    with pytest.raises(ValueError, match="share one device, got Fake, Fake, onnxruntime"):
        Provenance.of([record, served])
    assert Provenance.of([served]).device == "Fake, onnxruntime"


def test_labels_of_runtimes_are_kept_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caches = set()
    for name in ("torch", "onnxruntime", "openvino"):
        (conditions,) = conditions_of(config(runtime=name))
        caches.add(cache_of(conditions, name).path)
        assert conditions.device.endswith(name) == (name != "torch")
    assert len(caches) == 3


def config(**changes):
    space = SPACE.restrict(precisions=("fp32",))
    given = {"trials": 2, "sampler": "random", "meter": "estimate", "protocol": "quick"}
    return SearchConfig(task="digits", space=space, **(given | changes))


def test_a_run_from_before_other_runtimes_is_torchs():
    data = config(runtime="openvino").to_dict()
    assert SearchConfig.from_dict(data).runtimes == ("openvino",)
    del data["runtime_choices"]
    # As it was when a search had one runtime.
    assert SearchConfig.from_dict(data | {"runtime": "openvino"}).runtimes == ("openvino",)
    del data["runtime"]
    assert SearchConfig.from_dict(data).runtimes == ("torch",)


def test_a_search_measures_each_candidate_in_its_runtime(tmp_path, monkeypatch):
    asked = []

    def measured(architecture, workload, **named):
        asked.append(named["runtime"])
        record = made_record(architecture, workload, 1e-5)
        return replace(record, reading=replace(record.reading, runtime=named["runtime"]))

    class Measured:
        def __init__(self, *_):
            pass

        def evaluate(self, candidate, folder, measure, tell=None):
            outcome = finished(candidate).outcome
            reading = measure(candidate.architecture, DIGITS, None, run_inputs()).reading
            return replace(outcome, measurement=replace(outcome.measurement, reading=reading))

    def run_inputs():
        return tmp_path / "run" / "inputs.npy"

    monkeypatch.setattr(in_process, "measure_candidate", measured)
    monkeypatch.setattr(study, "TrainingEvaluator", Measured)
    run = nas.search(config(runtime="openvino", calibration=False), tmp_path / "run", workers=0)
    assert asked == ["openvino"] * 2
    assert {trial.reading.place for trial in run.trials()} == {"Fake, openvino"}
    assert nas.load(run.folder).config.runtimes == ("openvino",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runtime": "onnxruntme"}, "runtime must be one of torch.*did you mean 'onnxruntime'"),
        ({"runtime": "litert", "device": "cuda:0"}, "runtime litert runs on the CPU"),
    ],
)
def test_a_search_in_no_runtime_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        config(**changes)


def test_a_space_keeps_what_is_real_in_the_runtime(monkeypatch):
    asked = []

    def probed(space, device, rows, runtime):
        from search_spaces.compression.realness import RealnessReport, Row, Shape

        asked.append(runtime)
        shape = Shape(64, 2048)
        names = ("fp32", "bf16", "int8", "dense")
        rows = tuple(Row(name, shape, "real") for name in names)
        return RealnessReport(device, "Fake", {}, rows)

    space = SPACE.restrict(precisions=("fp32", "bf16"))
    with available.probed_by(probed):
        kept = available.available_space(space, "cpu", (2048,), "openvino")
        same = available.available_space(space, "cpu", (2048,))
    assert asked == ["openvino", "torch"]
    # OpenVINO computes in bf16 throughout, which is no choice of a block.
    assert kept.values("ffn_precision") == ("fp32",)
    assert same.values("ffn_precision") == ("fp32", "bf16")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--compare", "a.json", "b.json"], "--compare measures in torch: leave out --runtime"),
        (["a.json", "--batch-size", "auto"], "--runtime measures at one batch size"),
        (["a.json", "--runtime", "tflite"], "runtime must be one of torch"),
    ],
)
def test_what_does_not_go_together_is_one_line(tmp_path, monkeypatch, capsys, words, error):
    monkeypatch.chdir(tmp_path)
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(small().to_dict()))
    assert main(["measure", *words, "--runtime", "onnxruntime"]) == 2
    said = capsys.readouterr().err.strip()
    assert error in said and len(said.splitlines()) == 1
    assert not list(tmp_path.glob("*.jsonl"))


@pytest.mark.thorough
def test_the_command_measures_a_network_in_runtimes_and_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(small().to_dict()))
    words = ["measure", "a.json", "--runtime", "onnxruntime", "--runtime", "openvino"]
    words += ["--rounds", "1", "--quiet", "--meter", "estimate"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["runtime"] for row in found["rows"]] == ["torch", "onnxruntime", "openvino"]
    assert [row["ratio"] is None for row in found["rows"]] == [True, False, False]
    assert found["is_estimate"] and not found["failed"] and found["missing"] == 0
    records = read_records(tmp_path / "measurements.jsonl").records
    assert [r.reading.runtime for r in records] == ["torch", "onnxruntime", "openvino"]
    assert records[1].versions["onnxruntime"] and records[1].mode == "onnxruntime"
    # Nothing is measured again.
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "to torch" in shown and "openvino" in shown
    assert len(read_records(tmp_path / "measurements.jsonl").records) == 3


@pytest.mark.thorough
def test_a_probe_of_a_runtime_times_its_own_precisions(tmp_path, monkeypatch):
    from contextlib import nullcontext

    from search_spaces.compression.realness import Shape
    from search_spaces.runtimes.realness import probe_runtime

    shapes = (Shape(64, 64),)
    done = []
    for _ in range(2):
        report = probe_runtime(
            ORT,
            shapes,
            ("fp32", "bf16", "int8"),
            cache_dir=tmp_path,
            alone=nullcontext,
            on_shape=lambda shape, index, total: done.append(shape),
        )
    assert done == list(shapes), "the second is read from the cache"
    assert "fp32" in real_choices(report)[0] and "bf16" not in real_choices(report)[0]
    (row,) = (row for row in report.rows if row.choice == "int8")
    assert row.status in ("real", "harmful") and row.time_to_fp32 > 0
    assert report.versions["onnxruntime"] and report.choices(("simulated",))


def test_forms_are_torchs_by_default():
    assert Forms() == Forms((), ())
    assert VINO.fault("fp32") is None
