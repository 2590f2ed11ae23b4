"""``model.onnx``: the trained weights in fp32 for ONNX runtimes, and quantised by onnxruntime.

The only door to ``onnx`` and ``onnxruntime``. Products of bf16 and of torchao's int8 have no
kernel in onnxruntime on CPUs, so that both files are made from the weights in fp32.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nas.core.scratch import scratch
from nas.exporting.formats.form import Form, Loaded, Refusal
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
# A protocol buffer holds less than 2 GiB.
_MOST_PARAMS = 500_000_000


class _OnnxRuntimeForm(Form):
    """What runs in onnxruntime on the CPU, from its first file."""

    packages = ("onnx", "onnxscript", "onnxruntime")
    on_cpu = True

    def refusal(
        self, architecture: Architecture, workload: Workload, device: str
    ) -> Refusal | None:
        """See ``Form.refusal``."""
        params = count(architecture, workload).params
        if params > _MOST_PARAMS:
            return Refusal(f"{params:,} parameters in one file, but {_MOST_PARAMS:,}")
        return super().refusal(architecture, workload, device)

    def load(self, folder: Path, *, device: str, threads: int) -> Loaded:
        """See ``Form.load``."""
        import onnxruntime
        import torch

        path = folder / self.files[0]
        if not path.is_file():
            raise ValueError(f"{path} must exist, and does not")
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Threads that wait would use CPU time, which is what estimates go by.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # onnxruntime's errors have no common type of their own.
            raise ValueError(f"{path} must be ONNX: {str(error).splitlines()[0]}") from None

        def call(inputs: Tensor) -> Tensor:
            (outputs,) = session.run([OUTPUTS], {INPUTS: inputs.numpy()})
            return torch.from_numpy(outputs)

        return Loaded(call, f"onnxruntime {onnxruntime.__version__}, CPU")


class OnnxForm(_OnnxRuntimeForm):
    """The network in fp32."""

    name = "onnx"
    title = "ONNX, fp32"
    files = (ONNX,)
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32", "bf16"})

    def write(self, folder: Path) -> Mapping[str, Any]:
        """See ``Form.write``."""
        (folder / ONNX).write_bytes(_fp32_model(folder).SerializeToString())
        return {"opset": OPSET}


class OnnxInt8Form(_OnnxRuntimeForm):
    """The network in fp32, its products with weights quantised by onnxruntime.

    Weights are int8 with a scale for each output, activations are quantised as they come, with a
    scale for the whole batch. Weights have 7 of the 8 bits: with all of them, CPUs without VNNI
    sum pairs of products in 16 bits, which saturate, and outputs are the machine's rather than the
    network's (onnxruntime's pages on quantisation, "reduce_range").
    """

    name = "onnx-int8"
    title = "ONNX, dynamic int8"
    files = (ONNX_INT8,)
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32", "bf16", "int8"})
    has_outputs = False

    def write(self, folder: Path) -> Mapping[str, Any]:
        """See ``Form.write``."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with _quietly(), scratch("onnx") as apart:
            plain = apart / ONNX
            plain.write_bytes(_fp32_model(folder).SerializeToString())
            quantize_dynamic(
                plain,
                folder / ONNX_INT8,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
        return {"opset": OPSET}


def _fp32_model(folder: Path) -> onnx.ModelProto:
    """The artifact's network with its trained weights in fp32, for batches of any size."""
    import torch

    from nas.exporting.formats.network import blank_inputs, fp32_network

    _, workload = read_description(folder)
    network = fp32_network(folder)
    # With gradients: attention without them is written for torch's compiler, as sums that only a
    # compiler makes fast.
    with _quietly(), torch.enable_grad():
        program = torch.onnx.export(
            network,
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
    _forget_source(model)
    return model


def _forget_source(model: onnx.ModelProto) -> None:
    """Drop what tells where on this machine the code lies, line by line."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    for value in graph.value_info:
        del value.metadata_props[:]


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what both packages say of parts that they do without."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "root", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
