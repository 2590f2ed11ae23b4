"""Check by shapes alone whether every block of an architecture has a kernel on a device.

These are the rules that ``compression`` applies when it builds a model. Plans of hundreds of
measurements check them first, instead of failing one process at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from statistics import median_high

import numpy as np

from search_spaces.architecture import INT4_GROUP_SIZE, Architecture, Precision, is_factorised
from search_spaces.architecture.simulated import is_simulated
from search_spaces.space import SearchSpace
from search_spaces.workload import AS_IT_IS, Workload

# cuBLASLt's scaled product takes multiples of 16, the int8 product of 8, cuSPARSELt in bf16 of 64.
FP8_MULTIPLE = 16
INT8_CUDA_MULTIPLE = 8
# The int8 product on CUDA takes no fewer rows (tokens of a batch; in generating one a sample).
INT8_CUDA_LEAST_ROWS = 17
# The 4-bit product takes whole groups along the input.
INT4_OUT_MULTIPLE = 16
SPARSE_CUDA_MULTIPLE = 64
# A mask of 2:4 needs whole groups along the input.
SPARSE_GROUP = 4


def least_rows(precision: Precision, device: str) -> int:
    """Least number of rows for the product of ``precision`` on ``device``; fewer are padded."""
    return INT8_CUDA_LEAST_ROWS if precision == "int8" and device.startswith("cuda") else 1


def size_multiples(precision: Precision, on_cuda: bool) -> tuple[int, int]:
    """Return what input and output sizes of a product must be multiples of."""
    if precision == "fp8":
        return FP8_MULTIPLE, FP8_MULTIPLE
    if precision == "int4wo":
        return INT4_GROUP_SIZE, INT4_OUT_MULTIPLE
    if precision == "int8" and on_cuda:
        return INT8_CUDA_MULTIPLE, INT8_CUDA_MULTIPLE
    return 1, 1


def kernel_fault(architecture: Architecture, device: str) -> str | None:
    """Return why a block cannot run on ``device`` (``cpu`` or ``cuda:N``), ``None`` if all can.

    Masks without a kernel run dense (``search_spaces.architecture.simulated``); batches with too
    few rows are padded (``least_rows``). Whether the device's generation has the kernel is not
    checked here: ``compression.realness`` probes the device.
    """
    on_cuda = device.startswith("cuda")
    for placed in architecture.placed_blocks:
        where, compression = placed.path, placed.spec.compression
        precision, sparsity = compression.precision, compression.sparsity
        if precision == "fp8" and not on_cuda:
            return f"{where} must run on CUDA for fp8, got {device}"
        of_input, of_output = size_multiples(precision, on_cuda)
        if sparsity == "2:4" and not is_simulated(compression, device):
            of_input = of_output = SPARSE_CUDA_MULTIPLE
        if sparsity == "2:4":
            of_input = max(of_input, SPARSE_GROUP)
        for d_in, d_out in _shapes(placed.shapes.values(), placed.spec.rank):
            if d_in % of_input or d_out % of_output:
                return (
                    f"{where} must have sizes divisible by {of_input} and {of_output} for "
                    f"{precision} {sparsity}, got {(d_in, d_out)}"
                )
    return None


def rows_read(space: SearchSpace, workload: Workload) -> int:
    """Rows of a projection's input, for a median member of ``space`` on ``workload``.

    Rows are the tokens of a batch; a generation step has one a sample. The steps of translations
    are left out, as encoder-decoders are not compressed.
    """
    if workload.phase == "generate":
        return workload.batch_size
    n_tokens = []
    for patch_size, resolution in product(space.values("patch_size"), space.values("resolution")):
        try:
            grid = np.array([[patch_size], [resolution or AS_IT_IS]])
            n_tokens.append(int(workload.n_tokens_batch(*grid)[0]))
        except ValueError:
            # This grid does not fit the samples; whether any does is checked elsewhere.
            continue
    return workload.batch_size * (median_high(n_tokens) if n_tokens else 1)


def _shapes(projections: Iterable[tuple[int, int]], rank: int | None) -> Iterator[tuple[int, int]]:
    for d_in, d_out in projections:
        if rank is not None and is_factorised(d_in, d_out, rank):
            yield d_in, rank
            yield rank, d_out
        else:
            yield d_in, d_out
