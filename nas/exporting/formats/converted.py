"""Formats of runtimes: the network in fp32, or in int8 as the runtime's own tools quantise it.

``search_spaces.runtimes`` converts and loads them. The file is also run with its runtime alone, in
a process without torch and this package.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nas.core.scratch import scratch
from nas.exporting.formats.base import ExportError, ExportFormat, Loaded, Refusal
from nas.exporting.formats.network import blank_inputs, check_arrays, fp32_network
from nas.training.weights import read_description
from search_spaces.architecture import Architecture, Precision
from search_spaces.runtimes import serve
from search_spaces.runtimes.base import TOLERANCES, Form
from search_spaces.runtimes.onnx_graph import OPSET
from search_spaces.runtimes.onnxruntime_runtime import weight_bits
from search_spaces.runtimes.registry import CONVERTERS
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor

_TIMEOUT_S = 600.0


class ConvertedFormat(ExportFormat):
    """A network as a runtime's file; blocks of ``precisions`` are converted from fp32 weights.

    Attributes:
        runtime: the name of the runtime.
        precision: the precision that the runtime computes in.
    """

    on_cpu = True
    runtime: ClassVar[str]
    precision: ClassVar[Precision]

    def __init_subclass__(cls) -> None:
        """Take the names of files and packages from the runtime."""
        converter = CONVERTERS[cls.runtime]
        cls.files = converter.files(cls.precision)
        cls.packages, cls.extra = converter.packages, converter.extra
        cls.has_outputs = cls.precision != "int8"
        # The file is converted from the trained fp32 weights.
        own: set[Precision] = {"fp32", "bf16", cls.precision}
        cls.precisions = frozenset(own)
        if not converter.has_any_batch:
            cls.other_batches = ()

    def missing(self) -> str | None:
        """See ``ExportFormat.missing``."""
        # The converter of LiteRT may be in another environment.
        return super().missing() or CONVERTERS[self.runtime].missing()

    def refusal(
        self, architecture: Architecture, workload: Workload, device: str
    ) -> Refusal | None:
        """See ``ExportFormat.refusal``."""
        converter = CONVERTERS[self.runtime]
        refused = super().refusal(architecture, workload, device)
        if refused is not None:
            return refused
        why = converter.limit(architecture, workload) or converter.fault(self.precision)
        return None if why is None else Refusal(f"this network: {why}")

    def write(self, folder: Path) -> Mapping[str, Any]:
        """See ``ExportFormat.write``."""
        converter = CONVERTERS[self.runtime]
        _, workload = read_description(folder)
        inputs, _ = check_arrays(folder)
        # Joules are measured on the stored batch, so a file of one batch size has its size.
        size = 2 if converter.has_any_batch else len(inputs)
        converter.convert(
            fp32_network(folder),
            (blank_inputs(workload, batch=size),),
            self._form(read_description(folder)[0]),
            folder,
            is_any_batch=converter.has_any_batch,
        )
        facts: dict[str, Any] = {"runtime": self.runtime}
        if self.files[0].endswith(".onnx"):
            facts["opset"] = OPSET
            if self.precision == "int8":
                facts["weight_bits"] = weight_bits()
        if not converter.has_any_batch:
            facts["batch"] = size
        return facts | {"alone": self._run_alone(folder)}

    def _form(self, architecture: Architecture) -> Form:
        """Return the blocks that are int8 in the file: those of the trial, else all."""
        if self.precision != "int8":
            return Form(self.precision)
        own = Form.of(architecture).int8_paths
        return Form("int8", own or tuple(each.path for each in architecture.placed_blocks))

    def _tolerance(self, architecture: Architecture) -> float:
        """Return the allowed difference from the trial's outputs, which have its precisions."""
        own = {placed.spec.compression.precision for placed in architecture.placed_blocks}
        return max(TOLERANCES[name] for name in {self.precision, *own})

    def _run_alone(self, folder: Path) -> dict[str, Any]:
        """Run the file with its runtime alone; return the difference, memory and versions.

        Raises:
            ExportError: it cannot be run, or outputs differ by more than allowed.
        """
        inputs, expected = check_arrays(folder)
        with scratch("alone") as temporary:
            arrays = temporary / "arrays.npz"
            np.savez(arrays, inputs=inputs, outputs=expected)
            job = {
                "runtime": self.runtime,
                "path": str((folder / self.files[0]).resolve()),
                "precision": self.precision,
                "threads": 1,
                "arrays": str(arrays),
            }
            done = subprocess.run(
                [sys.executable, "-P", serve.__file__],
                input=json.dumps(job),
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                # Nothing of this project can be imported from elsewhere.
                cwd=temporary,
                check=False,
            )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no cause"]
            raise ExportError(f"{self.runtime} alone cannot run it: {lines[-1]}")
        findings: dict[str, Any] = json.loads(done.stdout)
        allowed = self._tolerance(read_description(folder)[0])
        if findings["difference"] > allowed:
            raise ExportError(
                f"outputs of {self.runtime} alone differ by {findings['difference']:.2g} of their "
                f"norm, allowed {allowed:g}"
            )
        return {
            "difference": findings["difference"],
            "peak_bytes": findings["peak_bytes"],
            "versions": findings["versions"],
        }

    def load(self, folder: Path, *, device: str, threads: int) -> Loaded:
        """See ``StoredNetwork.load``."""
        import torch

        served = serve.load(
            self.runtime, folder / self.files[0], precision=self.precision, threads=threads
        )
        has_any = CONVERTERS[self.runtime].has_any_batch
        size = None if has_any else len(check_arrays(folder)[0])

        def call(inputs: Tensor) -> Tensor:
            n = len(inputs)
            if size is None or n == size:
                return torch.from_numpy(served.call([inputs.numpy()])[0])
            # The file has one batch size: fill the last batch up, and cut larger ones.
            parts = []
            for start in range(0, n, size):
                part = inputs[start : start + size]
                filled = torch.cat([part, part[-1:].expand(size - len(part), *part.shape[1:])])
                parts.append(torch.from_numpy(served.call([filled.numpy()])[0])[: len(part)])
            return torch.cat(parts)

        (named,) = served.versions.items()
        return Loaded(
            call,
            f"{named[0]} {named[1]}, CPU",
            hold=lambda inputs: served.hold([inputs.numpy()]),
        )


