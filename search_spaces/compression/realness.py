"""Which compression is real on a device: a kernel ran, and it was no slower than without.

Each choice is applied to a small Transformer, run beside fp32 in turns, and asked two things: did
the weights of every intended layer change, and did the batch take at most ``HARMFUL`` times as
long as fp32. A mask that leaves the dense kernel in place is not real, however many zeros.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search_spaces.architecture import (
    PRECISIONS,
    SPARSITIES,
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
    Precision,
    Sparsity,
)
from search_spaces.workload import Workload

_VERSION = 1
# Above this ratio to fp32 a choice only harms. One is the line; the rest is timing noise.
HARMFUL = 1.05
_ROUNDS = 15
# Wide enough for a kernel to show, small enough to probe in seconds.
_SHAPES = {"cpu": (96, 1, 64), "cuda": (1024, 2, 256)}


@dataclass(frozen=True, slots=True)
class Choice:
    """One precision or sparsity on one device.

    ``time_ratio`` is to dense fp32, below 1 is faster, ``None`` where nothing could run.
    ``kernel`` is the operator that took the most time, by torch's profiler. ``reason`` says why
    the choice is not real.
    """

    name: str
    is_real: bool
    time_ratio: float | None
    kernel: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class RealnessReport:
    """Every precision and sparsity on one device."""

    device: str
    precisions: tuple[Choice, ...]
    sparsities: tuple[Choice, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def real_choices(report: RealnessReport) -> tuple[tuple[Precision, ...], tuple[Sparsity, ...]]:
    """The precisions and sparsities that may be offered on the report's device."""
    precisions = {choice.name for choice in report.precisions if choice.is_real}
    sparsities = {choice.name for choice in report.sparsities if choice.is_real}
    return (
        tuple(p for p in PRECISIONS if p in precisions),
        tuple(s for s in SPARSITIES if s in sparsities),
    )


def probe(device: str, *, cache_dir: Path | None = None) -> RealnessReport:
    """Try every choice on ``device``; some seconds, once for each device and set of versions.

    Raises:
        ValueError: torch has no such device.
    """
    key = _key(device)
    path = None if cache_dir is None else cache_dir / f"realness-{key}.json"
    if path is not None and path.is_file():
        cached = _read_cache(path)
        if cached is not None:
            return cached
    report = _probe(device)
    if path is not None:
        _write_cache(path, report)
    return report


def _probe(device: str) -> RealnessReport:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device must be one that torch can use, got {device!r}: {str(error).splitlines()[0]}"
        ) from None
    threads = torch.get_num_threads()
    # Candidates train and are measured on one thread on CPUs.
    torch.set_num_threads(1)
    try:
        baseline = _prepare(Compression(), device)
        dense = Choice("fp32", True, 1.0, _top_kernel(baseline), None)
        precisions = [dense] + [
            _try(p, Compression(precision=p), device, baseline) for p in PRECISIONS[1:]
        ]
        sparse_precision: Precision = "bf16" if device != "cpu" else "fp32"
        sparsities = [
            Choice("dense", True, 1.0, dense.kernel, None),
            _try("2:4", Compression(sparse_precision, "2:4"), device, baseline)
            if device != "cpu"
            else Choice("2:4", False, None, None, "CPUs have no 2:4 kernel: a mask saves nothing"),
        ]
    finally:
        torch.set_num_threads(threads)
    return RealnessReport(device, tuple(precisions), tuple(sparsities))


def _try(
    name: str, compression: Compression, device: str, baseline: Callable[[], object]
) -> Choice:
    try:
        call = _prepare(compression, device)
    except Exception as error:
        # Compilers, missing kernels and shapes fail in as many ways as there are backends.
        lines = str(error).strip().splitlines()
        return Choice(name, False, None, None, lines[0][:200] if lines else type(error).__name__)
    ratio = _time_ratio(call, baseline, device)
    kernel = _top_kernel(call)
    if ratio > HARMFUL:
        return Choice(name, False, ratio, kernel, f"runs {ratio:.2f}x as long as fp32 here")
    return Choice(name, True, ratio, kernel, None)


def _prepare(compression: Compression, device: str) -> Callable[[], object]:
    import torch

    from search_spaces.compression.apply import compress, prepare_for_inference
    from search_spaces.models.build import build

    d_model, depth, batch_size = _SHAPES["cpu" if device == "cpu" else "cuda"]
    layer = LayerSpec(
        AttentionSpec(4, 4, d_model // 4, compression=compression),
        FfnSpec(2 * d_model, compression=compression),
    )
    architecture = Architecture(d_model, (layer,) * depth, patch_size=2)
    workload = Workload("probe", "image_classification", (1, 8, 8), 10, batch_size)
    model = build(architecture, workload, generator_seed=0).to(device)
    inputs = torch.randn(batch_size, 1, 8, 8, generator=torch.Generator().manual_seed(0)).to(
        device
    )
    prepared = prepare_for_inference(compress(model, architecture), architecture, inputs)
    return lambda: prepared.call(inputs)


def _time_ratio(call: Callable[[], object], baseline: Callable[[], object], device: str) -> float:
    """Median over rounds of the ratio of two times taken right after each other."""
    import torch

    def seconds(run: Callable[[], object]) -> float:
        started = time.perf_counter()
        for _ in range(5):
            run()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    seconds(call), seconds(baseline)
    ratios = sorted(seconds(call) / seconds(baseline) for _ in range(_ROUNDS))
    return ratios[_ROUNDS // 2]


def _top_kernel(call: Callable[[], object]) -> str | None:
    """The operator with the most self time in one call."""
    # The profiler's library writes its own log to stderr unless told before it starts.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        call()
    # Names with "#" are the profiler's own marks around compiled code.
    events = [e for e in profiler.key_averages() if "#" not in e.key]
    if not events:
        return None
    return str(max(events, key=lambda e: e.self_device_time_total or e.self_cpu_time_total).key)


def _key(device: str) -> str:
    import importlib.metadata

    import torch

    name = platform.processor() or platform.machine()
    if device.startswith("cuda") and torch.cuda.is_available():
        name = torch.cuda.get_device_name(device)
    else:
        # What decides on CPUs: the instruction sets, and whether there is a compiler.
        name += torch.backends.cpu.get_cpu_capability() + _cpu_flags()
        name += os.environ.get("CXX", "")
    parts = (_VERSION, device, name, torch.__version__, importlib.metadata.version("torchao"))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _cpu_flags() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "flags")):
                return line
    except OSError:
        pass
    return ""


def _read_cache(path: Path) -> RealnessReport | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return RealnessReport(
            data["device"],
            tuple(Choice(**choice) for choice in data["precisions"]),
            tuple(Choice(**choice) for choice in data["sparsities"]),
        )
    except (OSError, ValueError, TypeError, KeyError):
        # A cache that cannot be read is probed anew.
        return None


def _write_cache(path: Path, report: RealnessReport) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(report.to_dict(), indent=2), encoding="utf-8")
        temporary.replace(path)
    except OSError:
        # An unwritable cache costs the next probe's seconds, nothing else.
        return
