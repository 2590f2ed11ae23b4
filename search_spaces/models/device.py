"""Choice of the GPU that a process works on."""

from __future__ import annotations

from contextlib import suppress

import torch


def use_device(device: str) -> None:
    """Make ``device`` torch's current device, for streams, graphs and synchronisation.

    Call it before anything else uses a GPU: torch would use the first one for these, wherever
    tensors are, and a graph captured there is empty. Does nothing where torch has no CUDA.

    Raises:
        RuntimeError: there is no such GPU.
    """
    if device.startswith("cuda"):
        with suppress(AttributeError):
            torch.cuda.set_device(device)
