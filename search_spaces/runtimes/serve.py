"""Load a converted network with its runtime alone, and call it on arrays.

This file imports nothing of this project and no torch: run by its path in a fresh process, it
proves that a converted network needs only its runtime, and reports outputs, time and memory. (The
Python package of ExecuTorch imports torch itself.) The job is one JSON object on stdin, the
findings are one on stdout.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
INPUTS, OUTPUTS = "inputs", "outputs"
# Identifiers of flatbuffers, which follow the first four bytes.
_MARKS = {"litert": b"TFL3", "executorch": b"ET"}
_OURS = ("experiments", "nas", "predictors", "search_spaces")


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded network.

    ``call`` maps inputs to outputs. ``hold`` makes a batch resident, and returns what runs it.
    ``versions`` are those of the runtime's packages.
    """

    call: Callable[[Sequence[Array]], list[Array]]
    hold: Callable[[Sequence[Array]], Callable[[], object]]
    versions: Mapping[str, str]


def load(runtime: str, path: Path, *, precision: str = "fp32", threads: int = 1) -> Served:
    """Load the file at ``path`` in ``runtime``, which computes on ``threads`` threads of the CPU.

    Raises:
        ValueError: the file is missing, or is none of this runtime.
    """
    if not path.is_file():
        raise ValueError(f"{path} must exist, and does not")
    mark = _MARKS.get(runtime)
    if mark is not None and _beginning(path)[4:8][: len(mark)] != mark:
        # Their readers of flatbuffers crash on other files.
        raise ValueError(f"{path.name} must be a file of {runtime}: it does not begin as one")
    try:
        return _LOADERS[runtime](path, precision, threads)
    except ImportError:
        raise
    except Exception as error:
        # The libraries' errors have no common base class.
        lines = str(error).strip().splitlines()
        cause = lines[0] if lines else type(error).__name__
        raise ValueError(f"{path.name} must be a file of {runtime}: {cause}") from None


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _onnxruntime(path: Path, precision: str, threads: int) -> Served:
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that spin while they wait use CPU seconds, from which joules are estimated.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def call(inputs: Sequence[Array]) -> list[Array]:
        outputs: list[Array] = session.run(None, dict(zip(names, inputs, strict=True)))
        return outputs

    def hold(inputs: Sequence[Array]) -> Callable[[], object]:
        values = dict(zip(names, inputs, strict=True))
        return lambda: session.run(None, values)

    return Served(call, hold, _versions("onnxruntime"))


@cache
def openvino_core() -> Any:
    """Return the one ``openvino.Core`` of this process, which lives as long as it.

    The plug-in of each core registers a stack for signals when it first compiles a network, and
    restores the one before when it ends. Of two cores that live beside each other the second
    would restore the stack of the first, which may be no more: the next signal would then end the
    process by a segmentation fault.
    """
    import openvino

    return openvino.Core()


def _openvino(path: Path, precision: str, threads: int) -> Served:
    core = openvino_core()
    model = core.read_model(path)
    properties = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # By default OpenVINO computes in bf16 where the CPU can, whatever the weights are.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    compiled: dict[tuple[tuple[int, ...], ...], Any] = {}

    def request_of(inputs: Sequence[Array]) -> Any:
        # Kernels for one shape are faster than those for any.
        shapes = tuple(each.shape for each in inputs)
        if shapes not in compiled:
            model.reshape({i: list(shape) for i, shape in enumerate(shapes)})
            network = core.compile_model(model, "CPU", properties)
            compiled[shapes] = network.create_infer_request()
        return compiled[shapes]

    def call(inputs: Sequence[Array]) -> list[Array]:
        outputs = request_of(inputs).infer(dict(enumerate(inputs)), share_inputs=True)
        return [np.array(value) for value in outputs.values()]

    def hold(inputs: Sequence[Array]) -> Callable[[], object]:
        request, values = request_of(inputs), dict(enumerate(inputs))
        return lambda: request.infer(values, share_inputs=True, share_outputs=True)

    return Served(call, hold, _versions("openvino"))


