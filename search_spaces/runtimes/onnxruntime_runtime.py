"""ONNX Runtime: fp32, and int8 weights with activations that are quantised at run time.

onnxruntime has no CPU kernels for matrix products in bf16 or in torchao's int8, so both forms are
converted from the fp32 weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nas.core.scratch import scratch
from search_spaces.architecture import Architecture, Precision
from search_spaces.cost.counting import count
from search_spaces.runtimes.base import Converter, Form, RuntimeRefusal, first_line
from search_spaces.runtimes.cpu import has_vnni
from search_spaces.runtimes.onnx_graph import MOST_PARAMS, quietly, write_onnx
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor, nn


class OnnxRuntime(Converter):
    """ONNX Runtime's provider for CPUs."""

    name = "onnxruntime"
    title = "ONNX Runtime"
    extra = "onnx"
    packages = ("onnx", "onnxscript", "onnxruntime")
    distributions = ("onnxruntime",)
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32", "int8"})
    suffix = ".onnx"

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
        to = folder / self.file(form.precision)
        if form.precision != "int8":
            write_onnx(module, inputs, to, is_any_batch=is_any_batch)
            return
        with scratch("onnx") as temporary:
            fp32 = temporary / "fp32.onnx"
            products = write_onnx(module, inputs, fp32, is_any_batch=is_any_batch)
            quantise_onnx(fp32, to, [name for name in products if form.is_int8(products[name])])


def onnx_limit(architecture: Architecture, workload: Workload) -> str | None:
    """Return why a network is too large for one file of ONNX, or ``None``."""
    params = count(architecture, workload).params
    if params <= MOST_PARAMS:
        return None
    return f"ONNX holds at most {MOST_PARAMS:,} parameters in one file, got {params:,}"


def weight_bits() -> int:
    """Return the bits of int8 weights that are used here.

    CPUs without VNNI add pairs of products in 16 bits, which overflow with 8 (``reduce_range``).
    """
    return 8 if has_vnni() else 7


def quantise_onnx(fp32: Path, to: Path, products: Sequence[str]) -> None:
    """Quantise the nodes called ``products``: a scale per output channel, and one per batch.

    Raises:
        RuntimeRefusal: onnxruntime's quantiser fails.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    try:
        with quietly():
            quantize_dynamic(
                fp32,
                to,
                op_types_to_quantize=["MatMul"],
                nodes_to_quantize=list(products),
                per_channel=True,
                reduce_range=weight_bits() < 8,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
    except Exception as error:
        raise RuntimeRefusal(f"onnxruntime cannot quantise it: {first_line(error)}") from error
