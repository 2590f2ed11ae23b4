import json

import pytest
import torch

from search_spaces.architecture import Compression
from search_spaces.compression import probing
from search_spaces.compression.probing import grid, probe, shapes_for
from search_spaces.compression.realness import (
    Row,
    Shape,
    judge,
    nearest_shapes,
    real_choices,
    runnable_choices,
)
from search_spaces.compression.timing import median_ratio, time_in_turns
from search_spaces.cost.kernels import rows_read
from search_spaces.space.presets import PRESETS
from search_spaces.workload import Workload

SMALL, LARGE = Shape(64, 512), Shape(512, 512)
# Seconds a call by choice: bf16 gains from width only, int8 always, 4 bits never.
SECONDS = {
    SMALL: {"fp32": 1.0, "bf16": 1.3, "int8": 0.9, "int8wo": 1.3, "int4wo": 1.4},
    LARGE: {"fp32": 1.0, "bf16": 0.5, "int8": 0.4, "int8wo": 0.45, "int4wo": 0.49},
}


class Board:
    """Stands in for preparing and timing, which take seconds; counts how often it is asked."""

    def __init__(self, monkeypatch):
        self.prepared = []
        self.fails = {"fp8"}
        self._shape = None
        monkeypatch.setattr(probing, "_prepare", self.prepare)
        monkeypatch.setattr(probing, "time_in_turns", self.times)
        monkeypatch.setattr(probing, "top_kernel", lambda call, plain: f"kernel of {call()}")

    def prepare(self, compression, device, shape, compile_plain=False):
        name = compression.precision if compression.sparsity == "dense" else compression.sparsity
        name += " compiled" if compile_plain else ""
        self.prepared.append((shape, name))
        self._shape = shape
        if name in self.fails:
            raise ValueError("precision fp8 must run on CUDA\nand a long story")
        return lambda: name

    def times(self, calls, device):
        return {name: [SECONDS[self._shape][name]] * 3 for name in calls}


@pytest.fixture
def board(monkeypatch):
    return Board(monkeypatch)


def status(report, choice, shape):
    (row,) = [r for r in report.rows if (r.choice, r.shape) == (choice, shape)]
    return row


def test_each_choice_is_judged_at_each_shape(board):
    report = probe("cpu", shapes=(SMALL, LARGE))
    assert status(report, "fp32", SMALL).status == "real"
    assert status(report, "bf16", SMALL).status == "harmful"
    assert "1.30x as long as fp32" in status(report, "bf16", SMALL).reason
    assert status(report, "bf16", LARGE).status == "real"
    assert status(report, "bf16", LARGE).time_to_fp32 == 0.5
    assert status(report, "int8", LARGE).time_to_bf16 == pytest.approx(0.8)
    # Weight-only precisions must gain time on bf16; no slower is not enough.
    assert status(report, "int8wo", LARGE).status == "real"
    assert status(report, "int4wo", LARGE).status == "harmful"
    assert "gains no time" in status(report, "int4wo", LARGE).reason
    assert status(report, "int8", LARGE).kernel == "kernel of int8"
    fp8 = status(report, "fp8", SMALL)
    assert (fp8.status, fp8.reason) == ("absent", "precision fp8 must run on CUDA")
    for mask in ("2:4", "unstructured-50", "unstructured-90"):
        row = status(report, mask, SMALL)
        assert (row.status, row.time_to_fp32) == ("simulated", None) and "dense" in row.reason
    # A mask without a kernel is never timed, so it can never be credited.
    assert {name for _, name in board.prepared} == {
        "fp32",
        "bf16",
        "int8",
        "fp8",
        "int8wo",
        "int4wo",
    }


def test_what_is_offered_is_real_at_some_shape_asked_about(board):
    both = probe("cpu", shapes=(SMALL, LARGE))
    assert real_choices(both) == (("fp32", "bf16", "int8", "int8wo"), ("dense",))
    small = probe("cpu", shapes=(SMALL,))
    assert real_choices(small) == (("fp32", "int8"), ("dense",))
    assert runnable_choices(small) == (
        ("fp32", "bf16", "int8", "int8wo", "int4wo"),
        ("dense", "2:4", "unstructured-50", "unstructured-90"),
    )
    assert small.to_dict()["offered"] == {"precisions": ["fp32", "int8"], "sparsities": ["dense"]}
    json.dumps(small.to_dict(), allow_nan=False)


def test_only_what_is_asked_for_is_run(board):
    report = probe("cpu", shapes=(SMALL,), choices=("int8",))
    assert [name for _, name in board.prepared] == ["fp32", "bf16", "int8"]
    assert [row.choice for row in report.rows] == ["fp32", "int8", "dense"]


