"""What every further form of an artifact must do: be written from it, and be run again.

An artifact (``nas.exporting.artifact``) is what the other forms are made from and judged by. A
form joins by a class here and a line in ``nas.exporting.formats.registry``.
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

# Largest difference of an output, relative to 1 + the largest output: that of the arithmetic's
# order in fp32, and of a few roundings to 8 bits of mantissa where bf16 takes part.
_FP32_TOLERANCE, _BF16_TOLERANCE = 1e-3, 0.03
# By how much bf16, computed in another order, may move an quality.
_BF16_ACCURACY = 0.01


@dataclass(frozen=True, slots=True)
class Loaded:
    """A form that runs: ``call`` maps a batch of inputs to logits, both on its device.

    ``module`` is the same as a torch network, where it is one: joules are then those of the
    compiled network, as in the search.
    """

    call: Callable[[Tensor], Tensor]
    runtime: str
    module: nn.Module | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a form cannot hold: ``text`` names it, ``gene`` its gene and value, if it has one."""

    text: str
    gene: str | None = None

    def __str__(self) -> str:
        """What it is."""
        return self.text


class Form(abc.ABC):
    """One further form; ``files`` are its paths in the artifact's folder.

    Attributes:
        name: how a user asks for it.
        title: what it is, for people.
        files: what it writes, relative to the artifact.
        packages: what must be installed, beside what this project needs.
        precisions: of blocks that it can hold.
        has_outputs: whether its outputs are the network's; else it is judged by quality.
        is_for_families: whether it can hold networks of other families than ours.
        optional_files: what it writes besides where the artifact has the like.
        card_file: where a card of its own goes, ``None`` for none; it is written last.
        on_cpu: whether it runs on the CPU, wherever the search ran.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    optional_files: ClassVar[tuple[str, ...]] = ()
    card_file: ClassVar[str | None] = None
    packages: ClassVar[tuple[str, ...]] = ()
    precisions: ClassVar[frozenset[Precision]]
    has_outputs: ClassVar[bool] = True
    is_for_families: ClassVar[bool] = True
    on_cpu: ClassVar[bool] = False

    def missing(self) -> str | None:
        """The first package that it needs and that is not installed, ``None`` for none."""
        return next((name for name in self.packages if find_spec(name) is None), None)

    def refusal(
        self, architecture: Architecture, workload: Workload, device: str
    ) -> Refusal | None:
        """What of the network, as it runs on ``device``, this form cannot hold; ``None``: nothing.

        Sparsity that the device only simulates is zeros in dense weights, which every form holds.
        """
        if architecture.family != TRANSFORMER and not self.is_for_families:
            return Refusal(f"networks of the family {architecture.family}")
        if architecture.decoder is not None:
            return Refusal("an encoder-decoder, whose translations are a loop of steps")
        for placed in architecture.placed_blocks:
            compression, block = placed.spec.compression, placed.path.rpartition(".")[2]
            if compression.precision not in self.precisions:
                named = f"{compression.precision} ({placed.path})"
                return Refusal(named, f"{block}_precision {compression.precision}")
            if compression.sparsity != "dense" and not is_simulated(compression, device):
                named = f"{compression.sparsity} kernels ({placed.path})"
                return Refusal(named, f"{block}_sparsity {compression.sparsity}")
        if workload.phase is not None:
            return Refusal(f"the cache that phase {workload.phase} is priced with")
        return None

    def output_tolerance(self, architecture: Architecture, largest: float) -> float | None:
        """How far outputs may differ, the largest being ``largest``; ``None``: not judged."""
        if not self.has_outputs:
            return None
        relative = _BF16_TOLERANCE if _has_bf16(architecture) else _FP32_TOLERANCE
        return relative * (1 + largest)

    def quality_tolerance(self, architecture: Architecture) -> float:
        """How far quality may move beside a single sample, where outputs are judged."""
        return _BF16_ACCURACY if _has_bf16(architecture) else 0.0

    @abc.abstractmethod
    def write(self, folder: Path) -> Mapping[str, Any]:
        """Write ``files`` into the artifact in ``folder``; returns facts for its card."""

    @abc.abstractmethod
    def load(self, folder: Path, *, device: str, threads: int) -> Loaded:
        """Run what ``write`` wrote.

        Raises:
            ValueError: a file is missing, corrupt or of something else.
        """


def _has_bf16(architecture: Architecture) -> bool:
    return any(block.compression.precision != "fp32" for block in architecture.blocks)