def _litert(path: Path, precision: str, threads: int) -> Served:
    from ai_edge_litert.interpreter import Interpreter

    # XNNPACK computes what it supports, by default.
    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    slots, results = (
        _in_order(interpreter.get_input_details()),
        _in_order(interpreter.get_output_details()),
    )

    def fill(inputs: Sequence[Array]) -> None:
        for slot, value in zip(slots, inputs, strict=True):
            interpreter.set_tensor(slot["index"], value.astype(slot["dtype"], copy=False))

    def call(inputs: Sequence[Array]) -> list[Array]:
        fill(inputs)
        interpreter.invoke()
        return [interpreter.get_tensor(each["index"]) for each in results]

    def hold(inputs: Sequence[Array]) -> Callable[[], object]:
        fill(inputs)
        run: Callable[[], object] = interpreter.invoke
        return run

    return Served(call, hold, _versions("ai-edge-litert"))


def _in_order(details: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return inputs or outputs by the number in their name, as they were converted."""

    def number(detail: dict[str, Any]) -> int:
        digits = str(detail["name"]).rpartition("_")[2].partition(":")[0]
        return int(digits) if digits.isdecimal() else 0

    return sorted(details, key=number)


def _executorch(path: Path, precision: str, threads: int) -> Served:
    # The extension is linked with torch's libraries, which importing torch loads.
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    # The package has no public name for the number of threads.
    portable_lib._unsafe_reset_threadpool(threads)
    program = Runtime.get().load_program(path)
    method = program.load_method("forward")

    def call(inputs: Sequence[Array]) -> list[Array]:
        outputs = method.execute([torch.from_numpy(value) for value in inputs])
        return [value.numpy().copy() for value in outputs]

    def hold(inputs: Sequence[Array]) -> Callable[[], object]:
        values = [torch.from_numpy(value) for value in inputs]
        return lambda: method.execute(values)

    return Served(call, hold, _versions("executorch"))


_LOADERS: dict[str, Callable[[Path, str, int], Served]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "litert": _litert,
    "executorch": _executorch,
}


def _versions(package: str) -> dict[str, str]:
    return {package: importlib.metadata.version(package)}


class _Blocked:
    """Import hook that refuses packages that a converted network must not need."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise ``ImportError`` for the packages."""
        if name.partition(".")[0] in self._names:
            raise ImportError(f"{name} must not be imported to run a converted network")


def main() -> int:
    """Read the job, run the network, print the findings."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    allowed = ("torch",) if job["runtime"] == "executorch" else ()
    blocked = [name for name in (*_OURS, "torch") if name not in allowed]
    sys.meta_path.insert(0, _Blocked(blocked))
    with np.load(job["arrays"], allow_pickle=False) as arrays:
        inputs = [arrays[name] for name in arrays.files if name.startswith(INPUTS)]
        expected = arrays[OUTPUTS]
    before_bytes = peak_bytes()
    served = load(
        job["runtime"],
        Path(job["path"]),
        precision=job["precision"],
        threads=job["threads"],
    )
    started_s = time.perf_counter()
    outputs = served.call(inputs)[0].astype(np.float32)
    first_s = time.perf_counter() - started_s
    if outputs.shape != expected.shape:
        raise ValueError(f"outputs must have the shape {expected.shape}, got {outputs.shape}")
    findings = {
        "difference": relative_difference(outputs, expected),
        "largest_difference": float(np.abs(outputs - expected).max()),
        "largest_output": float(np.abs(expected).max()),
        "first_call_s": first_s,
        "peak_bytes": peak_bytes(),
        "bytes_before": before_bytes,
        "versions": dict(served.versions),
    }
    out.write(json.dumps(findings, allow_nan=False))
    out.close()
    return 0


def relative_difference(outputs: Array, expected: Array) -> float:
    """Return the Euclidean norm of the difference over that of ``expected``.

    Raises:
        ValueError: outputs are not finite.
    """
    if not np.isfinite(outputs).all():
        raise ValueError("outputs must be finite, got others")
    return float(np.linalg.norm(outputs - expected) / (np.linalg.norm(expected) or 1.0))


def peak_bytes() -> int | None:
    """Return the most memory that this process has had resident; ``None`` if it is not known.

    Not from ``getrusage``, whose maximum includes the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    kilobytes = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return next((1024 * value for value in kilobytes), None)


if __name__ == "__main__":
    sys.exit(main())
