"""How many forms of a checkpoint fit into memory side by side, before any is built."""

from __future__ import annotations

from collections.abc import Sequence

from nas.core.names import TORCH
from nas.core.units import format_bytes
from nas.measuring.free_memory import available_bytes
from nas.measuring.precisions import Variant
from nas.measuring.subject import Subject
from search_spaces.cost.counting import count
from search_spaces.cost.memory import peak_memory_of
from search_spaces.workload import Workload

# Memory of a process that has imported torch, with its compiler.
_PROCESS_BYTES = 500_000_000
# Further memory of a runtime that converts, in sizes of the fp32 weights: SmolLM2-135M takes
# 1.1 GB in torch, 1.9 GB in LiteRT and ONNX Runtime, 2.6 GB in ExecuTorch, 3.4 GB in OpenVINO.
_CONVERTED_WEIGHTS = 4


def most_beside(subject: Subject, variants: Sequence[Variant], device: str) -> int | None:
    """Return how many of ``variants`` fit into the device's free memory, the first included.

    ``None`` if all do, or if the free memory is not known.

    Raises:
        ValueError: the first and another do not fit.
    """
    free = available_bytes() if device == "cpu" else _free_on_gpu(device)
    if free is None:
        return None
    needed = {n: needed_bytes(subject, variants, device, n) for n in range(1, len(variants) + 1)}
    most = max((n for n, size in needed.items() if size <= free), default=0)
    least = min(2, len(variants))
    if most < least:
        sizes = f"{format_bytes(needed[least])} (estimate), and {format_bytes(free)} are free"
        what, fewer = "1 form", ""
        if least > 1:
            what, fewer = "2 forms side by side", "name fewer with --precision or --runtime, or "
        size = "--image-size" if subject.workloads[0].is_image else "--sequence-length"
        raise ValueError(
            f"measuring {subject.checkpoint.folder.name} in {what} needs {sizes}: {fewer}lower "
            f"--batch-size or {size}"
        )
    return None if most == len(variants) else most


def needed_bytes(subject: Subject, variants: Sequence[Variant], device: str, n: int) -> float:
    """Return the estimated peak of building and running the first and any ``n - 1`` others.

    Each process has its variant; the one that is being built has the fp32 weights as well.
    """
    own = subject.checkpoint.architecture

    def needed(workload: Workload) -> float:
        weights = count(own, workload, device).weight_bytes
        sizes = [
            peak_memory_of(each.architecture, workload, device)
            + (_PROCESS_BYTES if device == "cpu" else 0)
            + (0 if each.runtime.startswith(TORCH) else _CONVERTED_WEIGHTS * weights)
            for each in variants
        ]
        return weights + sizes[0] + sum(sorted(sizes[1:], reverse=True)[: n - 1])

    return max(map(needed, subject.workloads))


def _free_on_gpu(device: str) -> int:
    import torch

    return int(torch.cuda.mem_get_info(device)[0])
