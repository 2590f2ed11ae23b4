"""``model.pt2``: the compressed network, traced by ``torch.export``.

Loading it requires torch; quantised blocks also require torchao. ``torch.export.load`` may
unpickle, so only the verifying process calls it, on a file that was just written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from nas.exporting.formats.base import ExportFormat, Loaded
from nas.exporting.formats.network import blank_inputs, compressed_network
from nas.training.weights import read_description
from search_spaces.architecture import Precision

PT2 = "model.pt2"


class TorchExportFormat(ExportFormat):
    """The network as a traced program."""

    name = "pt2"
    title = "torch.export"
    files = (PT2,)
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32", "bf16", "int8", "int8wo"})

    def write(self, folder: Path) -> Mapping[str, Any]:
        """See ``ExportFormat.write``."""
        import torch
        from torch.export import Dim

        architecture, workload = read_description(folder)
        # Tracing on the CPU suffices: the program has no kernels and can move to other devices.
        with torch.no_grad():
            program = torch.export.export(
                compressed_network(folder),
                (blank_inputs(workload, batch=2),),
                dynamic_shapes=({0: Dim.DYNAMIC},),
                strict=False,
            )
        # Remove paths of this machine's source files.
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
        torch.export.save(program, folder / PT2)
        needs = ["torch"]
        if any(b.compression.precision in ("int8", "int8wo") for b in architecture.blocks):
            needs.append("torchao")
        return {"needs": needs}

    def load(self, folder: Path, *, device: str, threads: int) -> Loaded:
        """See ``StoredNetwork.load``."""
        import torch

        # The import registers the operators of quantised blocks.
        import search_spaces.compression.quantize  # noqa: F401
        from search_spaces.compression.apply import run_eagerly

        torch.set_num_threads(threads)
        if not (folder / PT2).is_file():
            raise ValueError(f"{folder / PT2} must exist, and does not")
        program = torch.export.load(folder / PT2)
        if device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        module = program.module()
        return Loaded(run_eagerly(module).call, f"torch {torch.__version__}", module)
