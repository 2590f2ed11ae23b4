"""No order of failures ends a slice empty: kernels, hangs, crashes and memory."""

import threading

import pytest
from fakes import FakeClock
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from record_fakes import made_record

from predictors.campaign.costs import ItemCosts
from predictors.campaign.failures import compression_choices, read_failures
from predictors.campaign.pending import pending_items
from predictors.campaign.plan import PlanItem, plan_items
from predictors.campaign.slices import SliceOptions, run_slice
from predictors.measurement.process import MeasureError, MeasureInterrupted, MeasureTimeout
from predictors.measurement.protocol import get_protocol
from predictors.measurement.records import read_records
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.workload import Workload

TEXT = Workload("text", "text_classification", (32,), 2, 32, 100)
LM = Workload("lm", "language_modelling", (32,), 100, 8, 100)
WORKLOADS = (TEXT, LM.with_phase("prefill"), LM.with_phase("generate"))
KINDS = (
    Compression("fp32"),
    Compression("bf16"),
    Compression("bf16", "2:4"),
    Compression("int8"),
    Compression("fp8"),
    Compression("int8wo"),
    Compression("int4wo"),
)
SCREENING = get_protocol("screening")
COSTS = ItemCosts()
SLICE_S = 480.0


def make(compression, d_ff=256):
    layer = LayerSpec(
        AttentionSpec(4, 4, 64, compression=compression), FfnSpec(d_ff, compression=compression)
    )
    return Architecture(256, (layer,) * 2)


def items_of(kinds):
    return [
        PlanItem(make(kind, d_ff), workload)
        for d_ff in (256, 512, 1024)
        for kind in kinds
        for workload in WORKLOADS
    ]


class Board:
    """Measures at the stated costs; ``fault`` says what happens to an item at its n-th try."""

    def __init__(self, fault):
        self.clock, self.fault = FakeClock(), fault
        self.tried = []
        self._lock = threading.Lock()

    def __call__(self, item, timeout_s):
        with self._lock:
            self.tried.append(item)
            fault = self.fault(item, self.tried.count(item))
            seconds = COSTS.seconds(item)
            if fault == "hang" or seconds > timeout_s:
                self.clock.advance(timeout_s)
                raise MeasureTimeout(f"measuring took longer than {timeout_s:g} s")
            if fault is None:
                self.clock.advance(seconds)
                return made_record(
                    item.architecture,
                    item.workload,
                    1.0,
                    protocol=SCREENING,
                    order=len(self.tried),
                )
            self.clock.advance(COSTS.process_s)
            if fault == "crash":
                raise MeasureInterrupted("the measuring process was ended by signal SIGSEGV")
            raise MeasureError("CUDA out of memory" if fault == "memory" else "no such kernel")


def run(plan, path, board, **options):
    chosen = {"budget_s": SLICE_S, "sets_aside": True, "item_s": COSTS.seconds} | options
    return run_slice(plan, path, board, SliceOptions(**chosen), clock=board.clock)


ITEMS = items_of(KINDS)
FAULTS = st.sampled_from(["crash", "memory", "kernel"])


@settings(max_examples=60, deadline=None, phases=list(Phase)[:4])
@given(
    seed=st.integers(0, 999),
    hung=st.sets(st.sampled_from(range(len(KINDS))), max_size=3),
    broken=st.dictionaries(st.sampled_from(range(len(KINDS))), FAULTS, max_size=len(KINDS) - 1),
    unlucky=st.dictionaries(st.integers(0, 20), FAULTS, max_size=6),
    ahead=st.integers(0, 1),
)
def test_no_order_of_failures_ends_a_slice_empty(
    tmp_path_factory, seed, hung, broken, unlucky, ahead
):
    """Whole kinds that fail in any way, the reference's among them, and single tries besides."""

    def fault(item, n):
        kind = KINDS.index(item.architecture.layers[0].ffn.compression)
        if kind in hung:
            return "hang"
        return broken.get(kind) or unlucky.get(len(board.tried))

    assume(len(hung | broken.keys()) < len(KINDS))
    board = Board(fault)
    plan = plan_items(ITEMS, protocol=SCREENING, device="cuda:0", seed=seed)
    path = tmp_path_factory.mktemp("slice") / "r.jsonl"
    started_s = board.clock()
    run(plan, path, board, ahead=ahead)
    records = read_records(path).records
    assert any(record.role == "candidate" for record in records)
    assert board.clock() - started_s <= SLICE_S + 1e-6
    # What works stays pending or is measured: nothing is lost to the faults of others.
    failures = read_failures(path)
    working = [item for item in plan.items if plan.key(item) not in failures]
    left = {plan.key(item) for item in pending_items(plan, path)}
    measured = {record.item for record in records}
    assert all(plan.key(item) in left | measured for item in working)


