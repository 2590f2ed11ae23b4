"""Which choices a device has no kernel for: they run, save nothing, and say so wherever shown.

A *simulated* choice has its effect on accuracy (the zeros are there) and none on cost: the dense
kernel runs, and the joules are those of the dense kernel. What cannot even run on a device, such
as fp8 without its tensor cores, is an error of ``compression.apply.compress``. Whether a kernel
that does exist gains anything is for ``compression.realness`` to measure.
"""

from __future__ import annotations

from search_spaces.architecture import (
    SPARSITIES,
    UNSTRUCTURED,
    Architecture,
    Compression,
    Sparsity,
)


def is_simulated(compression: Compression, device: str) -> bool:
    """Whether the sparsity of ``compression`` is only a mask on ``device`` (``cpu``, ``cuda:0``).

    2:4 products exist on CUDA and, as used here, in bf16.
    """
    if compression.sparsity == "2:4":
        return not (device.startswith("cuda") and compression.precision == "bf16")
    return compression.sparsity in UNSTRUCTURED


def simulated_choices(architecture: Architecture, device: str) -> tuple[Sparsity, ...]:
    """The sparsities of ``architecture`` that some block only simulates on ``device``."""
    found = {
        block.compression.sparsity
        for block in architecture.blocks
        if is_simulated(block.compression, device)
    }
    return tuple(s for s in SPARSITIES if s in found)


def describe_on(architecture: Architecture, device: str) -> str:
    """``architecture.describe()``, with what is simulated on ``device`` named as such."""
    found = simulated_choices(architecture, device)
    text = architecture.describe()
    return f"{text} ({', '.join(found)} simulated)" if found else text
