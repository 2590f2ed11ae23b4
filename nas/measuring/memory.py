"""Check that the variants of a checkpoint fit into memory side by side, before any is built."""

from __future__ import annotations

from collections.abc import Collection

from nas.core.units import format_bytes
from nas.measuring.free_memory import available_bytes
from nas.measuring.subject import Subject
from search_spaces.architecture import Architecture
from search_spaces.cost.counting import count
from search_spaces.cost.memory import peak_memory_of

# Memory of a process that has imported torch, with its compiler.
_PROCESS_BYTES = 500_000_000


def needed_bytes(subject: Subject, architectures: Collection[Architecture], device: str) -> float:
    """Return the estimated peak of building and running ``architectures`` side by side.

    Each process has its variant; the one that is being built has the fp32 weights as well.
    """
    own = subject.checkpoint.architecture
    return max(
        sum(peak_memory_of(each, workload, device) for each in architectures)
        + count(own, workload, device).weight_bytes
        + _PROCESS_BYTES * (len(architectures) if device == "cpu" else 0)
        for workload in subject.workloads
    )


def check_memory(subject: Subject, architectures: Collection[Architecture], device: str) -> None:
    """Raise ``ValueError`` if the variants do not fit into the device's free memory."""
    free = available_bytes() if device == "cpu" else _free_on_gpu(device)
    needed = needed_bytes(subject, architectures, device)
    if free is not None and needed > free:
        sizes = f"{format_bytes(needed)} (estimate), and {format_bytes(free)} are free"
        what, fewer = "1 precision", ""
        if len(architectures) > 1:
            what = f"{len(architectures)} precisions side by side"
            fewer = "name fewer with --precision, or "
        size = "--image-size" if subject.workloads[0].is_image else "--sequence-length"
        raise ValueError(
            f"measuring {subject.checkpoint.folder.name} in {what} needs {sizes}: {fewer}lower "
            f"--batch-size or {size}"
        )


def _free_on_gpu(device: str) -> int:
    import torch

    return int(torch.cuda.mem_get_info(device)[0])
