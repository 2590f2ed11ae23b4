"""Count the kinds of layer that must be compiled before a network runs on CUDA, without torch.

torch compiles equal layers once, so a network takes one compilation for each kind. Compiling takes
longer than measuring, so campaigns count kinds when they plan.
"""

from __future__ import annotations

from dataclasses import replace

from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
    Precision,
)
from search_spaces.architecture.simulated import is_simulated

# Precisions that need no quantised tensor, and so no compiler.
PLAIN: tuple[Precision, ...] = ("fp32", "bf16")


def is_quantised(layer: LayerSpec) -> bool:
    """Whether a block of ``layer`` has a precision other than fp32 and bf16."""
    return any(b.compression.precision not in PLAIN for b in (layer.attention, layer.ffn))


def compressed_layer_kinds(architecture: Architecture) -> int:
    """Number of different layers of ``architecture`` that are compiled on CUDA.

    These are the layers with a quantised block; fp32, bf16 and 2:4 layers are not compiled.
    """
    layers = filter(is_quantised, architecture.layers)
    return len({(_as_run(layer.attention), _as_run(layer.ffn)) for layer in layers})


def _as_run(block: AttentionSpec | FfnSpec) -> AttentionSpec | FfnSpec:
    # Simulated zeros are weights like any other and make no kind of their own.
    if not is_simulated(block.compression, "cuda"):
        return block
    return replace(block, compression=Compression(block.compression.precision))
