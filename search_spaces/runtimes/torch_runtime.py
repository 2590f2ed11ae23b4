"""Torch: compiled as it is measured everywhere else, or op by op."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nas.core.names import TORCH
from search_spaces.architecture import PRECISIONS, Architecture, Precision
from search_spaces.runtimes.base import Running, Runtime, Setting
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor, nn


class TorchRuntime(Runtime):
    """Torch as measurements run it: compiled on CPUs, as a graph on CUDA."""

    name = TORCH
    title = "torch"
    precisions: ClassVar[frozenset[Precision]] = frozenset(PRECISIONS)

    def run(
        self,
        network: nn.Module,
        architecture: Architecture,
        workload: Workload,
        inputs: Tensor,
        setting: Setting,
    ) -> Running:
        """See ``Runtime.run``."""
        from search_spaces.compression.apply import compress, prepare_for_inference
        from search_spaces.models.decoding import as_priced

        priced, inputs = as_priced(compress(network, architecture), workload, inputs)
        prepared = prepare_for_inference(
            priced, architecture, inputs, while_compiling=setting.while_compiling
        )
        return Running(prepared.repeat(inputs), prepared.mode, prepared.compile_s)


class EagerTorchRuntime(Runtime):
    """Torch op by op, as a script runs that does not compile."""

    name = "torch-eager"
    title = "torch, eager"
    # Quantised products are only fast when they are compiled.
    precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32", "bf16"})

    def refusal(self, architecture: Architecture, workload: Workload, device: str) -> str | None:
        """See ``Runtime.refusal``."""
        if architecture.decoder is not None:
            return f"{self.name} runs no encoder-decoders: measure them in {TORCH}"
        for placed in architecture.placed_blocks:
            if placed.spec.compression.precision not in self.precisions:
                return (
                    f"{self.name} runs fp32, bf16, not {placed.spec.compression.precision} "
                    f"({placed.path})"
                )
        return None

    def run(
        self,
        network: nn.Module,
        architecture: Architecture,
        workload: Workload,
        inputs: Tensor,
        setting: Setting,
    ) -> Running:
        """See ``Runtime.run``."""
        from search_spaces.compression.apply import compress, run_eagerly
        from search_spaces.models.decoding import as_priced

        priced, inputs = as_priced(compress(network, architecture), workload, inputs)
        prepared = run_eagerly(priced)
        return Running(prepared.repeat(inputs), prepared.mode)
