"""ONNX formats: the network in fp32, and in int8 as quantised by onnxruntime.

Only this module imports ``onnx`` and ``onnxruntime``. onnxruntime has no CPU kernels for matrix
products in bf16 or in torchao's int8, so both formats are converted from the fp32 weights.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nas.core.scratch import scratch
from nas.exporting.formats.base import ExportFormat, Loaded, Refusal
from nas.exporting.formats.network import blank_inputs, fp32_network
from nas.training.weights import read_description
from search_spaces.architecture import Architecture, Precision
from search_spaces.cost.counting import count
from search_spaces.workload import Workload

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

OPSET = 20
ONNX, ONNX_INT8 = "model.onnx", "model-int8.onnx"
INPUTS, OUTPUTS = "inputs", "outputs"
# The file is one protocol buffer, which must be smaller than 2 GiB.
_MOST_PARAMS = 500_000_000


class _OnnxRuntimeFormat(ExportFormat):
    """Base of formats that onnxruntime runs on the CPU, from the first of their files."""

    packages = ("onnx", "onnxscript", "onnxruntime")
    on_cpu = True

    def refusal(
        self, architecture: Architecture, workload: Workload, device: str
    ) -> Refusal | None:
        """See ``ExportFormat.refusal``."""
        params = count(architecture, workload).params
        if params > _MOST_PARAMS:
            return Refusal(f"more than {_MOST_PARAMS:,} parameters, got {params:,}")
        return super().refusal(architecture, workload, device)

    def load(self, folder: Path, *, device: str, threads: int) -> Loaded:
        """See ``StoredNetwork.load``."""
        import onnxruntime
        import torch

        path = folder / self.files[0]
        if not path.is_file():
            raise ValueError(f"{path} must exist, and does not")
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Spinning threads use CPU seconds, from which joules are estimated.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # onnxruntime's errors have no common base class.
            raise ValueError(f"{path} must be ONNX: {str(error).splitlines()[0]}") from None

        def call(inputs: Tensor) -> Tensor:
            (outputs,) = session.run([OUTPUTS], {INPUTS: inputs.numpy()})
            return torch.from_numpy(outputs)

        return Loaded(call, f"onnxruntime {onnxruntime.__version__}, CPU")


class OnnxFormat(_OnnxRuntimeFormat):
    """The network in fp32, as ``model.onnx``."""

    name = "onnx"
    title = "ONNX, fp32"
    files = (ONNX,)
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32", "bf16"})

    def write(self, folder: Path) -> Mapping[str, Any]:
        """See ``ExportFormat.write``."""
        (folder / ONNX).write_bytes(_fp32_model(folder).SerializeToString())
        return {"opset": OPSET}


class OnnxInt8Format(_OnnxRuntimeFormat):
    """The network with linear layers in int8, quantised by onnxruntime, as ``model-int8.onnx``.

    Weights have one scale per output channel. Activations are quantised at run time, with one
    scale per batch. Weights use 7 of the 8 bits, because CPUs without VNNI add pairs of products
    in 16 bits, which overflow with 8 (option ``reduce_range`` of onnxruntime).
    """

    name = "onnx-int8"
    title = "ONNX, dynamic int8"
    files = (ONNX_INT8,)
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32", "bf16", "int8"})
    has_outputs = False

    def write(self, folder: Path) -> Mapping[str, Any]:
        """See ``ExportFormat.write``."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with _quietly(), scratch("onnx") as temporary:
            fp32 = temporary / ONNX
            fp32.write_bytes(_fp32_model(folder).SerializeToString())
            quantize_dynamic(
                fp32,
                folder / ONNX_INT8,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
        return {"opset": OPSET}


def _fp32_model(folder: Path) -> onnx.ModelProto:
    """Convert the artifact's network in fp32, for batches of any size."""
    import torch

    _, workload = read_description(folder)
    # Without gradients attention takes a path that is written for ``torch.compile``.
    with _quietly(), torch.enable_grad():
        program = torch.onnx.export(
            fp32_network(folder),
            (blank_inputs(workload, batch=2),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUTS],
            output_names=[OUTPUTS],
            dynamic_shapes=({0: "batch"},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _strip_source_paths(model)
    return model


def _strip_source_paths(model: onnx.ModelProto) -> None:
    """Remove the paths of source files, which name folders of this machine."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    for value in graph.value_info:
        del value.metadata_props[:]


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence warnings of the exporter and of onnxruntime about optional parts."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
