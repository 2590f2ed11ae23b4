"""Joules of NVIDIA boards: sources, windows, steps of the counter, and which board is read."""

import random
import time
from statistics import median

import pytest
from fakes import FakeClock, FakeGpu, FakeNvml
from nvml_fakes import make, measure

from predictors.measurement.protocol import get_protocol
from predictors.measurement.windows import WindowLoop, run_windows
from predictors.meters.base import MeterError
from predictors.meters.nvml import NvmlMeter, board_uuid, visible_gpu
from predictors.meters.steps import StepWatcher

TICKS_S = [0.02, 0.03, 0.05, 0.07, 0.1]


def naive_error(driver, seconds):
    before, start_s = driver.gpus[0]._shown_mj, driver.clock()
    driver.advance(seconds)
    watts = (driver.gpus[0]._shown_mj - before) / 1e3 / (driver.clock() - start_s)
    return abs(watts / driver.gpus[0].power_w - 1)


@pytest.mark.parametrize("tick_s", TICKS_S)
def test_aligned_windows_are_right_where_naive_ones_err(tick_s):
    meter, driver = make(FakeGpu(power_w=300.0, tick_s=tick_s))
    driver.watchers = [meter.poll]
    # Twenty ticks or twenty-one are seen of twenty and a half: whichever the phase, 2.4% off.
    seconds = 20.5 * tick_s
    for offset_s in (0.0, 0.013, 0.037, 0.071):
        driver.advance(offset_s)
        assert naive_error(driver, seconds) > 0.02
        window = measure(meter, driver, seconds, step_s=0.003)
        assert window.energy_j / window.duration_s == pytest.approx(300, rel=0.002)


@pytest.mark.parametrize("tick_s", TICKS_S)
@pytest.mark.parametrize("batch_s", [0.004, 0.03, 0.08])
def test_screening_windows_are_right_however_long_a_batch_takes(tick_s, batch_s):
    meter, driver = make(FakeGpu(power_w=300.0, tick_s=tick_s))
    driver.watchers = [meter.poll]
    rng = random.Random(0)

    def call():
        driver.advance(batch_s * rng.uniform(0.97, 1.03))
        if meter._opened_s is not None:
            meter.sample()

    protocol = get_protocol("screening")
    loop = WindowLoop(call, meter, protocol, clock=driver.clock, sleep=driver.advance)
    found = run_windows(loop, protocol)
    for window in found.windows:
        assert window.energy_j / window.duration_s == pytest.approx(300, rel=0.002)


def test_steps_are_seen_by_a_thread_while_a_batch_runs():
    # A real clock, as on a board: batches of 90 ms and a counter that steps each 50 ms.
    started_s = time.perf_counter()
    watcher = StepWatcher(
        lambda: {"a": int((time.perf_counter() - started_s) / 0.05)}, time.perf_counter
    )
    late_s = []
    for _ in range(5):
        step_s, value = watcher.wait(lambda: time.sleep(0.09))["a"]
        late_s.append(abs(step_s - started_s - 0.05 * value))
    # A busy machine may wake the thread late now and then.
    assert median(late_s) < 0.015


def test_several_gpus_are_summed_each_by_its_own_uuid_and_its_own_ticks():
    meter, driver = make(
        FakeGpu("GPU-a", power_w=100.0, tick_s=0.1),
        FakeGpu("GPU-b", power_w=250.0, tick_s=0.07),
        FakeGpu("GPU-c", power_w=900.0),
        devices=("GPU-a", "GPU-b"),
    )
    window = measure(meter, driver, 2.0, step_s=0.001)
    assert window.energy_j / window.duration_s == pytest.approx(350, rel=0.002)


@pytest.mark.parametrize("tick_s", TICKS_S)
@pytest.mark.parametrize("batch_s", [0.001, 0.08])
def test_the_counters_own_period_is_measured_however_long_a_batch_takes(tick_s, batch_s):
    meter, driver = make(FakeGpu(tick_s=tick_s))
    driver.watchers = [meter.poll]
    assert meter.tick_s is None
    meter.measure_tick(lambda: driver.advance(batch_s))
    assert meter.tick_s == pytest.approx(tick_s, abs=0.0015)


