"""ONNX graphs of networks, which onnxruntime runs and OpenVINO reads.

Only this module imports ``onnx``.
"""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.runtimes.base import RuntimeRefusal, first_line
from search_spaces.runtimes.serve import INPUTS, OUTPUTS

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

OPSET = 20
# The file is one protocol buffer, which must be smaller than 2 GiB.
MOST_PARAMS = 500_000_000


def write_onnx(
    module: nn.Module, inputs: Sequence[Tensor], path: Path, *, is_any_batch: bool
) -> dict[str, str]:
    """Write ``module`` in fp32 to ``path``.

    The first input is called ``inputs``, others ``inputs_1`` and so on; outputs alike.

    Returns:
        The path of the linear layer of each product of matrices, by the name of its node.

    Raises:
        RuntimeRefusal: torch cannot trace it, or an operator has no form in ONNX.
    """
    import torch

    outputs = module(*inputs)
    n_outputs = len(outputs) if isinstance(outputs, tuple) else 1
    try:
        # Without gradients attention takes a path that is written for ``torch.compile``.
        with quietly(), torch.enable_grad():
            program = torch.onnx.export(
                module,
                tuple(inputs),
                dynamo=True,
                opset_version=OPSET,
                input_names=_names(INPUTS, len(inputs)),
                output_names=_names(OUTPUTS, n_outputs),
                dynamic_shapes=tuple({0: "batch"} for _ in inputs) if is_any_batch else None,
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        # The exporter raises many types.
        raise RuntimeRefusal(f"the network has no form in ONNX: {first_line(error)}") from error
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    products = {node.name: _scope(node) for node in model.graph.node if node.op_type == "MatMul"}
    _strip_source_paths(model)
    path.write_bytes(model.SerializeToString())
    return products


def _scope(node: onnx.NodeProto) -> str:
    """Return the path of the innermost module of a node, as torch's exporter notes it."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            # A list of paths as Python writes it, of modules from the outermost to the operator.
            scopes: list[str] = ast.literal_eval(entry.value)
            return scopes[-2] if len(scopes) > 1 else ""
    return ""


def _names(stem: str, n: int) -> list[str]:
    return [stem, *(f"{stem}_{index}" for index in range(1, n))]


def _strip_source_paths(model: onnx.ModelProto) -> None:
    """Remove the paths of source files, which name folders of this machine."""
    graph = model.graph
    parts: list[Any] = [model, graph, *graph.node, *graph.input, *graph.output]
    for item in (*parts, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    for value in graph.value_info:
        del value.metadata_props[:]


@contextmanager
def quietly() -> Iterator[None]:
    """Silence warnings of exporters and quantisers about optional parts."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
