"""Which GPU of several a process works on."""

from __future__ import annotations

import torch


def use_device(device: str) -> None:
    """Make ``device`` the one that streams, graphs and synchronising are of.

    Call it before anything else touches a GPU: torch would use the first board for these, wherever
    tensors lie, and a graph captured there is empty.

    Raises:
        RuntimeError: there is no such board, or torch is built without CUDA.
    """
    if not device.startswith("cuda"):
        return
    try:
        torch.cuda.set_device(device)
    except AttributeError:
        raise RuntimeError(f"{device} needs a torch that is built for CUDA") from None
