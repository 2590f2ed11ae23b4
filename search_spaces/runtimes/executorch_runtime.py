"""ExecuTorch with XNNPACK: fp32, and int8 weights with dynamic activations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from search_spaces.architecture import Precision
from search_spaces.runtimes.base import Converter, Form, RuntimeRefusal, first_line
from search_spaces.runtimes.onnx_graph import quietly

if TYPE_CHECKING:
    from torch import Tensor, nn


class ExecuTorch(Converter):
    """ExecuTorch's XNNPACK backend; operators that it lacks run by portable kernels."""

    name = "executorch"
    title = "ExecuTorch"
    extra = "executorch"
    packages = ("executorch",)
    distributions = ("executorch",)
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32", "int8"})
    suffix = ".pte"
    has_any_batch = False

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
        import torch

        try:
            # Without gradients attention takes a path that is written for ``torch.compile``.
            with quietly(), torch.enable_grad():
                program = torch.export.export(module, tuple(inputs), strict=False)
                if form.precision == "int8":
                    program = _quantised(program, inputs, form)
                content = _lowered(program, form.precision)
        except Exception as error:
            # ExecuTorch raises many types.
            raise RuntimeRefusal(f"ExecuTorch cannot convert it: {first_line(error)}") from error
        (folder / self.file(form.precision)).write_bytes(content)


def _quantised(program: Any, inputs: Sequence[Tensor], form: Form) -> Any:
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer()
    how = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    traced = program.module()
    # In a phase the network is a part of the module.
    inner = "network." if any(n.startswith("network.") for n in program.state_dict) else ""
    for path in form.int8_paths:
        quantizer.set_module_name(f"{inner}{path}", how)
    prepared = prepare_pt2e(traced, quantizer)
    prepared(*inputs)
    return torch.export.export(convert_pt2e(prepared), tuple(inputs), strict=False)


def _lowered(program: Any, precision: Precision) -> bytes:
    from executorch.backends.xnnpack.partition.config.xnnpack_config import ConfigPrecisionType
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    partitioners = [XnnpackPartitioner()]
    if precision == "int8":
        # Quantised products first: the second takes what is left.
        dynamic = XnnpackPartitioner(
            config_precisions=ConfigPrecisionType.DYNAMIC_QUANT, per_op_mode=True
        )
        partitioners.insert(0, dynamic)
    lowered = to_edge_transform_and_lower(program, partitioner=partitioners)
    content: bytes = lowered.to_executorch().buffer
    return content
