"""Base classes of export formats, which write and reload a stored network.

A new format is a class in its own file and a line in ``nas.exporting.formats.registry``.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from search_spaces.architecture import TRANSFORMER, Architecture, Precision
from search_spaces.architecture.simulated import is_simulated
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor, nn

# Allowed difference of an output, relative to 1 + the largest output: other runtimes sum fp32 in
# another order, and round bf16 to 8 bits of mantissa at other places.
_FP32_TOLERANCE, _BF16_TOLERANCE = 1e-3, 0.03
# Allowed change of quality in bf16.
_BF16_QUALITY = 0.01


class ExportError(RuntimeError):
    """The artifact does not reproduce its trial; its files were removed."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A reloaded network: ``call`` maps a batch of inputs to logits, both on its device.

    ``module`` is the network as a torch module, if it is one. Its joules are then measured after
    compilation, as in the search. ``hold``, if there is one, makes a batch resident in another
    runtime and returns what runs it.
    """

    call: Callable[[Tensor], Tensor]
    runtime: str
    module: nn.Module | None = None
    hold: Callable[[Tensor], Callable[[], object]] | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a format does not support in a network; ``gene`` is its gene and value, if any."""

    text: str
    gene: str | None = None

    def __str__(self) -> str:
        """Return the text."""
        return self.text


class StoredNetwork(abc.ABC):
    """A network in a file format that a fresh process reloads and checks.

    Attributes:
        name: its name on the command line.
        has_outputs: whether its outputs must equal the network's; if not, quality is judged.
        on_cpu: whether it runs on the CPU even if the search used another device.
        other_batches: further batch sizes, whose outputs must equal those of the whole batch.
    """

    name: ClassVar[str]
    has_outputs: ClassVar[bool] = True
    on_cpu: ClassVar[bool] = False
    other_batches: ClassVar[tuple[int, ...]] = (1, 3)

    def output_tolerance(self, architecture: Architecture, largest: float) -> float | None:
        """Return the allowed difference of outputs, or ``None`` if they are not judged.

        ``largest`` is the largest absolute output.
        """
        if not self.has_outputs:
            return None
        relative = _BF16_TOLERANCE if _has_bf16(architecture) else _FP32_TOLERANCE
        return relative * (1 + largest)

    def quality_tolerance(self, architecture: Architecture) -> float:
        """Return the allowed change of quality if outputs are judged; one sample is added."""
        return _BF16_QUALITY if _has_bf16(architecture) else 0.0

    @abc.abstractmethod
    def load(self, folder: Path, *, device: str, threads: int) -> Loaded:
        """Reload the network from the artifact in ``folder``.

        Raises:
            ValueError: a file is missing, corrupt or of another kind.
        """


class ExportFormat(StoredNetwork):
    """A format that is converted from the artifact into the same folder.

    Attributes:
        title: its description.
        files: the files it writes, relative to the artifact.
        optional_files: files it also writes if the artifact has their originals.
        card_file: path of its own model card, which is written last.
        packages: packages it needs beyond this project's requirements, installed by ``extra``.
        precisions: precisions of blocks that it supports.
        is_for_families: whether it supports networks of other families.
    """

    title: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    optional_files: ClassVar[tuple[str, ...]] = ()
    card_file: ClassVar[str | None] = None
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = "onnx"
    precisions: ClassVar[frozenset[Precision]]
    is_for_families: ClassVar[bool] = True

    def missing(self) -> str | None:
        """Return which required package is not installed, with the command; ``None``: all are."""
        absent = next((name for name in self.packages if find_spec(name) is None), None)
        if absent is None:
            return None
        return f"format {self.name} needs {absent}: pip install 'joulenas[{self.extra}]'"

    def refusal(
        self, architecture: Architecture, workload: Workload, device: str
    ) -> Refusal | None:
        """Return what this format does not support in the network as it runs on ``device``.

        Simulated sparsity consists of zeros in dense weights, which every format supports.
        """
        if architecture.family != TRANSFORMER and not self.is_for_families:
            return Refusal(f"networks of the family {architecture.family}")
        if architecture.decoder is not None:
            return Refusal("encoder-decoders, which generate in a loop of steps")
        for placed in architecture.placed_blocks:
            compression, block = placed.spec.compression, placed.path.rpartition(".")[2]
            if compression.precision not in self.precisions:
                text = f"{compression.precision} ({placed.path})"
                return Refusal(text, f"{block}_precision {compression.precision}")
            if compression.sparsity != "dense" and not is_simulated(compression, device):
                text = f"{compression.sparsity} kernels ({placed.path})"
                return Refusal(text, f"{block}_sparsity {compression.sparsity}")
        if workload.phase is not None:
            return Refusal(f"the cache of phase {workload.phase}")
        return None

    @abc.abstractmethod
    def write(self, folder: Path) -> Mapping[str, Any]:
        """Write ``files`` into the artifact in ``folder``; return facts for its card."""


def _has_bf16(architecture: Architecture) -> bool:
    return any(block.compression.precision != "fp32" for block in architecture.blocks)
