"""What only a CUDA device can show of measuring: boards, processes, and who uses the GPU when."""

import json
import subprocess
import sys
import time

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from predictors.measurement.exclusive import DeviceLock
from predictors.measurement.protocol import get_protocol
from predictors.measurement.runner import measure_fresh
from predictors.meters.nvml import NvmlMeter, board_uuid
from search_spaces.architecture import Architecture, AttentionSpec, Compression, FfnSpec, LayerSpec
from search_spaces.compression.apply import compress, prepare_for_inference
from search_spaces.compression.capture import refuse_empty_graph
from search_spaces.models.build import build
from search_spaces.models.device import use_device
from search_spaces.workload import Workload

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
WORKLOAD = Workload("digits", "image_classification", (1, 8, 8), 10, 64)


def make(precision="fp32"):
    compression = Compression(precision)
    layer = LayerSpec(
        AttentionSpec(4, 4, 64, compression=compression), FfnSpec(1024, compression=compression)
    )
    return Architecture(256, (layer,), 2)


def inputs(device="cuda:0"):
    return torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(device)


def test_torch_and_the_driver_name_the_board_alike():
    properties = torch.cuda.get_device_properties(0)
    assert str(properties.uuid).removeprefix("GPU-") in str(board_uuid("cuda:0"))


def test_settings_are_read_and_the_same_after_a_measurement(tmp_path):
    meter = NvmlMeter((0,))
    before = meter.read_board()
    record = measure_fresh(
        make(), WORKLOAD, protocol=get_protocol("quick"), device="cuda:0", lock_folder=tmp_path
    )
    assert meter.read_board().limits == before.limits
    board = record.reading.board
    assert board.limits == before.limits and board.uuid == before.uuid
    assert board.persistence == before.persistence and board.memory_clock_mhz > 0
    assert record.reading.driver and record.reading.host
    print(json.dumps(record.reading.to_dict()))


LOAD = (
    "import sys, time, torch\n"
    "a = torch.randn(4096, 4096, device='cuda')\n"
    "torch.cuda.synchronize()\n"
    "print('up', flush=True)\n"
    "end = time.time() + 30\n"
    "while time.time() < end:\n"
    "    a @ a if sys.argv[1] == 'busy' else time.sleep(0.1)\n"
    "    torch.cuda.synchronize()\n"
)


@pytest.mark.parametrize("kind", ["idle", "busy"])
def test_another_process_is_seen_and_whether_it_computes(kind, tmp_path):
    a = torch.randn(4096, 4096, device="cuda")

    def work():
        for _ in range(5):
            a @ a
        torch.cuda.synchronize()

    lock = DeviceLock(tmp_path, "cuda:0")
    meter = NvmlMeter((0,))
    meter.set_own_processes(lock.processes)

    def flags():
        meter.begin(work)
        until = time.perf_counter() + 3
        while time.perf_counter() < until:
            work()
        return set(meter.end(work).flags)

    alone = flags()
    if "processes_unseen" in alone:
        pytest.skip("the driver does not list this process here: a container")
    assert not {"foreign_process", "foreign_compute"} & alone
    other = subprocess.Popen([sys.executable, "-c", LOAD, kind], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "up\n"
        seen = flags()
        assert "foreign_process" in seen
        assert ("foreign_compute" in seen) == (kind == "busy")
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("precision", ["int8", "int8wo"])
def test_the_compiler_runs_no_kernel_while_the_device_is_let_go_of(precision):
    architecture = make(precision)
    model = compress(build(architecture, WORKLOAD, generator_seed=0).to("cuda"), architecture)
    kernels = []

    class Watched:
        def __enter__(self):
            torch.cuda.synchronize()
            self.profiler = profile(activities=[ProfilerActivity.CUDA])
            self.profiler.__enter__()

        def __exit__(self, *error):
            torch.cuda.synchronize()
            self.profiler.__exit__(*error)
            events = self.profiler.events()
            kernels.append([e.name for e in events if e.device_time_total > 0])

    prepare_for_inference(model, architecture, inputs(), while_compiling=Watched)
    assert kernels and not any(kernels), kernels


def test_capturing_nothing_is_an_error():
    graph = torch.cuda.CUDAGraph()
    empty = pytest.raises(RuntimeError, match="must hold the kernels")
    with empty, refuse_empty_graph(), torch.cuda.graph(graph):
        pass


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs a second CUDA device")
def test_the_second_board_runs_what_the_first_does(tmp_path):
    architecture = make()
    model = build(architecture, WORKLOAD, generator_seed=0).eval()
    expected = model(inputs("cpu"))
    use_device("cuda:1")
    try:
        prepared = prepare_for_inference(model.to("cuda:1"), architecture, inputs("cuda:1"))
        assert torch.allclose(prepared.call(inputs("cuda:1")).cpu(), expected, atol=1e-2)
    finally:
        use_device("cuda:0")
    record = measure_fresh(
        architecture,
        WORKLOAD,
        protocol=get_protocol("quick"),
        device="cuda:1",
        lock_folder=tmp_path,
    )
    assert record.reading.board.uuid == board_uuid("cuda:1") != board_uuid("cuda:0")
