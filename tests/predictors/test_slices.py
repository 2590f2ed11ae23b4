"""Slices of a campaign on a fake board whose joules are known: drift, time, resuming, faults."""

import errno
import os
from dataclasses import replace
from statistics import median

import pytest
from fakes import FakeLab
from plan_fakes import DIGITS, PROTOCOL, make_plan
from record_fakes import made_records

from predictors.campaign.failures import failures_path
from predictors.campaign.pending import pending_items
from predictors.campaign.plan import PlanItem, plan_items
from predictors.campaign.slices import SliceOptions, run_slice
from predictors.measurement.drift import IRREGULAR, UNCORRECTED, correct_drift
from predictors.measurement.process import MeasureError
from predictors.measurement.records import append_records, read_records


def run(plan, path, lab, listener=None, **options):
    return run_slice(plan, path, lab, SliceOptions(**options), listener=listener, clock=lab.clock)


def spread(lab, records):
    """Largest relative error of joules once the level, which drift leaves open, is taken out."""
    ratios = [
        r.reading.energy_j / lab.true_j(PlanItem(r.architecture, r.workload)) for r in records
    ]
    return max(abs(ratio / median(ratios) - 1) for ratio in ratios)


@pytest.mark.thorough
def test_drift_of_twenty_per_cent_is_corrected_to_one(tmp_path):
    plan = make_plan()
    lab = FakeLab(PROTOCOL, drift=lambda s: 1 + 0.2 * s / 630)
    run(plan, tmp_path / "r.jsonl", lab)
    assert lab.drift(lab.clock() - lab.start_s) == pytest.approx(1.2, abs=0.03)
    records = read_records(tmp_path / "r.jsonl").records
    raw = [r for r in records if r.role == "candidate"]
    assert len(raw) == len(plan.items)
    corrected, (report,) = correct_drift(records)
    assert spread(lab, raw) > 0.07
    assert spread(lab, corrected) <= 0.01
    assert report.span > 0.1 and report.residual <= 0.01
    assert all("drift_corrected" in r.flags for r in corrected)


def test_references_are_twice_as_many_until_the_plan_has_its_first(tmp_path):
    lab = FakeLab(PROTOCOL)
    run(replace(make_plan(12), n_references=3), tmp_path / "r.jsonl", lab)
    roles = "".join(r.role[0] for r in read_records(tmp_path / "r.jsonl").records)
    assert roles.startswith("rccrccrccccr")


@pytest.mark.parametrize("expected_s", [1.0, 150.0])
def test_an_item_may_take_a_quarter_of_what_is_left_or_twice_what_is_expected(
    tmp_path, expected_s
):
    lab, limits = FakeLab(PROTOCOL), []
    began_s = lab.clock()

    def measure(item, timeout_s):
        left_s = 400.0 - (lab.clock() - began_s)
        limits.append((timeout_s, min(left_s, max(left_s / 4, 2 * expected_s))))
        return lab(item, timeout_s)

    options = SliceOptions(budget_s=400.0, item_s=lambda item: expected_s)
    run_slice(make_plan(4), tmp_path / "r.jsonl", measure, options, clock=lab.clock)
    allowed, promised = zip(*limits, strict=True)
    assert len(limits) >= 4 and allowed == pytest.approx(promised)


def test_a_reference_that_jumps_about_is_not_corrected_by(tmp_path):
    lab = FakeLab(PROTOCOL)
    plan = make_plan()
    jumps = iter([1.0, 1.15, 0.95, 1.2, 0.9, 1.1, 1.0, 1.2, 0.95, 1.1])

    def measure(item, timeout_s):
        # Something disturbs the reference alone, as memory shared with neighbours does.
        factor = next(jumps) if item == plan.reference else 1.0
        lab.drift = lambda s: factor
        return lab(item, timeout_s)

    path = tmp_path / "r.jsonl"
    run_slice(plan, path, measure, clock=lab.clock)
    records = read_records(path).records
    corrected, (report,) = correct_drift(records)
    assert report.is_irregular and not report.is_applied
    assert spread(lab, corrected) <= 0.01
    assert all(IRREGULAR in r.flags for r in corrected)


def test_a_device_that_stands_still_is_left_alone(tmp_path):
    lab = FakeLab(PROTOCOL)
    run(make_plan(), tmp_path / "r.jsonl", lab)
    records = read_records(tmp_path / "r.jsonl").records
    corrected, (report,) = correct_drift(records)
    assert not report.is_irregular
    for record, raw in zip(corrected, [r for r in records if r.role == "candidate"], strict=True):
        assert record.reading.energy_j == pytest.approx(raw.reading.energy_j, rel=0.005)