def test_spans_beside_training_read_the_counter_alone():
    gpu = FakeGpu(power_w=250.0, reasons=0x20, pids=(1, 99))
    meter, driver = make(gpu)
    meter.count_joules_only()
    driver.nvmlDeviceGetFieldValues = driver.nvmlDeviceGetComputeRunningProcesses = pytest.fail
    window = measure(meter, driver, 2.0, watch=False)
    assert window.flags == () and window.cross_check is None
    assert window.energy_j / window.duration_s == pytest.approx(250, rel=0.002)


def test_spans_of_a_counter_start_no_thread_and_those_of_power_look_seldom():
    looks = []
    for has_counter in (True, False):
        clock = FakeClock()
        gpu = FakeGpu(has_counter=has_counter, tick_s=0.01)
        driver = FakeNvml(clock, gpu)
        meter = NvmlMeter((0,), nvml=driver, clock=time.perf_counter)
        meter.count_joules_only()
        n = [0]
        read = driver.nvmlDeviceGetFieldValues
        driver.nvmlDeviceGetFieldValues = lambda *a, n=n, read=read: (
            n.__setitem__(0, n[0] + 1),
            read(*a),
        )[1]
        meter.begin(lambda driver=driver: (driver.advance(0.02), time.sleep(0.002)))
        time.sleep(0.3)
        assert (meter._thread is None) == has_counter
        meter.end(lambda driver=driver: (driver.advance(0.02), time.sleep(0.002)))
        looks.append(n[0])
    # Fifty times a second would be fifteen.
    assert looks[0] == 0 and 1 <= looks[1] <= 4


@pytest.mark.parametrize(
    ("gpu", "source"),
    [
        (FakeGpu(), "nvml-total-energy"),
        (FakeGpu(has_counter=False), "nvml-instant-power"),
        (FakeGpu(has_counter=False, has_instant=False), "nvml-power-usage"),
    ],
)
def test_the_best_source_that_answers_is_used_and_said(gpu, source):
    meter, driver = make(gpu)
    assert meter.source == source
    window = measure(meter, driver, 1.0)
    assert window.energy_j / window.duration_s == pytest.approx(300, rel=0.005)


def test_a_gpu_that_reports_nothing_is_refused():
    with pytest.raises(MeterError, match="neither energy nor power"):
        make(FakeGpu(has_counter=False, has_instant=False, has_usage=False))


def test_mig_is_refused_with_a_sentence():
    with pytest.raises(MeterError, match="MIG"):
        make(FakeGpu(mig=True))


def test_an_absent_device_is_refused():
    with pytest.raises(MeterError, match="GPU 3"):
        make(FakeGpu(), devices=(3,))


@pytest.mark.parametrize("has_counter", [True, False])
def test_a_sensor_that_dies_half_way_is_an_error_and_never_a_number(has_counter):
    gpu = FakeGpu(has_counter=has_counter)
    meter, driver = make(gpu)
    meter.begin(lambda: driver.advance(0.003))
    driver.advance(0.5)
    gpu.dead = True
    with pytest.raises(MeterError, match="lost"):
        meter.end(lambda: driver.advance(0.003))


def test_a_counter_that_stands_still_is_an_error():
    meter, driver = make(FakeGpu(power_w=0.0))
    with pytest.raises(MeterError, match="did not change"):
        meter.begin(lambda: driver.advance(0.05))


def test_a_counter_that_restarts_is_an_error():
    gpu = FakeGpu()
    meter, driver = make(gpu)
    driver.advance(5.0)
    meter.begin(lambda: driver.advance(0.003))
    gpu._true_j = 0.0
    with pytest.raises(MeterError, match="decreased"):
        meter.end(lambda: driver.advance(0.003))


