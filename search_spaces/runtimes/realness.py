"""Which precisions of a runtime are real: converted at a probe's shapes, and timed in turns."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from search_spaces.architecture import (
    PRECISIONS,
    SPARSITIES,
    Compression,
    Precision,
    Sparsity,
)
from search_spaces.compression.probing import Guard, device_name, one_thread, probe_model
from search_spaces.compression.realness import (
    RealnessReport,
    Row,
    Shape,
    judge,
    read_cache,
    write_cache,
)
from search_spaces.compression.timing import Call, median_ratio, time_in_turns
from search_spaces.runtimes.base import Converter, RuntimeRefusal, Setting
from search_spaces.runtimes.cpu import cpu_flags

_VERSION = 1
# Weights of 8 bits must be faster than fp32 in the same runtime, as in torch.
_REFERENCE: Precision = "fp32"


def probe_runtime(
    runtime: Converter,
    shapes: Sequence[Shape],
    choices: Collection[str],
    *,
    cache_dir: Path | None,
    alone: Guard,
    on_shape: Callable[[Shape, int, int], None] = lambda shape, done, total: None,
) -> RealnessReport:
    """Time the precisions ``choices`` of ``runtime`` at ``shapes`` beside its fp32.

    Rows are cached for each CPU and set of versions. Networks are converted beside other work, and
    run in turns inside ``alone()``. ``on_shape`` is called before each shape that is probed now.
    """
    names = [p for p in PRECISIONS if p in choices and p in runtime.precisions]
    numbers = {"torch": importlib.metadata.version("torch"), **runtime.versions()}
    path = None if cache_dir is None else cache_dir / f"{runtime.name}-{_key(numbers)}.json"
    known = {(r.shape, r.choice): r for r in (read_cache(path) if path is not None else ())}
    for index, shape in enumerate(shapes):
        if all((shape, name) in known for name in names):
            continue
        on_shape(shape, index, len(shapes))
        known |= {(shape, row.choice): row for row in _probed(runtime, shape, names, alone)}
        if path is not None:
            write_cache(path, known.values())
    rows = [known[shape, name] for shape in shapes for name in names]
    rows += [_of_zeros(choice, shape) for shape in shapes for choice in SPARSITIES]
    return RealnessReport("cpu", device_name("cpu"), numbers, tuple(rows))


def _of_zeros(choice: Sparsity, shape: Shape) -> Row:
    """Return the row of a sparsity: its zeros are in dense weights."""
    if choice == "dense":
        return Row(choice, shape, "real")
    return Row(choice, shape, "simulated", reason="no kernel here skips its zeros")


def _probed(
    runtime: Converter, shape: Shape, names: Sequence[Precision], alone: Guard
) -> list[Row]:
    rows: dict[str, Row] = {}
    calls: dict[str, Call] = {}
    for name in dict.fromkeys((_REFERENCE, *names)):
        model = probe_model(Compression(name), shape)
        fault = runtime.fault(name)
        try:
            if fault is not None:
                raise RuntimeRefusal(fault)
            running = runtime.run(
                model.network, model.architecture, model.workload, model.inputs, Setting()
            )
            calls[name] = running.repeat
        except RuntimeRefusal as error:
            rows[name] = Row(name, shape, "absent", reason=str(error))
    with one_thread(), alone():
        times = time_in_turns(calls, "cpu")
    for name in names:
        if name not in calls:
            continue
        ratio = median_ratio(times, name, _REFERENCE)
        if name == _REFERENCE:
            rows[name] = Row(name, shape, "real", time_to_fp32=ratio)
        elif ratio is None:
            rows[name] = Row(name, shape, "absent", reason="fp32 could not run beside it")
        else:
            status, reason = judge(name, ratio)
            rows[name] = Row(name, shape, status, time_to_fp32=ratio, reason=reason)
    return [rows[name] for name in names]


def _key(versions: dict[str, str]) -> str:
    parts = [_VERSION, device_name("cpu"), versions, sorted(cpu_flags())]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
