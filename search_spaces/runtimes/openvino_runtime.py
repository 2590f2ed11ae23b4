"""OpenVINO on CPUs: fp32, bf16 where the CPU multiplies in it, and weights in int8.

The network is read from ONNX. Weights are compressed by NNCF, one scale per output channel; the
plug-in for CPUs quantises activations at run time where it has kernels for that.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nas.core.scratch import scratch
from search_spaces.architecture import Architecture, Precision
from search_spaces.runtimes.base import Converter, Form, RuntimeRefusal, first_line
from search_spaces.runtimes.cpu import has_bf16
from search_spaces.runtimes.onnx_graph import quietly, write_onnx
from search_spaces.runtimes.onnxruntime_runtime import onnx_limit
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor, nn


# Operators whose weights NNCF compresses.
_WITH_WEIGHTS = ("MatMul", "Gather", "Convolution")


class OpenVino(Converter):
    """OpenVINO's plug-in for CPUs."""

    name = "openvino"
    title = "OpenVINO"
    extra = "openvino"
    packages = ("onnx", "onnxscript", "openvino", "nncf")
    distributions = ("openvino", "nncf")
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32", "bf16", "int8"})
    suffix = ".xml"

    def files(self, precision: Precision) -> tuple[str, ...]:
        """See ``Converter.files``: the graph, and its weights."""
        main = self.file(precision)
        return (main, f"{main.removesuffix(self.suffix)}.bin")

    def fault(self, precision: Precision) -> str | None:
        """See ``Converter.fault``."""
        if precision == "bf16" and not has_bf16():
            return f"{self.name} computes bf16 in fp32 on this CPU (no avx512_bf16 or amx_bf16)"
        return None

    def limit(self, architecture: Architecture, workload: Workload) -> str | None:
        """See ``Converter.limit``."""
        return onnx_limit(architecture, workload)

    def convert(
        self,
        module: nn.Module,
        inputs: Sequence[Tensor],
        form: Form,
        folder: Path,
        *,
        is_any_batch: bool = False,
    ) -> None:
        """See ``Converter.convert``."""
        import openvino

        from search_spaces.runtimes.serve import openvino_core

        with scratch("openvino") as temporary:
            fp32 = temporary / "fp32.onnx"
            products = write_onnx(module, inputs, fp32, is_any_batch=is_any_batch)
            try:
                model = openvino_core().read_model(fp32)
                if form.precision == "int8":
                    chosen = [name for name in products if form.is_int8(products[name])]
                    model = _with_int8_weights(model, chosen)
                to = folder / self.file(form.precision)
                openvino.save_model(model, to, compress_to_fp16=False)
            except Exception as error:
                # OpenVINO and NNCF raise types of their own.
                raise RuntimeRefusal(f"OpenVINO cannot read it: {first_line(error)}") from error


def _with_int8_weights(model: Any, chosen: Sequence[str]) -> Any:
    """Compress the weights of the products ``chosen`` alone, by their nodes in ONNX."""
    import nncf

    ignored = [
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() in _WITH_WEIGHTS and node.get_friendly_name() not in chosen
    ]
    # NNCF prints its progress on stdout, where results are.
    with quietly(), redirect_stdout(io.StringIO()):
        return nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT8_SYM,
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
        )
