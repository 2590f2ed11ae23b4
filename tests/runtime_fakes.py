"""Configurations, architectures and candidates of searches with several runtimes."""

from dataclasses import replace

from search_fakes import SPACE, finished, reading

from nas.core.estimate import Estimate
from nas.records.candidate import Candidate, Measurement
from nas.records.config import SearchConfig
from nas.records.runtime_plan import RuntimePlan
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)

TWO, THREE = ("torch", "onnxruntime"), ("torch", "onnxruntime", "openvino")


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


def trial_in(number=0, **joules):
    readings = {n: replace(reading(j), runtime=n) for n, j in joules.items()}
    least = min(readings, key=lambda name: readings[name].energy_j)
    plans = tuple(RuntimePlan(name, estimate(1e-6)) for name in readings)
    trial = finished(Candidate(number, block(), runtimes=plans))
    measurement = Measurement(
        readings[least], other_runtimes={n: r for n, r in readings.items() if n != least}
    )
    return replace(trial, outcome=replace(trial.outcome, measurement=measurement))