class OnnxFormat(ConvertedFormat):
    """The network in fp32, as ``model.onnx``."""

    name = "onnx"
    title = "ONNX, fp32"
    runtime, precision = "onnxruntime", "fp32"


class OnnxInt8Format(ConvertedFormat):
    """The network with linear layers in int8, quantised by onnxruntime, as ``model-int8.onnx``."""

    name = "onnx-int8"
    title = "ONNX, dynamic int8"
    runtime, precision = "onnxruntime", "int8"


class OpenVinoFormat(ConvertedFormat):
    """OpenVINO's graph and weights in fp32; bf16 is computed from them where a CPU can."""

    name = "openvino"
    title = "OpenVINO IR, fp32"
    runtime, precision = "openvino", "fp32"


class OpenVinoInt8Format(ConvertedFormat):
    """OpenVINO's graph with weights in int8, compressed by NNCF."""

    name = "openvino-int8"
    title = "OpenVINO IR, int8 weights"
    runtime, precision = "openvino", "int8"


class LiteRtFormat(ConvertedFormat):
    """LiteRT's file in fp32, for one batch size."""

    name = "litert"
    title = "LiteRT, fp32"
    runtime, precision = "litert", "fp32"


class LiteRtInt8Format(ConvertedFormat):
    """LiteRT's file with weights in int8 and dynamic activations, for one batch size."""

    name = "litert-int8"
    title = "LiteRT, dynamic int8"
    runtime, precision = "litert", "int8"


class ExecuTorchFormat(ConvertedFormat):
    """ExecuTorch's program in fp32, for one batch size."""

    name = "executorch"
    title = "ExecuTorch, fp32"
    runtime, precision = "executorch", "fp32"


class ExecuTorchInt8Format(ConvertedFormat):
    """ExecuTorch's program with weights in int8 and dynamic activations, for one batch size."""

    name = "executorch-int8"
    title = "ExecuTorch, dynamic int8"
    runtime, precision = "executorch", "int8"