def test_a_kernel_that_always_fails_is_tried_once_in_all_slices(tmp_path):
    bad = {"int8", "2:4"}
    board = Board(
        lambda item, n: "kernel" if bad & set(compression_choices(item.architecture)) else None
    )
    plan = plan_items(items_of(KINDS[:4]), protocol=SCREENING, device="cuda:0")
    for _ in range(4):
        progress = run(plan, tmp_path / "r.jsonl", board)
    tried = [c for item in board.tried for c in compression_choices(item.architecture)]
    assert sorted(tried) == ["2:4", "int8"]
    assert progress.failed == 2 and progress.set_aside == 16
    assert progress.done + progress.failed + progress.set_aside == progress.total
    # Once asked, it is tried again.
    board.fault = lambda item, n: None
    for _ in range(8):
        progress = run(plan, tmp_path / "r.jsonl", board, retry_failed=True)
    assert progress.done == progress.total


def test_a_kernel_that_works_elsewhere_is_not_set_aside(tmp_path):
    def fault(item, n):
        is_int8 = "int8" in compression_choices(item.architecture)
        return "kernel" if is_int8 and item.workload.phase == "generate" else None

    board = Board(fault)
    plan = plan_items(items_of(KINDS[2:4]), protocol=SCREENING, device="cuda:0")
    for _ in range(6):
        progress = run(plan, tmp_path / "r.jsonl", board)
    assert progress.failed == 3 and progress.done == progress.total - 3


def test_a_process_that_is_killed_once_is_measured_later_in_the_slice(tmp_path):
    board = Board(lambda item, n: "crash" if n == 1 and item.workload == TEXT else None)
    plan = plan_items(items_of(KINDS[:2])[:6], protocol=SCREENING, device="cuda:0")
    progress = run(plan, tmp_path / "r.jsonl", board)
    assert progress.done == progress.total == 6 and not read_failures(tmp_path / "r.jsonl")


def test_what_waited_for_a_device_that_hung_is_not_blamed(tmp_path):
    hung = items_of(KINDS[:1])[0]

    class Waiting(Board):
        """The second of two processes waits for the device until the first times out."""

        hangs, started, ended = (threading.Event() for _ in range(3))

        def __call__(self, item, timeout_s):
            if item == hung:
                self.hangs.set()
                assert self.started.wait(10)
                try:
                    return super().__call__(item, timeout_s)
                finally:
                    self.ended.set()
            if self.hangs.is_set() and not self.started.is_set():
                self.started.set()
                assert self.ended.wait(10)
                raise MeasureTimeout("measuring took longer than it was given")
            return super().__call__(item, timeout_s)

    board = Waiting(lambda item, n: "hang" if item == hung else None)
    plan = plan_items(items_of(KINDS[:2]), protocol=SCREENING, device="cuda:0")
    run(plan, tmp_path / "r.jsonl", board, ahead=1)
    failures = read_failures(tmp_path / "r.jsonl")
    assert set(failures) == {plan.key(hung)} and board.started.is_set()


@pytest.mark.parametrize("length", [1, 40])
def test_a_failure_that_a_kill_cut_off_is_tried_again(tmp_path, length):
    board = Board(
        lambda item, n: (
            "memory" if item.workload == TEXT and item.architecture.d_model < 512 else None
        )
    )
    plan = plan_items(items_of(KINDS[:2])[:6], protocol=SCREENING, device="cuda:0")
    path = tmp_path / "r.jsonl"
    run(plan, path, board)
    beside = tmp_path / "r.failures.jsonl"
    whole = beside.read_text()
    beside.write_text(whole[:-length])
    assert len(read_failures(path)) == len(whole.splitlines()) - (length > 1)
    run(plan, path, board)
    assert len(read_failures(path)) == 2