def test_results_are_kept_by_shape_and_a_corrupt_cache_is_probed_anew(board, tmp_path):
    first = probe("cpu", shapes=(SMALL,), cache_dir=tmp_path)
    n = len(board.prepared)
    assert probe("cpu", shapes=(SMALL,), cache_dir=tmp_path) == first
    assert len(board.prepared) == n
    both = probe("cpu", shapes=(SMALL, LARGE), cache_dir=tmp_path)
    assert {shape for shape, _ in board.prepared[n:]} == {LARGE}
    assert both.rows[: len(first.rows)] == first.rows
    (path,) = tmp_path.iterdir()
    for text in ("{", "[1]", '[{"choice": "int8"}]', "\x80"):
        n = len(board.prepared)
        path.write_text(text, encoding="latin-1")
        assert probe("cpu", shapes=(SMALL,), cache_dir=tmp_path) == first
        assert len(board.prepared) > n


def test_joules_are_taken_only_by_a_real_meter_and_then_kept(board, tmp_path):
    asked = {"shapes": (LARGE,), "cache_dir": tmp_path}
    assert all(row.joules_to_bf16 is None for row in probe("cpu", **asked).rows)
    joules = {"fp32": 8.0, "bf16": 4.0, "int8": 3.0, "int8wo": 4.0, "int4wo": 5.0}
    report = probe("cpu", joules=lambda call: joules[call()], **asked)
    assert status(report, "int8", LARGE).joules_to_bf16 == 0.75
    n = len(board.prepared)
    assert probe("cpu", joules=lambda call: joules[call()], **asked) == report
    assert len(board.prepared) == n


def test_shapes_stand_for_those_nearest_to_them():
    shapes = (Shape(64, 512), Shape(512, 16), Shape(512, 512))
    assert nearest_shapes(shapes, (8, 16, 64), [2048]) == (Shape(64, 512),)
    assert nearest_shapes(shapes, (64, 768), [256]) == (Shape(64, 512), Shape(512, 512))
    assert nearest_shapes(shapes, (1024,), [1]) == (Shape(512, 16),)
    # Both phases of a decoder.
    assert nearest_shapes(shapes, (512,), [8, 2048]) == (Shape(512, 16), Shape(512, 512))
    assert shapes_for("cpu", (8, 64), [2048]) == (Shape(64, 2048),)
    assert shapes_for("cuda:0", (1024,), [8]) == (Shape(1024, 8),)
    assert len(grid("cuda:0")) == 9


@pytest.fixture
def fusing(monkeypatch, board):
    """A GPU whose compiler gains a third, so that int8 wins by it alone, and fp8 by itself."""
    seconds = {"fp32": 1.0, "bf16": 0.9, "int8": 0.8, "fp8": 0.4, "int8wo": 0.65, "2:4": 0.85}
    seconds |= {"fp32 compiled": 0.66, "bf16 compiled": 0.6}
    monkeypatch.setattr(
        probing, "time_in_turns", lambda calls, device: {n: [seconds[n]] * 3 for n in calls}
    )
    monkeypatch.setattr(probing, "device_name", lambda device: "a GPU")
    monkeypatch.setattr(probing, "versions", lambda device: {})
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)
    monkeypatch.setattr(board, "fails", {"int4wo"})
    return seconds


def test_a_compiled_choice_must_beat_the_compiled_plain_one(fusing, board):
    choices = ("fp32", "bf16", "int8", "fp8", "int8wo", "2:4")
    report = probe("cuda:0", shapes=(LARGE,), choices=choices, joules=lambda call: fusing[call()])
    assert status(report, "int8", LARGE).status == "harmful"
    assert status(report, "int8", LARGE).time_to_fp32 == pytest.approx(0.8 / 0.66)
    assert status(report, "int8wo", LARGE).status == "harmful"
    assert status(report, "fp8", LARGE).status == "real"
    assert status(report, "fp8", LARGE).joules_to_bf16 == pytest.approx(0.4 / 0.6)
    # What is not compiled is compared with what is not compiled.
    assert status(report, "bf16", LARGE).time_to_fp32 == 0.9
    assert status(report, "2:4", LARGE).time_to_bf16 == pytest.approx(0.85 / 0.9)
    assert [row.choice for row in report.rows] == [*choices[:5], "dense", "2:4"]


def test_plain_choices_are_compiled_only_where_something_is_compared_with_that(fusing, board):
    probe("cuda:0", shapes=(LARGE,), choices=("fp32", "bf16", "2:4"))
    assert {name for _, name in board.prepared} == {"fp32", "bf16", "2:4"}


