"""Whatever computes on a device holds its lock: exports, probes, and all parts of training."""

import fcntl
import os
from contextlib import contextmanager

import pytest
import torch
from search_fakes import reading

from nas.exporting import verify_worker
from nas.searching.controller import available
from nas.tasks.registry import get_task
from nas.training import fit as fit_module
from nas.training import loop
from nas.training.config import DistillConfig, RecoveryConfig, TrainingConfig
from nas.training.distill import tabulate
from nas.training.fit import Setting, TrainedTeacher, fit
from predictors.measurement.exclusive import DeviceLock, lock_folder
from search_spaces.architecture import Architecture, AttentionSpec, Compression, FfnSpec, LayerSpec
from search_spaces.compression import probing
from search_spaces.compression.realness import Shape
from search_spaces.models.build import build
from search_spaces.space.presets import PRESETS


def held(device="cpu"):
    """How the lock of ``device`` is held by anybody: ``shared``, ``exclusive`` or not."""
    path = lock_folder() / f"{device}.device"
    if not path.exists():
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for kind, word in ((fcntl.LOCK_EX, None), (fcntl.LOCK_SH, "shared")):
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except OSError:
                continue
            return word
        return "exclusive"
    finally:
        os.close(descriptor)


def test_the_lock_of_the_tests_can_tell():
    lock = DeviceLock(None, "cpu")
    assert held() is None
    with lock.shared():
        assert held() == "shared"
    with lock.exclusive():
        assert held() == "exclusive"


def test_a_probe_prepares_beside_others_and_times_alone(monkeypatch):
    seen = []
    prepare, in_turns = probing._prepare, probing.time_in_turns
    monkeypatch.setattr(
        probing, "_prepare", lambda *a: (seen.append(("prepare", held())), prepare(*a))[1]
    )
    monkeypatch.setattr(
        probing,
        "time_in_turns",
        lambda *a: (seen.append(("time", held())), in_turns(*a, turns=1))[1],
    )
    monkeypatch.setattr(probing, "shapes_for", lambda *_: (Shape(64, 1),))
    monkeypatch.setattr(available, "cache_folder", lambda: None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    space = PRESETS["digits-tiny"].restrict(precisions=("fp32",), sparsities=("dense",))
    available.probe_here(space, "cpu", 16)
    assert set(seen) == {("prepare", "shared"), ("time", "exclusive")} and held() is None


def test_a_form_runs_beside_others_and_is_measured_alone(monkeypatch, tmp_path):
    seen = {}

    class Form:
        on_cpu, other_batches = True, ()

        def load(self, folder, *, device, threads):
            seen["load"] = held()
            return type("Loaded", (), {"runtime": "fake", "call": None, "module": None})()

    monkeypatch.setattr(verify_worker, "_evaluate", lambda *_: {"outputs": held()})

    def measured(loaded, meter, protocol, device, folder, lock):
        with lock.exclusive():
            seen["measure"] = held()
        return reading(1e-6), "fake"

    monkeypatch.setattr(verify_worker, "_measure", measured)
    from predictors.measurement.protocol import get_protocol

    job = {"folder": str(tmp_path), "device": "cpu", "task": "digits", "measure": True}
    found = verify_worker._inspect(
        Form(), job | {"meter": None, "protocol": get_protocol("quick").to_dict()}
    )
    assert found["outputs"] == "shared"
    assert seen == {"load": "shared", "measure": "exclusive"}


PLAIN = Architecture(16, (LayerSpec(AttentionSpec(2, 2, 8), FfnSpec(32)),), patch_size=4)


def quantised(compression):
    layer = LayerSpec(
        AttentionSpec(2, 2, 8, compression=compression), FfnSpec(32, compression=compression)
    )
    return Architecture(16, (layer,), patch_size=4)


@pytest.mark.parametrize(
    "compression", [Compression("int8"), Compression("bf16"), Compression("fp32", "2:4")]
)
def test_every_part_of_training_that_computes_is_guarded(monkeypatch, compression):
    task = get_task("digits")
    workload = task.workload(120)
    config = TrainingConfig(
        epochs=1,
        batch_size=256,
        recovery=RecoveryConfig(share=1.0, qat_threshold=0.0, inherit_share=1.0),
        distill=DistillConfig(),
    )
    model = build(PLAIN, workload, generator_seed=0)
    outputs = tabulate(model, task.split("train"), config)
    teacher = TrainedTeacher(model, PLAIN, outputs)
    depth, seen = [0], set()

    @contextmanager
    def guard():
        depth[0] += 1
        try:
            yield
        finally:
            depth[0] -= 1

    def watched(module, name):
        function = getattr(module, name)

        def call(*arguments, **named):
            assert depth[0], f"{name} ran outside of the guard"
            seen.add(name)
            return function(*arguments, **named)

        monkeypatch.setattr(module, name, call)

    for name in ("compress", "score", "inherit", "fake_quantised", "evaluate"):
        watched(fit_module, name)
    watched(loop, "_distillation")
    watched(torch.nn.functional, "linear")
    fit(
        quantised(compression),
        Setting(task, workload, seed=0, teacher=teacher, step_guard=guard),
        config,
    )
    expected = {"compress", "score", "inherit", "evaluate", "_distillation", "linear"}
    assert seen >= expected
    assert depth == [0]
