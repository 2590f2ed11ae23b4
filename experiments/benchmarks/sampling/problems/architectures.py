"""Configurations of a search problem as architectures, for samplers that price architectures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.benchmarks.sampling.problems.space import Config, Parameter, columns_of
from search_spaces.architecture import (
    PRECISIONS,
    SPARSITIES,
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.space.batch import ArchitectureBatch, AttentionBatch, BlockBatch, FfnBatch
from search_spaces.workload import Workload

# Values of a parameter by its name, ``(N,)`` each.
Values = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Architectures:
    """The architectures of a problem's configurations, all of one workload.

    ``fixed`` are parameters that have no counterpart in an architecture, at their values in a
    search. ``error_scale`` times the first loss is an error rate.
    """

    workload: Workload
    batch_of: Callable[[Values], ArchitectureBatch]
    fixed: Config = field(default_factory=dict)
    error_scale: float = 1.0

    def of(self, parameters: Sequence[Parameter], config: Config) -> Architecture:
        """Return the architecture of one configuration."""
        batch = self.batch_of(columns_of(parameters, [config]))
        layers = range(int(batch.depth[0]))
        return Architecture(
            int(batch.d_model[0]),
            tuple(
                LayerSpec(_attention(batch.attention, layer), _ffn(batch.ffn, layer))
                for layer in layers
            ),
        )


def _attention(block: AttentionBatch, layer: int) -> AttentionSpec:
    shape = (int(x[0, layer]) for x in (block.n_heads, block.n_kv_heads, block.d_head))
    return AttentionSpec(*shape, compression=_compression(block, layer))


def _ffn(block: FfnBatch, layer: int) -> FfnSpec:
    return FfnSpec(int(block.d_ff[0, layer]), compression=_compression(block, layer))


def _compression(block: BlockBatch, layer: int) -> Compression:
    return Compression(PRECISIONS[block.precision[0, layer]])


def stack(
    width_N: NDArray[np.int64],
    depth_N: NDArray[np.int64],
    heads_NL: NDArray[np.int64],
    ratio_NL: NDArray[np.int64],
    precision_NL: NDArray[np.int64] | None = None,
) -> ArchitectureBatch:
    """Return encoders with these heads, FFN ratios and positions of precisions by layer."""
    active = np.arange(heads_NL.shape[1]) < depth_N[:, None]
    zeros = np.zeros_like(heads_NL)
    precision = zeros if precision_NL is None else np.where(active, precision_NL, 0)
    dense = zeros + SPARSITIES.index("dense")
    heads = np.where(active, heads_NL, 1)
    return ArchitectureBatch(
        d_model=width_N,
        depth=depth_N,
        patch_size=np.ones_like(width_N),
        resolution=np.zeros_like(width_N),
        attention=AttentionBatch(
            zeros, precision, dense, heads, heads, np.where(active, width_N[:, None] // heads, 1)
        ),
        ffn=FfnBatch(zeros, precision, dense, np.where(active, ratio_NL * width_N[:, None], 1)),
    )
