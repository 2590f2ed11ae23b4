"""The benchmark's choices are what they are called, and it goes on where it was cut."""

import json
import threading
from dataclasses import replace

import pytest
import torch

from experiments.benchmarks.compression import kinds
from experiments.benchmarks.compression.kinds import Line, architecture_of, tables
from experiments.results.record import kept
from predictors.measurement.exclusive import DeviceLock
from search_spaces.cost.counting import count


def test_choices_are_what_they_are_called():
    plain = architecture_of("fp32", 256)
    assert architecture_of("half-ffn", 256).layers[0].ffn.d_ff * 2 == plain.layers[0].ffn.d_ff
    assert architecture_of("half-depth", 256).depth * 2 == plain.depth
    half = architecture_of("half-width", 256)
    assert half.d_model == 128 and half.layers[0].attention.d_head == 64
    assert architecture_of("rank-d/4", 256).layers[0].attention.rank == 64
    both = architecture_of("half-ffn int8", 256).layers[0].ffn
    assert (both.d_ff, both.compression.precision) == (512, "int8")
    sparse = architecture_of("2:4", 256).layers[0].attention.compression
    assert (sparse.precision, sparse.sparsity) == ("bf16", "2:4")
    workload = kinds.workload_of(1)
    assert count(half, workload).macs < count(plain, workload).macs / 2


def test_a_choice_that_does_not_pay_is_said_not_to():
    line = Line(512, 32, "int8", "real", time_to_fp32=0.4, time_to_bf16=0.9)
    assert line.verdict == "pays"
    assert replace(line, time_to_fp32=1.2).verdict == "does not pay"
    # What stores few bits and multiplies in bf16 must beat bf16, by joules where they are known.
    four = replace(line, choice="int4wo", time_to_bf16=1.1)
    assert four.verdict == "does not pay"
    assert replace(four, joules_to_bf16=0.8).verdict == "pays"
    # However fast the clock says it was: no kernel skips its zeros.
    assert replace(line, choice="unstructured-90", status="simulated").verdict == "simulated"


def fake_shape(d_model, batch_size, device, on_choice):
    on_choice("fp32")
    return [
        Line(d_model, batch_size, "fp32", "real", 1.0, 1.0, 1.0, 2.0, 100, 1.0, 0.0),
        Line(d_model, batch_size, "fp8", "absent"),
    ]


def test_a_quantised_choice_is_compared_with_the_compiled_plain_one():
    joules = {"bf16": 4.0, "bf16 compiled": 2.0, "int8": 3.0, "2:4": 3.0, "half-ffn int8": 3.0}
    found = {choice: kinds._joules_to_bf16(joules, choice) for choice in joules}
    assert found["int8"] == found["half-ffn int8"] == 1.5
    assert found["2:4"] == 0.75 and found["bf16"] == 1.0


@pytest.mark.parametrize("failing", [pytest.param("bf16", marks=pytest.mark.thorough), "fp32"])
def test_a_reference_that_cannot_run_leaves_the_rest(monkeypatch, capsys, failing):
    # Without a compiler plain variants run op by op, and quantised ones not at all.
    monkeypatch.setenv("CXX", "no-such-compiler")
    prepare = kinds.prepare_for_inference

    def prepared(model, architecture, inputs, **options):
        only = {block.compression.precision for block in architecture.blocks}
        if only == {failing} and architecture == architecture_of(failing, 64):
            raise RuntimeError("no such kernel\nand a long story")
        return prepare(model, architecture, inputs, **options)

    monkeypatch.setattr(kinds, "prepare_for_inference", prepared)
    monkeypatch.setattr(kinds, "_TURN_S", 0.0)
    monkeypatch.setattr(kinds, "_joules", lambda calls, device: dict.fromkeys(calls, 2.0))
    found = {line.choice: line for line in kinds.run_shape(64, 1, "cpu", lambda _: None)}
    assert f"{failing}: no such kernel" in capsys.readouterr().err
    assert found[failing].status == "absent" and found["rank-d/4"].joules_per_sample == 2.0
    assert found["rank-d/4"].joules_to_bf16 == (None if failing == "bf16" else 1.0)
    assert found["fp32 eager"].time_to_eager == 1.0
    assert tables(list(found.values()), {})


def test_nobody_else_uses_the_device_while_choices_are_timed(monkeypatch):
    used, alone = [], []
    timed = kinds.time_in_turns

    def time_in_turns(calls, device, **others):
        other = DeviceLock(None, device)
        thread = threading.Thread(target=lambda: alone.append(_take(other)), daemon=True)
        thread.start()
        thread.join(0.2)
        assert not alone
        return timed(calls, device, **others)

    def eager(model, architecture, inputs, **others):
        return kinds.run_eagerly(model)

    monkeypatch.setattr(kinds, "use_device", used.append)
    monkeypatch.setattr(kinds, "prepare_for_inference", eager)
    monkeypatch.setattr(kinds, "_TURN_S", 0.0)
    monkeypatch.setattr(kinds, "time_in_turns", time_in_turns)
    kinds.run_shape(64, 1, "cpu", lambda _: None)
    assert used == ["cpu"]


def _take(lock):
    with lock.shared():
        return True


def test_shapes_are_recorded_and_gone_on_from(monkeypatch, tmp_path, capsys):
    ran = []

    def run_shape(*arguments):
        ran.append(arguments[:2])
        return fake_shape(*arguments)

    monkeypatch.setattr(kinds, "run_shape", run_shape)
    path = tmp_path / "records.jsonl"
    command = ["--device", "cpu", "--records", str(path), "--no-accuracy", "--quiet"]
    command += ["--keep", str(tmp_path / "kept")]
    threads = torch.get_num_threads()
    assert kinds.main([*command, "--shapes", "64x1,128x2", "--budget-s", "0"]) == 0
    # However little time there is, a slice does one shape, or it would never end.
    assert ran == [(64, 1)] and "shapes left: 1" in capsys.readouterr().out
    assert not (tmp_path / "kept").exists()
    assert kinds.main([*command, "--shapes", "64x1,128x2"]) == 0
    assert ran == [(64, 1), (128, 2)] and "shapes left" not in capsys.readouterr().out
    (result,) = kept(tmp_path / "kept")
    assert [row["d_model"] for row in result.table("ratios").rows] == [64, 128]
    record = json.loads(path.read_text().splitlines()[0])
    assert record["date"] and record["versions"]["torch"] and record["device"]
    torch.set_num_threads(threads)


def test_joules_have_a_column_only_where_a_meter_gave_some():
    lines = fake_shape(64, 1, "cpu", lambda _: None)
    ratios, accuracy = tables(lines, {"int8": (0.5, None), "2:4": (12.0, 1.0)})
    assert "joules" not in ratios.text() and "not here: fp8" in ratios.text()
    assert "+12.00" in accuracy.text()
    (measured,) = tables([replace(lines[0], joules_to_bf16=0.7)], {})
    assert "joules / bf16" in measured.text() and "0.70x" in measured.text()


@pytest.mark.parametrize("shapes", ["64", "64x", "65x1", "x1", "axb"])
def test_wrong_shapes_are_one_line(shapes, capsys):
    assert kinds.main(["--device", "cpu", "--shapes", shapes]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and "WIDTHxBATCH" in err