def test_an_interval_is_wider_by_that_of_the_reference(tmp_path):
    lab = FakeLab(PROTOCOL, drift=lambda s: 1 + s / 1000)
    run(make_plan(6), tmp_path / "r.jsonl", lab)
    records = read_records(tmp_path / "r.jsonl").records
    raw = [r for r in records if r.role == "candidate"]
    corrected, (report,) = correct_drift(records)
    assert report.is_applied
    for before, after in zip(raw, corrected, strict=True):
        assert after.reading.half_width >= before.reading.half_width * (1 - 1e-9)
        scale = after.reading.energy_j / before.reading.energy_j
        assert after.repeats_j == pytest.approx([r * scale for r in before.repeats_j])


def test_gross_and_net_joules_are_those_of_the_board(tmp_path):
    lab = FakeLab(PROTOCOL)
    run(make_plan(6), tmp_path / "r.jsonl", lab)
    for record in read_records(tmp_path / "r.jsonl").records:
        item = PlanItem(record.architecture, record.workload)
        assert record.reading.energy_j == pytest.approx(lab.true_j(item), rel=0.005)
        idle_j = lab.IDLE_W * lab.batch_s(item) / DIGITS.batch_size
        assert record.reading.net_energy_j == pytest.approx(lab.true_j(item) - idle_j, rel=0.01)
        assert record.idle_power_w == pytest.approx(lab.IDLE_W, rel=0.01)
        assert record.tick_s == pytest.approx(0.1, rel=0.05)


def test_a_session_without_reference_stays_as_it_is_and_says_so(tmp_path):
    lab = FakeLab(PROTOCOL)
    plan = plan_items([make_plan(6).items[0]], protocol=PROTOCOL, device="cuda:0")
    assert plan.reference is None
    run(plan, tmp_path / "r.jsonl", lab)
    (record,) = read_records(tmp_path / "r.jsonl").records
    (same,), reports = correct_drift([record])
    assert same.reading == record.reading and same.flags == (UNCORRECTED,) and not reports


def test_blocks_lie_between_references(tmp_path):
    lab = FakeLab(PROTOCOL)
    plan = make_plan(10)
    run(plan, tmp_path / "r.jsonl", lab)
    roles = [r.role[0] for r in read_records(tmp_path / "r.jsonl").records]
    blocks = "".join(roles).split("r")
    assert blocks[0] == blocks[-1] == ""
    assert all(1 <= len(block) <= 4 for block in blocks[1:-1])


def test_a_slice_keeps_to_its_time_and_the_next_goes_on(tmp_path):
    path = tmp_path / "r.jsonl"
    plan = make_plan()
    done = 0
    for _ in range(20):
        lab = FakeLab(PROTOCOL)
        started = lab.clock()
        progress = run(plan, path, lab, budget_s=120.0)
        assert lab.clock() - started <= 120.0
        assert progress.done > done
        done = progress.done
        if done == progress.total:
            break
    items = [r.item for r in read_records(path).records if r.role == "candidate"]
    assert sorted(items) == sorted(plan.key(item) for item in plan.items)
    assert run(plan, path, FakeLab(PROTOCOL)).done == len(plan.items)


def test_what_fails_is_kept_apart_and_tried_again_only_when_asked(tmp_path):
    path = tmp_path / "r.jsonl"
    plan = make_plan(8)
    lab = FakeLab(PROTOCOL)
    lab.fails = {plan.items[2].architecture.hash}
    progress = run(plan, path, lab)
    assert progress.failed >= 1 and progress.done + progress.failed == len(plan.items)
    assert "no kernel" in failures_path(path).read_text()
    assert not pending_items(plan, path)
    again = FakeLab(PROTOCOL)
    assert run(plan, path, again, retry_failed=True).failed == 0


def test_many_failures_in_a_row_do_not_end_the_slice(tmp_path):
    plan = make_plan(20)
    lab = FakeLab(PROTOCOL)
    works = plan.items[-1].architecture.hash
    lab.fails = {item.architecture.hash for item in plan.items} - {works}
    progress = run(plan, tmp_path / "r.jsonl", lab)
    assert progress.done >= 1 and progress.done + progress.failed == len(plan.items)


def test_a_device_where_the_reference_fails_too_is_at_fault_and_no_item_is(tmp_path):
    plan = make_plan(20)
    lab = FakeLab(PROTOCOL)
    lab.fails = {item.architecture.hash for item in (*plan.items, plan.reference)}
    with pytest.raises(MeasureError, match="no kernel"):
        run(plan, tmp_path / "r.jsonl", lab)
    assert len(lab.measured) < 12
    assert len(pending_items(plan, tmp_path / "r.jsonl")) == len(plan.items)
    # With a time limit it is tried until that, or until all was tried twice.
    with pytest.raises(MeasureError, match="no kernel"):
        run(plan, tmp_path / "r.jsonl", lab, budget_s=500.0)
    assert len(pending_items(plan, tmp_path / "r.jsonl")) == len(plan.items)


