"""Whether every block of an architecture has its kernel on a device, told by shapes alone.

The same rules that ``compression`` applies when it builds a model, asked before anything is built:
a plan of hundreds of measurements must not find out one failed process at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from search_spaces.architecture import Architecture, is_factorised

# cuBLASLt's scaled product takes multiples of 16, the int8 product of 8, cuSPARSELt in bf16 of 64.
FP8_MULTIPLE = 16
INT8_CUDA_MULTIPLE = 8
SPARSE_CUDA_MULTIPLE = 64
# A mask of 2:4 needs whole groups along the input.
SPARSE_GROUP = 4


def kernel_fault(architecture: Architecture, device: str) -> str | None:
    """Why a block has no kernel on ``device`` (``cpu`` or ``cuda:N``), ``None`` if all have one.

    Says nothing of whether the device's generation has the kernel: ``compression.realness`` asks
    the device itself.
    """
    on_cuda = device.startswith("cuda")
    for index, layer in enumerate(architecture.layers):
        for name, block in (("attention", layer.attention), ("ffn", layer.ffn)):
            precision, sparsity = block.compression.precision, block.compression.sparsity
            where = f"layers.{index}.{name}"
            if precision == "fp8" and not on_cuda:
                return f"{where} must run on CUDA for fp8, got {device}"
            if sparsity == "2:4" and on_cuda and precision != "bf16":
                return f"{where} must be bf16 for 2:4 kernels, got {precision}"
            of_input = of_output = 1
            if on_cuda and sparsity == "2:4":
                of_input = of_output = SPARSE_CUDA_MULTIPLE
            elif precision == "fp8":
                of_input = of_output = FP8_MULTIPLE
            elif precision == "int8" and on_cuda:
                of_input = of_output = INT8_CUDA_MULTIPLE
            if sparsity == "2:4":
                of_input = max(of_input, SPARSE_GROUP)
            for d_in, d_out in _shapes(
                block.projections(architecture.d_model).values(), block.rank
            ):
                if d_in % of_input or d_out % of_output:
                    return (
                        f"{where} must have sizes divisible by {of_input} and {of_output} for "
                        f"{precision} {sparsity}, got {(d_in, d_out)}"
                    )
    return None


def _shapes(projections: Iterable[tuple[int, int]], rank: int | None) -> Iterator[tuple[int, int]]:
    for d_in, d_out in projections:
        if rank is not None and is_factorised(d_in, d_out, rank):
            yield d_in, rank
            yield rank, d_out
        else:
            yield d_in, d_out
