"""Run every choice of compression on a device, in turns, and time it.

The model is one layer (four heads, FFN ratio 4) on images of 16 tokens, or of one where 16 do not
divide the rows of a shape, as in generating. All choices of one shape are prepared as a
measurement would prepare them, then run in turns, so that what drifts on the machine drifts for
all. Results are cached for each device, thread count and set of versions.

On CUDA quantised layers are compiled and plain ones are not, so that a quantised choice could win
by the compiler's fusion alone: there fp32 and bf16 are also prepared compiled, and what is
quantised is judged by the faster of both.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.architecture import (
    PRECISIONS,
    SPARSITIES,
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.architecture.layer_kinds import PLAIN
from search_spaces.architecture.simulated import is_simulated
from search_spaces.compression.realness import (
    REFERENCE,
    Joules,
    RealnessReport,
    Row,
    Shape,
    Status,
    judge,
    nearest_shapes,
    read_cache,
    write_cache,
)
from search_spaces.compression.timing import Call, median_ratio, time_in_turns
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor, nn

_VERSION = 6
_GRID = {
    # Compiling a variant takes seconds of CPU time, so there are few shapes.
    "cpu": (Shape(64, 2048), Shape(512, 16), Shape(512, 512)),
    # Few rows are those of generating, where weights are what is read.
    "cuda": tuple(Shape(d, r) for d in (256, 1024, 4096) for r in (8, 512, 4096)),
}
# Candidates train and are measured on one thread on CPUs.
_THREADS = 1
_BASELINES = ("fp32", "bf16")
_TOKENS = 16
# Parts of names of kernels that multiply matrices.
_PRODUCTS = ("mm", "gemm", "linear", "nvjet", "cutlass", "matmul")

OnShape = Callable[[Shape, int, int], None]
Guard = Callable[[], AbstractContextManager[object]]


def grid(device: str) -> tuple[Shape, ...]:
    """The shapes that ``nas doctor`` probes on ``device``."""
    return _GRID["cuda" if device.startswith("cuda") else "cpu"]


def shapes_for(device: str, d_models: Collection[int], rows: Collection[int]) -> tuple[Shape, ...]:
    """The probed shapes nearest to models of ``d_models`` that read ``rows``.

    See ``search_spaces.cost.kernels.rows_read``.
    """
    return nearest_shapes(grid(device), d_models, rows)


def probe(
    device: str,
    *,
    shapes: Sequence[Shape] | None = None,
    choices: Collection[str] = (*PRECISIONS, *SPARSITIES),
    cache_dir: Path | None = None,
    joules: Joules | None = None,
    on_shape: OnShape = lambda shape, done, total: None,
    beside: Guard = nullcontext,
    alone: Guard = nullcontext,
) -> RealnessReport:
    """Try ``choices`` at ``shapes`` (by default the whole grid) on ``device``.

    Seconds a shape, once for each device and set of versions. With ``joules`` each is measured
    too. ``on_shape`` is called before each shape, with the numbers of finished and all shapes.
    Choices are prepared inside ``beside()``, which holds the device along with others that train,
    and run in turns inside ``alone()``, which holds it exclusively.

    Raises:
        ValueError: torch has no such device.
    """
    if device != "cpu":
        _check_usable(device)
    probed = grid(device) if shapes is None else tuple(shapes)
    names = tuple(c for c in (*PRECISIONS, *SPARSITIES) if c in choices or c in ("fp32", "dense"))
    path = None if cache_dir is None else cache_dir / f"realness-{_key(device)}.json"
    known = {(r.shape, r.choice): r for r in (read_cache(path) if path is not None else ())}
    for index, shape in enumerate(probed):
        if all(_is_known(known.get((shape, name)), joules) for name in names):
            continue
        on_shape(shape, index, len(probed))
        with one_thread():
            rows_of_shape = _probe_shape(device, shape, names, joules, beside, alone)
        known |= {(shape, row.choice): row for row in rows_of_shape}
        if path is not None:
            write_cache(path, known.values())
    rows = tuple(known[shape, name] for shape in probed for name in names)
    return RealnessReport(device, device_name(device), versions(device), rows)


def _check_usable(device: str) -> None:
    import torch

    from search_spaces.models.device import use_device

    try:
        use_device(device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device must be one that torch can use, got {device!r}: {str(error).splitlines()[0]}"
        ) from None


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, as candidates are measured."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _is_known(row: Row | None, joules: Joules | None) -> bool:
    if row is None:
        return False
    return joules is None or row.time_to_fp32 is None or row.joules_to_bf16 is not None


def _probe_shape(
    device: str,
    shape: Shape,
    names: Sequence[str],
    joules: Joules | None,
    beside: Guard,
    alone: Guard,
) -> list[Row]:
    """Prepare, profile and time the choices ``names`` at one shape."""
    import torch

    torch.compiler.reset()
    rows: dict[str, Row] = {"dense": Row("dense", shape, "real")}
    calls: dict[str, Call] = {}
    # Other choices are compared with bf16, requested or not.
    for name in dict.fromkeys((*_BASELINES, *names)):
        if name == "dense":
            continue
        compression = _compression(name)
        if is_simulated(compression, device):
            why = "no kernel of this device skips its zeros: the dense one runs"
            rows[name] = Row(name, shape, "simulated", reason=why)
            continue
        try:
            with beside():
                calls[name] = _prepare(compression, device, shape)
        except Exception as error:
            # Compilers, missing kernels and shapes fail in as many ways as there are backends.
            lines = str(error).strip().splitlines()
            why = lines[0][:200] if lines else type(error).__name__
            rows[name] = Row(name, shape, "absent", reason=why)
    with beside():
        calls |= _compiled_baselines(device, shape, calls)
    with alone():
        times = time_in_turns(calls, device)
        energies = {} if joules is None else {name: joules(call) for name, call in calls.items()}
        kernels = {name: top_kernel(call, calls.get("fp32")) for name, call in calls.items()}
    for name in calls:
        if name in _COMPILED.values():
            continue
        fp32, bf16 = (_references(name, baseline) for baseline in _BASELINES)
        to_fp32 = median_ratio(times, name, *fp32)
        to_bf16 = median_ratio(times, name, *bf16)
        least_j = min((energies[r] for r in bf16 if r in energies), default=None)
        status, reason = _status(name, {"fp32": to_fp32, "bf16": to_bf16})
        rows[name] = Row(
            name,
            shape,
            status,
            time_to_fp32=to_fp32,
            time_to_bf16=to_bf16,
            joules_to_bf16=None if least_j is None else energies[name] / least_j,
            kernel=kernels[name],
            reason=reason,
        )
    return [rows[name] for name in names]


# Baseline -> name of its compiled form.
_COMPILED = {name: f"{name} compiled" for name in _BASELINES}


def _compiled_baselines(device: str, shape: Shape, calls: Mapping[str, Call]) -> dict[str, Call]:
    """Prepare fp32 and bf16 compiled, if a quantised choice needs them as baselines."""
    baselines: dict[str, Call] = {}
    if not device.startswith("cuda") or not any(map(_is_quantised, calls)):
        return baselines
    for name, compiled in _COMPILED.items():
        try:
            baselines[compiled] = _prepare(_compression(name), device, shape, compile_plain=True)
        except Exception:  # noqa: S112  (as above; the baseline as it is measured is left)
            continue
    return baselines


def _is_quantised(name: str) -> bool:
    return name in PRECISIONS and name not in PLAIN


def _references(name: str, baseline: str) -> tuple[str, ...]:
    """Return the baselines of a choice; a compiled choice has the compiled one too."""
    return (baseline, _COMPILED[baseline]) if _is_quantised(name) else (baseline,)


def _status(name: str, ratios: Mapping[str, float | None]) -> tuple[Status, str | None]:
    if name == "fp32":
        return "real", None
    # Where the reference itself could not run, fp32 stands in for it.
    ratio = ratios[REFERENCE[name]] or ratios["fp32"]
    return ("absent", "fp32 could not run beside it") if ratio is None else judge(name, ratio)


def _compression(name: str) -> Compression:
    """The compression that shows what ``name`` does; 2:4 in the precision its products take."""
    if name in PRECISIONS:
        return Compression(precision=name)
    return Compression("bf16", name)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class ProbeModel:
    """The network of a probe, in fp32 on the CPU, with a batch."""

    architecture: Architecture
    workload: Workload
    network: nn.Module
    inputs: Tensor


def probe_model(compression: Compression, shape: Shape) -> ProbeModel:
    """Return one layer with random weights and ``compression``, see the module's docstring."""
    import torch

    from search_spaces.models.build import build

    d_model = shape.d_model
    layer = LayerSpec(
        AttentionSpec(4, 4, d_model // 4, compression=compression),
        FfnSpec(4 * d_model, compression=compression),
    )
    tokens = 1 if shape.rows % _TOKENS else _TOKENS
    architecture = Architecture(d_model, (layer,), patch_size=8 if tokens == 1 else 2)
    batch_size = shape.rows // tokens
    workload = Workload("probe", "image_classification", (1, 8, 8), 10, batch_size)
    generator = torch.Generator().manual_seed(0)
    return ProbeModel(
        architecture,
        workload,
        build(architecture, workload, generator_seed=0),
        torch.randn(batch_size, 1, 8, 8, generator=generator),
    )


def _prepare(
    compression: Compression, device: str, shape: Shape, *, compile_plain: bool = False
) -> Call:
    from search_spaces.compression.apply import compress, prepare_for_inference

    model = probe_model(compression, shape)
    inputs = model.inputs.to(device)
    prepared = prepare_for_inference(
        compress(model.network.to(device), model.architecture),
        model.architecture,
        inputs,
        keep_compiled=True,
        compile_plain=compile_plain,
    )
    return prepared.repeat(inputs)


def top_kernel(call: Call, plain: Call | None = None) -> str | None:
    """The operator with the most self time in one call, a matrix product where there is one.

    Products that ``plain`` does not run come first: embedding and head are the same for every
    choice, and at small shapes they may outweigh what the choice brings.
    """
    costs = _kernel_costs(call)
    products = {n: c for n, c in costs.items() if any(w in n.lower() for w in _PRODUCTS)}
    own = products.keys() - (_kernel_costs(plain) if plain is not None else {}).keys()
    chosen = {n: products[n] for n in own} or products or costs
    return max(chosen, key=chosen.__getitem__) if chosen else None


def _kernel_costs(call: Call) -> dict[str, float]:
    """Self time of each operator in one call."""
    # Without this the profiler's library logs to stderr.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        call()
    # Names with "#", and those of torch's compiler, are the profiler's marks around compiled code.
    return {
        str(e.key): float(e.self_device_time_total or e.self_cpu_time_total)
        for e in profiler.key_averages()
        if "#" not in e.key and not e.key.startswith("Torch")
    }


def device_name(device: str) -> str:
    """Return the product name of the device."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    for line in _cpu_info():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions(device: str) -> dict[str, str]:
    """Return the versions that decide which kernels run: torch, torchao, CUDA and driver."""
    numbers = {name: importlib.metadata.version(name) for name in ("torch", "torchao")}
    if device.startswith("cuda"):
        import torch

        numbers["cuda"] = str(torch.version.cuda)
        numbers["driver"] = _driver()
    return numbers


def _driver() -> str:
    # The driver's version decides on kernels too; this package may not import NVML.
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    words = text.splitlines()[0].split()
    return next((word for word in words if word[:1].isdigit() and "." in word), "unknown")


def _key(device: str) -> str:
    parts: list[object] = [_VERSION, device, device_name(device), versions(device)]
    if not device.startswith("cuda"):
        # What decides on CPUs: the instruction sets, and whether there is a compiler. Importing
        # torch to read a cached report would take longer than all else.
        flags = [line for line in _cpu_info() if line.startswith("flags")][:1]
        parts += [flags, *(os.environ.get(name, "") for name in ("ATEN_CPU_CAPABILITY", "CXX"))]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _cpu_info() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
