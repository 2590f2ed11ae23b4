"""``python/``: a stand-alone module of this network, and its weights in the same folder."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from nas.core.files import read_json
from nas.exporting.formats.base import ExportFormat, Loaded, Refusal
from nas.exporting.formats.network import compressed_network
from nas.exporting.formats.standalone_source import write_source
from nas.tasks.base.artifact_files import LABELS
from nas.training.weights import read_description
from search_spaces.architecture import Architecture, Precision
from search_spaces.workload import Workload

SOURCE, STORED = "model.py", "model.safetensors"
# The module may import these and the standard library.
_VENDORS = frozenset({"torch", "safetensors"})


class PythonFormat(ExportFormat):
    """The stand-alone module and its weights."""

    name = "python"
    title = "a stand-alone torch module"
    folder: ClassVar[str] = "python"
    files: ClassVar[tuple[str, ...]] = (f"python/{SOURCE}", f"python/{STORED}")
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32", "bf16"})
    is_for_families = False

    def refusal(
        self, architecture: Architecture, workload: Workload, device: str
    ) -> Refusal | None:
        """Refuse transcription, whose patches and padding the source does not have."""
        if workload.is_transcription:
            return Refusal("networks of transcription, which read frames and mask padding")
        return super().refusal(architecture, workload, device)

    def write(self, folder: Path) -> Mapping[str, Any]:
        """See ``ExportFormat.write``."""
        from safetensors.torch import save_file

        to = folder / self.folder
        to.mkdir()
        architecture, workload = read_description(folder)
        source = write_source(architecture, workload, read_labels(folder))
        (to / SOURCE).write_text(source, encoding="utf-8")
        # Networks cast precisions by a wrapper with the attribute ``block``; the source has none.
        tensors = {
            name.replace(".block.", "."): tensor.contiguous()
            for name, tensor in compressed_network(folder).state_dict().items()
        }
        save_file(tensors, str(to / STORED))
        return {"needs": sorted(_VENDORS)}

    def load(self, folder: Path, *, device: str, threads: int) -> Loaded:
        """See ``StoredNetwork.load``; refuse a module with other imports before running it."""
        import torch

        from search_spaces.compression.apply import run_eagerly

        torch.set_num_threads(threads)
        path = folder / self.folder / SOURCE
        if not path.is_file():
            raise ValueError(f"{path} must exist, and does not")
        imports = sorted(set(imported(path.read_text(encoding="utf-8"))) - _VENDORS)
        foreign = [name for name in imports if name not in sys.stdlib_module_names]
        if foreign:
            raise ValueError(f"{path} must import only torch and safetensors, got {foreign[0]}")
        network = _run(path).load(device=device)
        return Loaded(run_eagerly(network).call, f"torch {torch.__version__}", network)


def imported(source: str) -> Iterator[str]:
    """Yield the top-level names that a module imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]


def read_labels(folder: Path) -> list[str] | None:
    """Return the names of the artifact's outputs, or ``None`` if it has none."""
    path = folder / LABELS
    labels: list[str] | None = read_json(path).get("labels") if path.is_file() else None
    return labels


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("joulenas_standalone", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
