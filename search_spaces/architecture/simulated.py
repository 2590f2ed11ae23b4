"""Simulated sparsity: masks that a device has no kernel for.

A *simulated* choice has its effect on accuracy (the zeros are there) and none on cost: the dense
kernel runs. A choice that cannot run on a device at all, such as fp8 without tensor cores for it,
is an error of ``compression.apply.compress``. ``compression.realness`` measures whether an
existing kernel gains anything.
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
    """Return the sparsities that some block of ``architecture`` only simulates on ``device``."""
    simulated = {
        block.compression.sparsity
        for block in architecture.blocks
        if is_simulated(block.compression, device)
    }
    return tuple(s for s in SPARSITIES if s in simulated)


def describe_on(architecture: Architecture, device: str) -> str:
    """``architecture.describe()``, marking what is simulated on ``device``."""
    simulated = simulated_choices(architecture, device)
    text = architecture.describe()
    return f"{text} ({', '.join(simulated)} simulated)" if simulated else text