def test_the_period_is_measured_under_load_although_idle_comes_first():
    # A counter that steps four times as seldom when the board idles, as power states do.
    gpu = FakeGpu(tick_s=0.08)
    meter, driver = make(gpu)
    driver.watchers = [meter.poll]
    protocol = get_protocol("screening")

    def call():
        gpu.tick_s = 0.02
        driver.advance(0.005)
        if meter._opened_s is not None:
            meter.sample()

    loop = WindowLoop(call, meter, protocol, clock=driver.clock, sleep=driver.advance)
    assert run_windows(loop, protocol).idle_power_w is not None
    assert meter.tick_s == pytest.approx(0.02, abs=0.0015)


def test_power_follows_load_and_a_window_holds_what_was_drawn():
    gpu = FakeGpu(power_of_load=lambda load: 80 + 220 * load)
    meter, driver = make(gpu)
    driver.watchers = [meter.poll]
    for load, watts in ((0.0, 80), (0.5, 190), (1.0, 300)):
        meter.begin(lambda load=load: driver.advance(0.003, load))
        for _ in range(50):
            driver.advance(0.02, load)
            meter.sample()
        window = meter.end(lambda load=load: driver.advance(0.003, load))
        assert window.energy_j / window.duration_s == pytest.approx(watts, rel=0.003)


def test_a_counter_that_may_not_be_read_leaves_power_and_neither_says_what_to_do():
    meter, _ = make(FakeGpu(forbidden=("energy",)))
    assert meter.source == "nvml-instant-power"
    with pytest.raises(MeterError, match="Permissions.*run as root"):
        make(FakeGpu(forbidden=("energy", "power")))


def test_several_gpus_use_what_all_of_them_answer():
    meter, driver = make(
        FakeGpu("GPU-a", power_w=100.0),
        FakeGpu("GPU-b", power_w=200.0, has_counter=False),
        devices=(0, 1),
    )
    assert meter.source == "nvml-instant-power"
    window = measure(meter, driver, 1.0)
    assert window.energy_j / window.duration_s == pytest.approx(300, rel=0.005)


@pytest.mark.parametrize(
    ("listed", "index", "board"),
    [
        (None, 2, 2),
        ("3", 0, 3),
        ("2,GPU-b", 1, "GPU-b"),
        ("1,-1,2", 0, 1),
    ],
)
def test_boards_are_those_that_cuda_shows(listed, index, board):
    environment = {} if listed is None else {"CUDA_VISIBLE_DEVICES": listed}
    assert visible_gpu(index, environment) == board


@pytest.mark.parametrize(
    ("listed", "device", "uuid"),
    [
        (None, "cuda:1", "GPU-bb-2"),
        ("1", "cuda:0", "GPU-bb-2"),
        ("GPU-bb-2", "cuda", "GPU-bb-2"),
        ("GPU-a,GPU-bb", "cuda:1", "GPU-bb-2"),
        ("GPU-", "cuda:0", None),
        ("0", "cuda:1", None),
        (None, "cuda:7", None),
    ],
)
def test_a_board_has_one_name_however_cuda_calls_it(monkeypatch, listed, device, uuid):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if listed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    driver = FakeNvml(FakeClock(), FakeGpu("GPU-aa-1"), FakeGpu("GPU-bb-2"))
    assert board_uuid(device, driver) == uuid
    if uuid is not None:
        board = visible_gpu(int(device.partition(":")[2] or 0))
        meter = NvmlMeter((board,), nvml=driver, clock=driver.clock, background=False)
        assert meter.read_board().uuid == uuid


@pytest.mark.parametrize(
    ("listed", "words"),
    [("", "one of the 0"), ("1,-1,2", "one of the 1"), ("0,MIG-x", "MIG mode")],
)
def test_a_board_that_cuda_hides_or_slices_is_refused(listed, words):
    with pytest.raises(MeterError, match=words):
        visible_gpu(1, {"CUDA_VISIBLE_DEVICES": listed})


def test_boards_of_several_models_need_the_order_of_the_bus(monkeypatch):
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    boards = [FakeGpu("GPU-a", name="Fake A", power_w=100.0), FakeGpu("GPU-b", name="Fake B")]
    with pytest.raises(MeterError, match="Fake A, Fake B: set CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        make(*boards)
    assert make(*boards, devices=("GPU-b",))[0].device == "Fake B"
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert make(*boards)[0].device == "Fake A"
