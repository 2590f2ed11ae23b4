"""The artifact itself as a format, which other formats must reproduce."""

from __future__ import annotations

from pathlib import Path

from nas.exporting.artifact import COMPRESSED, load_artifact
from nas.exporting.formats.base import Loaded, StoredNetwork
from nas.exporting.formats.registry import ARTIFACT
from nas.tasks.base.artifact_files import CHECK
from nas.training.weights import WEIGHTS
from search_spaces.architecture import Architecture

# The arithmetic is the same, but other CPUs may round differently.
_OUTPUT_TOLERANCE = 1e-3


class SafetensorsArtifact(StoredNetwork):
    """The artifact; ``load`` also checks the outputs of its compressed file."""

    name = ARTIFACT
    other_batches = ()

    def output_tolerance(self, architecture: Architecture, largest: float) -> float:
        """See ``StoredNetwork.output_tolerance``."""
        return _OUTPUT_TOLERANCE

    def quality_tolerance(self, architecture: Architecture) -> float:
        """See ``StoredNetwork.quality_tolerance``."""
        return 0.0

    def load(self, folder: Path, *, device: str, threads: int) -> Loaded:
        """See ``StoredNetwork.load``; torch chooses the threads, as in the search."""
        import torch
        from safetensors.torch import load_file

        artifact = load_artifact(folder, device=device)
        if (folder / COMPRESSED).is_file():
            inputs = load_file(str(folder / CHECK))["inputs"].to(device)
            small = load_artifact(folder, device=device, small=True)
            if not torch.equal(small.call(inputs), artifact.call(inputs)):
                raise ValueError(f"outputs of {COMPRESSED} must equal those of {WEIGHTS}")
        return Loaded(artifact.call, f"torch {torch.__version__}", artifact.network)


ARTIFACT_FORMAT = SafetensorsArtifact()