def test_where_compiling_plain_ones_fails_the_plain_ones_are_left(fusing, board):
    board.fails |= {"fp32 compiled", "bf16 compiled"}
    report = probe("cuda:0", shapes=(LARGE,), choices=("int8", "bf16"))
    assert status(report, "int8", LARGE).time_to_fp32 == 0.8


@pytest.mark.parametrize("failing", [{"bf16"}, {"fp32"}, {"fp32", "bf16"}])
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_a_baseline_that_cannot_run_leaves_the_rest(fusing, board, failing, device):
    board.fails |= failing
    report = probe(device, shapes=(LARGE,), joules=lambda call: fusing[call()])
    for name in failing:
        assert status(report, name, LARGE).status == "absent"
    assert status(report, "int8", LARGE).status in ("real", "harmful", "absent")
    assert (status(report, "int8", LARGE).joules_to_bf16 is None) == (
        "bf16" in failing and device == "cpu"
    )


@pytest.mark.parametrize(("rows", "tokens"), [(8, 1), (17, 1), (16, 16), (512, 16)])
def test_the_rows_of_a_shape_are_those_that_its_products_read(monkeypatch, rows, tokens):
    monkeypatch.setenv("CXX", "no-such-compiler")
    seen = []
    linear = torch.nn.functional.linear

    def watched(x, *rest):
        seen.append(x.shape[:-1].numel())
        return linear(x, *rest)

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    probing._prepare(Compression(), "cpu", Shape(16, rows))()
    # Embedding, six projections, and the head, which reads a row a sample.
    assert seen == [rows] * 7 + [rows // tokens]


@pytest.mark.parametrize(
    ("workload", "rows"),
    [
        (Workload("t", "language_modelling", (256,), 99, 8, 99), 2048),
        (Workload("t", "language_modelling", (256,), 99, 8, 99, phase="prefill"), 2048),
        (Workload("t", "language_modelling", (256,), 99, 8, 99, phase="generate"), 8),
        (Workload("i", "image_classification", (1, 8, 8), 10, 32), 32 * 16),
    ],
)
def test_rows_are_the_tokens_of_a_batch_and_of_a_step_one_each(workload, rows):
    space = PRESETS["digits-tiny"] if workload.is_image else PRESETS["decoder-base"]
    assert rows_read(space, workload) == rows


def test_judging():
    assert judge("int8", 1.04) == ("real", None)
    assert judge("fp8", 1.06)[0] == "harmful" and "bf16" in judge("fp8", 1.06)[1]
    assert judge("int4wo", 0.96)[0] == "harmful"
    assert judge("int4wo", 0.94) == ("real", None)


def test_a_true_probe_sees_the_kernel_of_fp32_and_bf16(monkeypatch, tmp_path):
    # Without a compiler plain variants run op by op, which takes no seconds.
    monkeypatch.setenv("CXX", "no-such-compiler")
    report = probe("cpu", shapes=(Shape(64, 16),), choices=("fp32", "bf16", "fp8", "2:4"))
    rows = {row.choice: row for row in report.rows}
    assert "mm" in rows["fp32"].kernel and rows["fp32"].time_to_fp32 == 1.0
    assert rows["bf16"].time_to_fp32 > 0 and rows["bf16"].status in ("real", "harmful")
    assert rows["fp8"].status == "absent" and "8.9" in rows["fp8"].reason
    assert isinstance(rows["2:4"], Row) and rows["2:4"].status == "simulated"
    assert report.versions["torch"] and report.device_name


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match="device"):
        probe("cuda:99")


def test_turns_hold_every_call_and_ratios_are_of_one_turn():
    ran = []
    calls = {name: (lambda name=name: ran.append(name)) for name in ("a", "b")}
    times = time_in_turns(calls, "cpu", turns=3, turn_s=1e-5)
    assert {name: len(found) for name, found in times.items()} == {"a": 3, "b": 3}
    last = ran[-6:]
    assert "a" in ran and last.count("b") >= 1
    made_up = {"a": [1.0, 9.0, 2.0], "b": [2.0, 3.0, 4.0]}
    assert median_ratio(made_up, "a", "b") == 0.5
    assert median_ratio(made_up, "a", "c") is None
    made_up |= {"c": [1.0, 1.0, 1.0]}
    assert median_ratio(made_up, "a", "b", "c") == median_ratio(made_up, "a", "c") == 2.0
    assert median_ratio(made_up, "a", "c", "d") == 2.0


@pytest.mark.parametrize("name", ["versions", "device_name"])
def test_a_probe_is_cached_for_one_device_and_its_versions_alone(monkeypatch, name):
    before = probing._key("cpu")
    assert probing._key("cpu") == before
    changed = {"torch": "9.9"} if name == "versions" else "another CPU"
    monkeypatch.setattr(probing, name, lambda device: changed)
    assert probing._key("cpu") != before
