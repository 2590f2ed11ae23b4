"""Comparisons on made-up processes, each with a bias of its own as real ones have."""

import random
from contextlib import contextmanager
from dataclasses import asdict

import pytest

from predictors.measurement import compare as module
from predictors.measurement.protocol import Protocol
from predictors.meters.base import MeterError, Window
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.workload import Workload

A = Architecture(16, (LayerSpec(AttentionSpec(2, 2, 8), FfnSpec(64)),), patch_size=4)
B = Architecture(8, (LayerSpec(AttentionSpec(2, 2, 4), FfnSpec(32)),), patch_size=4)
DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 16)
PROTOCOL = Protocol("p", 0.0, 1, 0.1, max_repeats=9, max_rejected=2)


class Lab:
    """Processes whose windows repeat to 0.1% and which differ by up to ``job_bias``."""

    def __init__(self, seed, *, job_bias=0.0, drift=0.0, flags=()):
        self.random = random.Random(seed)
        self.job_bias, self.drift, self.flags = job_bias, drift, flags
        self.n_windows = self.n_started = 0

    @contextmanager
    def start(self, job, _):
        self.n_started += 1
        yield _Served(self, job, 1 + self.random.uniform(-self.job_bias, self.job_bias))


class _Served:
    def __init__(self, lab, job, bias):
        self.lab, self.bias = lab, bias
        self.d_model = job["architecture"]["d_model"]
        self.answer = {"meter": "fake", "source": "fake", "is_estimate": False, "device": "d"}

    def send(self, message):
        if message["command"] == "prepare":
            self.answer = {"flags": []}
            return
        self.lab.n_windows += 1
        noise = 1 + self.lab.random.uniform(-0.001, 0.001)
        drifted = 1 + self.lab.drift * self.lab.n_windows
        window = Window(self.d_model * self.bias * noise * drifted, 1.0, flags=self.lab.flags)
        self.answer = {"window": asdict(window), "n_batches": 1}

    def receive(self):
        return self.answer


def run(lab, a=A, b=B, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MeasureProcess", lab.start)
        return module.compare(a, b, DIGITS, protocol=PROTOCOL, **options)


def test_the_ratio_is_that_of_the_joules_however_the_device_drifts():
    found = run(Lab(0, drift=0.005))
    assert found.ratio.mean == pytest.approx(2.0, rel=0.01)
    assert found.ratio.low <= found.ratio.mean <= found.ratio.high
    assert found.converged and found.n_pairs == 6


def test_a_model_compared_with_itself_takes_as_much_although_processes_differ():
    held = sum(1 in run(Lab(s, job_bias=0.1), a=A, b=A).ratio for s in range(60))
    # Nominal 97%: with nine pairs, two of 60 outside would be usual and eight would not.
    assert held >= 52


def test_each_pair_has_processes_of_its_own_and_the_cap_holds():
    lab = Lab(3, job_bias=0.2)
    found = run(lab)
    assert not found.converged and found.n_pairs == PROTOCOL.max_repeats
    assert lab.n_started == 2 * found.n_pairs


def test_throttling_is_an_error_and_foreign_flags_are_not():
    with pytest.raises(MeterError, match="throttled"):
        run(Lab(0, flags=("thermal_throttle",)))
    assert run(Lab(0, flags=("foreign_process", "counter_differs_from_power"))).flags == (
        "counter_differs_from_power",
    )


def test_progress_says_the_interval_so_far():
    heard = []
    run(Lab(0), on_pair=lambda n, width: heard.append((n, width)))
    assert [n for n, _ in heard] == [1, 2, 3, 4, 5, 6]
    assert heard[4][1] is None and heard[5][1] < 0.02
