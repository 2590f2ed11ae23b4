"""Features of architectures for the surrogate of quality.

Joules hardly depend on which layer is wide; quality does. So beside sizes in closed form there
are, for each choice of a block, its profile over depth (Legendre polynomials over relative depth)
and its value in each layer. A few trials show that wide layers help, and many are needed to show
which layers: the prior relevance is higher for means over depth and lower for single layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import eval_legendre

from predictors.energy.features import counted
from search_spaces.architecture import PRECISIONS, SPARSITIES
from search_spaces.space.batch import ArchitectureBatch, AttentionBatch, BlockBatch, FfnBatch
from search_spaces.workload import Workload

Array = NDArray[np.float64]

_ORDERS = 3
# Added to the prior mean of log relevance, for means over depth and for single layers.
_MEANS_SHIFT, _LAYERS_SHIFT = 2.0, -2.0
_LEAST_SPREAD = 1e-9


@dataclass(frozen=True)
class _Columns:
    """Raw columns ``(N, K)`` of one kind, and the shift of their log relevance."""

    values: Array
    shift: float = 0.0


@dataclass(frozen=True)
class _Choice:
    """A numeric choice, centred, and the part of its square that is not linear in it.

    The second is for optima inside the range; a choice of two values has none.
    """

    mean: float
    slope: float
    level: float
    is_binary: bool

    @classmethod
    def of(cls, values: Array) -> _Choice | None:
        """Return the transform of a choice with these values; ``None`` if all are equal."""
        distinct = np.unique(values.round(9))
        if len(distinct) < 2:
            return None
        linear = distinct - distinct.mean()
        square = linear**2 - (linear**2).mean()
        slope = float(square @ linear / (linear @ linear))
        return cls(float(distinct.mean()), slope, float((linear**2).mean()), len(distinct) == 2)

    def __call__(self, values: Array) -> list[Array]:
        """Return one or two features for each value."""
        linear = values - self.mean
        if self.is_binary:
            return [linear]
        return [linear, linear**2 - self.level - self.slope * linear]


@dataclass(frozen=True)
class ArchitectureFeatures:
    """Standardised features, ``(N, F)``; choices that did not vary in training are left out.

    ``choices`` are those of the whole model and of its blocks. ``expected`` is added to the prior
    mean of each feature's log relevance.
    """

    workload: Workload
    choices: Mapping[str, _Choice]
    n_layers: Mapping[str, int]
    varies: NDArray[np.bool_]
    centre: Array
    scale: Array
    expected: Array

    @classmethod
    def of(cls, batch: ArchitectureBatch, workload: Workload) -> ArchitectureFeatures:
        """Standardise by the architectures of ``batch``."""
        choices, n_layers = {}, {}
        for name, values, active in _choices(batch):
            choice = _Choice.of(values() if active is None else values()[active])
            if choice is not None:
                choices[name] = choice
                n_layers[name] = 0 if active is None else active.shape[1]
        columns = _columns(batch, workload, choices, n_layers)
        raw = np.hstack([part.values for part in columns])
        spread = np.nanstd(raw, axis=0)
        varies = spread > _LEAST_SPREAD
        if not varies.any():
            # A process needs a feature, even if all architectures are alike.
            varies[0], spread[0] = True, 1.0
        shifts = [np.full(part.values.shape[1], part.shift) for part in columns]
        return cls(
            workload,
            choices,
            n_layers,
            varies,
            np.nanmean(raw, axis=0)[varies],
            spread[varies],
            np.concatenate(shifts)[varies],
        )

    def __call__(self, batch: ArchitectureBatch) -> Array:
        """Return the features of ``batch``; what it does not have counts as average."""
        columns = _columns(batch, self.workload, self.choices, self.n_layers)
        raw = np.hstack([part.values for part in columns])
        features: Array = np.nan_to_num((raw[:, self.varies] - self.centre) / self.scale)
        return features


def _columns(
    batch: ArchitectureBatch,
    workload: Workload,
    choices: Mapping[str, _Choice],
    n_layers: Mapping[str, int],
) -> list[_Columns]:
    """Return the columns of sizes in closed form, and of ``choices`` in their order."""
    counts, sizes = counted(batch, workload)
    columns = [_Columns(np.column_stack([sizes, np.log(counts.total("params"))]))]
    present = {name: (values, active) for name, values, active in _choices(batch)}
    for name, choice in choices.items():
        n_features = 1 if choice.is_binary else 2
        if name not in present:
            width = n_features * (_ORDERS + n_layers[name] if n_layers[name] else 1)
            columns.append(_Columns(np.full((len(batch), width), np.nan)))
            continue
        values, active = present[name]
        for feature in choice(values()):
            if active is None:
                columns.append(_Columns(feature[:, None]))
            else:
                columns += _over_depth(feature, active, n_layers[name])
    return columns


def _over_depth(
    values_NL: Array, active_NL: NDArray[np.bool_], n_layers: int
) -> Iterator[_Columns]:
    """Return the profile of a choice over depth, and its values in ``n_layers`` layers."""
    depth_N1 = active_NL.sum(axis=1, keepdims=True)
    layers = np.arange(values_NL.shape[1])
    position_NL = np.clip(2 * layers / np.maximum(depth_N1 - 1, 1) - 1, -1, 1)
    weighted_NL = values_NL * (active_NL / depth_N1)
    for order in range(_ORDERS):
        profile_N = (weighted_NL * eval_legendre(order, position_NL)).sum(axis=1)
        yield _Columns(profile_N[:, None], 0.0 if order else _MEANS_SHIFT)
    members = np.full((len(values_NL), n_layers), np.nan)
    shared = min(n_layers, values_NL.shape[1])
    members[:, :shared] = np.where(active_NL, values_NL, np.nan)[:, :shared]
    yield _Columns(members, _LAYERS_SHIFT)


# A choice: its name, a function that returns its values, and which layers exist, where it has any.
_Named = tuple[str, Callable[[], Array], NDArray[np.bool_] | None]


def _choices(batch: ArchitectureBatch) -> Iterator[_Named]:
    """Return the choices of whole models, ``(N,)``, and those of blocks, ``(N, L)``."""
    yield "d_model", lambda: np.log(batch.d_model), None
    yield "depth", lambda: batch.depth.astype(float), None
    yield "patch_size", lambda: np.log(batch.patch_size), None
    yield "resolution", lambda: np.log1p(batch.resolution), None
    for position, style in enumerate(batch.styles):
        code = np.zeros(len(batch)) if batch.style is None else batch.style
        yield f"style {style}", partial(_is, code, position), None
    for name, values in batch.extra.items():
        if values.dtype.kind in "if":
            yield f"extra {name}", partial(values.astype, float), None
            continue
        for value in np.unique(values):
            yield f"extra {name} {value}", partial(_is, values, value), None
    yield from _of_block("attention", batch.attention, batch.d_model, batch.active)
    yield from _of_block("ffn", batch.ffn, batch.d_model, batch.active)
    if batch.decoder is not None:
        own = batch.decoder
        yield "decoder d_model", lambda: np.log(own.d_model), None
        yield "decoder depth", lambda: own.depth.astype(float), None
        for name, block in (
            ("decoder attention", own.attention),
            ("decoder cross-attention", own.cross_attention),
            ("decoder ffn", own.ffn),
        ):
            yield from _of_block(name, block, own.d_model, own.active)


def _of_block(
    name: str, block: BlockBatch, width_N: NDArray[np.int64], active_NL: NDArray[np.bool_]
) -> Iterator[_Named]:
    full_N1 = width_N[:, None]
    if isinstance(block, AttentionBatch):
        yield f"{name} heads", lambda: np.log(block.n_heads), active_NL
        yield f"{name} groups", lambda: np.log(block.n_heads / block.n_kv_heads), active_NL
    if isinstance(block, FfnBatch):
        yield f"{name} ratio", lambda: np.log(block.d_ff / full_N1), active_NL
    shares = np.where(block.rank > 0, block.rank, full_N1) / full_N1
    yield f"{name} rank", lambda: np.log(shares), active_NL
    for code, precision in enumerate(PRECISIONS):
        yield f"{name} {precision}", partial(_is, block.precision, code), active_NL
    for code, sparsity in enumerate(SPARSITIES):
        yield f"{name} {sparsity}", partial(_is, block.sparsity, code), active_NL


def _is(codes: NDArray[Any], code: object) -> Array:
    matches: Array = (codes == code).astype(float)
    return matches