def test_ctrl_c_keeps_what_is_on_disk_and_the_same_call_goes_on(tmp_path):
    path = tmp_path / "r.jsonl"
    plan = make_plan(8)
    lab = FakeLab(PROTOCOL)

    class Interrupting:
        def on_item(self, progress, item, role, result):
            if progress.done == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, path, lab, listener=Interrupting())
    kept = len(read_records(path).records)
    assert kept >= 4
    assert run(plan, path, FakeLab(PROTOCOL)).done == len(plan.items)


def test_a_cut_off_line_is_measured_again(tmp_path):
    path = tmp_path / "r.jsonl"
    plan = make_plan(6)
    run(plan, path, FakeLab(PROTOCOL))
    text = path.read_text().splitlines(keepends=True)
    lost = next(i for i, line in enumerate(text) if '"role": "candidate"' in line)
    kept = text[:lost] + text[lost + 1 :]
    path.write_text("".join(kept) + text[lost][:200])
    assert len(pending_items(plan, path)) == 1
    assert run(plan, path, FakeLab(PROTOCOL)).done == len(plan.items)


@pytest.mark.parametrize("is_full", [False, True])
def test_a_disk_that_fills_up_leaves_whole_records_and_says_which_file(
    tmp_path, monkeypatch, is_full
):
    path, write = tmp_path / "r.jsonl", os.write
    record = made_records(1)[0]
    append_records(path, [record])
    calls = []

    def write_part(descriptor, data):
        calls.append(len(data))
        if is_full and len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: len(data) // 2 + 1])

    monkeypatch.setattr(os, "write", write_part)
    if is_full:
        with pytest.raises(OSError, match=r"No space left on device.*r\.jsonl"):
            append_records(path, [record])
    else:
        append_records(path, [record])
    monkeypatch.undo()
    assert len(read_records(path).records) == 2 - is_full
    append_records(path, [record])
    assert len(read_records(path).records) == 3 - is_full


def test_a_slice_ends_in_time_although_an_item_hangs_and_that_item_is_not_lost(tmp_path):
    path = tmp_path / "r.jsonl"
    plan = make_plan(8)
    lab = FakeLab(PROTOCOL)
    lab.hangs = {plan.items[3].architecture.hash}
    started = lab.clock()
    progress = run(plan, path, lab, budget_s=200.0)
    assert lab.clock() - started <= 200.0 + 1e-6
    assert progress.done == 3 and progress.failed == 0
    assert plan.items[3] in pending_items(plan, path)
    lab.hangs = set()
    assert run(plan, path, lab).done == len(plan.items)


def test_an_item_that_took_longer_than_any_may_is_a_failure_and_the_slice_goes_on(tmp_path):
    path = tmp_path / "r.jsonl"
    plan = make_plan(8)
    lab = FakeLab(PROTOCOL, item_timeout_s=100.0)
    lab.hangs = {plan.items[2].architecture.hash}
    progress = run(plan, path, lab)
    assert progress.failed >= 1 and progress.done + progress.failed == len(plan.items)
    assert "longer than 100 s" in failures_path(path).read_text()


def test_sessions_with_other_references_are_kept_apart(tmp_path):
    path = tmp_path / "r.jsonl"
    small = make_plan(8)
    lab = FakeLab(PROTOCOL, drift=lambda s: 1 + s / 1500)
    run(small, path, lab)
    large = [PlanItem(i.architecture, i.workload.with_batch_size(64)) for i in small.items]
    run(plan_items(large, protocol=PROTOCOL, device="cuda:0"), path, lab)
    corrected, reports = correct_drift(read_records(path).records)
    # Per sample the reference of the second takes a quarter of the joules of the first's.
    assert len(reports) == 2 and all(r.span < 0.5 for r in reports)
    for record in corrected:
        item = PlanItem(record.architecture, record.workload)
        assert record.reading.energy_j == pytest.approx(lab.true_j(item), rel=0.5)


def test_what_is_started_ahead_does_not_count_its_wait_for_the_device(tmp_path):
    plan = make_plan(12)
    left, heard = {}, []

    class Listening:
        def on_item(self, progress, item, role, result):
            heard.append(progress.eta_s)

    for ahead in (0, 1):
        lab = FakeLab(PROTOCOL)
        path = tmp_path / f"{ahead}.jsonl"
        run(plan, path, lab, budget_s=200.0, ahead=ahead, listener=Listening())
        assert lab.clock() - lab.start_s <= 200.0
        left[ahead] = 200.0 - (lab.clock() - lab.start_s)
    # An item and the reference that closes its block may not fit any more; one more with ahead.
    one_s = (200.0 - left[0]) / len(read_records(tmp_path / "0.jsonl").records)
    assert left[0] < 2.5 * one_s and left[1] < 3.5 * one_s
    assert all(eta_s is not None for eta_s in heard)
