"""Which GPU of several a process works on."""

from __future__ import annotations

from contextlib import suppress

import torch


def use_device(device: str) -> None:
    """Make ``device`` the one that streams, graphs and synchronising are of.

    Call it before anything else touches a GPU: torch would use the first board for these, wherever
    tensors lie, and a graph captured there is empty.
    A torch without CUDA has none to choose: whatever uses the device says so.

    Raises:
        RuntimeError: there is no such board.
    """
    if device.startswith("cuda"):
        with suppress(AttributeError):
            torch.cuda.set_device(device)
