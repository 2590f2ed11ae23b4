"""Records of closed-form counts, and the bytes of weights and values at each precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import INT4_GROUP_SIZE, PRECISIONS, Precision
from search_spaces.space.batch import Ints

Floats = NDArray[np.float64]

BYTES_PER_WEIGHT: dict[Precision, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "int8": 1.0,
    "fp8": 1.0,
    "int8wo": 1.0,
    # Half a byte, and a bf16 scale and zero point for each group.
    "int4wo": 0.5 + 4 / INT4_GROUP_SIZE,
}
_BYTES_PER_ACTIVATION: dict[Precision, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "int8": 4.0,
    "fp8": 2.0,
    "int8wo": 2.0,
    "int4wo": 2.0,
}
# By position in ``PRECISIONS``.
PER_WEIGHT = np.array([BYTES_PER_WEIGHT[p] for p in PRECISIONS])
PER_VALUE = np.array([_BYTES_PER_ACTIVATION[p] for p in PRECISIONS])


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """One attention or feed-forward block; see ``Counts`` for the units."""

    precision: Precision
    params: int
    macs: int
    weight_bytes: float
    activation_bytes: float
    n_kernels: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Closed-form counts of one architecture on one workload.

    ``macs`` and ``activation_bytes`` are per sample; ``weight_bytes`` are read once a batch;
    ``n_kernels`` is launches of a pass (a phase, where the workload has one) in eager mode.
    ``blocks`` are in running order; embeddings, position table, final norm and head are counted
    outside them.
    """

    params: int
    macs: int
    weight_bytes: float
    activation_bytes: float
    n_kernels: int
    blocks: tuple[BlockCounts, ...]

    @property
    def flops(self) -> int:
        """Two per multiply-accumulate."""
        return 2 * self.macs


@dataclass(frozen=True)
class PartCounts:
    """Counts of one kind of part, all of one shape; see ``Counts`` for the units.

    ``precision`` and ``sparsity`` are positions in ``PRECISIONS`` and ``SPARSITIES``.
    ``is_factorised`` says that some projection is built as two factors. ``read_bytes`` are those
    of weights that a batch reads: ``weight_bytes``, but for a decoder's, which each step reads.
    """

    precision: Ints
    sparsity: Ints
    is_factorised: NDArray[np.bool_]
    params: Floats
    macs: Floats
    weight_bytes: Floats
    activation_bytes: Floats
    n_kernels: Floats
    read_bytes: Floats


@dataclass(frozen=True)
class DecoderCounts:
    """Counts of the decoders of ``N`` encoder-decoders, as ``BatchCounts`` has them."""

    attention: PartCounts
    cross_attention: PartCounts
    ffn: PartCounts
    outer: PartCounts


@dataclass(frozen=True)
class BatchCounts:
    """Counts of ``N`` architectures: blocks ``(N, L)``, zero in layers that do not exist.

    ``outer`` is what lies outside the blocks (embedding, position table, final norm, head), with
    fields of shape ``(N,)``.
    """

    attention: PartCounts
    ffn: PartCounts
    outer: PartCounts
    decoder: DecoderCounts | None = None

    @property
    def parts(self) -> tuple[PartCounts, ...]:
        """All parts, blocks and others."""
        own = (self.attention, self.ffn, self.outer)
        if self.decoder is None:
            return own
        rest = self.decoder
        return (*own, rest.attention, rest.cross_attention, rest.ffn, rest.outer)

    def total(self, field: str) -> Floats:
        """Sum of one field over all parts, shape ``(N,)``."""
        outer, *blocks = (getattr(part, field) for part in (self.outer, *self._blocks))
        total: Floats = outer + sum(part.sum(axis=1) for part in blocks)
        if self.decoder is not None:
            total = total + getattr(self.decoder.outer, field)
        return total

    @property
    def _blocks(self) -> tuple[PartCounts, ...]:
        return tuple(part for part in self.parts if part.macs.ndim == 2)
