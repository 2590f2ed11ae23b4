"""What compiling and capturing need besides torch: a device let go of, an empty graph refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from search_spaces.compression import torch_internals

WhileCompiling = Callable[[], AbstractContextManager[object]]


def inductor(while_compiling: WhileCompiling) -> Callable[..., Any]:
    """Torch's compiler as a backend that works inside ``while_compiling()``.

    It traces with fake tensors and writes code, and runs no kernel. What it made runs outside.
    """
    compile_graph = torch_internals.inductor()

    def backend(graph: Any, inputs: Any) -> Any:
        if torch.cuda.is_available():
            # Layers before this one are launched and may still run.
            torch.cuda.synchronize()
        with while_compiling():
            return compile_graph(graph, inputs)

    return backend


@contextmanager
def refuse_empty_graph() -> Iterator[None]:
    """Make an error of torch's warning that a graph has captured nothing.

    Raises:
        RuntimeError: it has; replaying it would measure an idle device.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*CUDA Graph is empty")
        try:
            yield
        except UserWarning as warning:
            raise RuntimeError(
                f"a CUDA graph must hold the kernels of the model, and is empty: {warning}"
            ) from None
