"""Blocks of a Transformer and their compression: frozen, validated specifications.

``d_ff`` and ``d_head`` are stored as whole numbers, never as ratios, because two ratios can name
one width. ``FfnSpec.ratio`` gives the ratio back for display.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, get_args

Precision = Literal["fp32", "bf16", "int8", "fp8", "int8wo", "int4wo"]
Sparsity = Literal["dense", "2:4", "unstructured-50", "unstructured-90"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SPARSITIES: tuple[Sparsity, ...] = get_args(Sparsity)
# Share of zeros of the sparsities that no kernel of any device skips.
UNSTRUCTURED: dict[Sparsity, float] = {"unstructured-50": 0.5, "unstructured-90": 0.9}
# Four-bit weights share a scale and a zero point among this many along the input.
INT4_GROUP_SIZE = 32

# A residual stream is bf16 where every block is one of these.
BF16_STREAM: frozenset[Precision] = frozenset({"bf16", "fp8", "int8wo", "int4wo"})

_LARGEST_INT = 2**31 - 1


def require_positive_int(name: str, value: object) -> None:
    """Raise ``ValueError`` naming the field unless ``value`` is an integer above zero.

    Values are limited to 31 bits, so that products fit into 64.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    if value > _LARGEST_INT:
        raise ValueError(f"{name} must be at most {_LARGEST_INT}, got {value!r}")


def is_factorised(d_in: int, d_out: int, rank: int | None) -> bool:
    """Whether a ``d_in x d_out`` projection at ``rank`` is built as two factors.

    Two factors hold ``rank * (d_in + d_out)`` weights against ``d_in * d_out``; factors that do
    not save weights are never built.
    """
    return rank is not None and rank * (d_in + d_out) < d_in * d_out


@dataclass(frozen=True, slots=True)
class Compression:
    """Bit-width and sparsity of the projections of one block.

    ``int8`` is dynamic int8 activations times int8 weights, ``fp8`` the same in e4m3. ``int8wo``
    and ``int4wo`` store weights in 8 or 4 bits and multiply in bf16: they save memory traffic,
    not arithmetic. ``2:4`` keeps two of each four consecutive weights along the input dimension;
    ``unstructured-N`` zeroes N% of the weights wherever they are, which saves nothing on any
    device and is always *simulated* (see ``search_spaces.architecture.simulated``).

    Raises:
        ValueError: a field is not one of the known values, or the two do not go together.
    """

    precision: Precision = "fp32"
    sparsity: Sparsity = "dense"

    def __post_init__(self) -> None:
        """Validate both fields."""
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )
        if self.sparsity not in SPARSITIES:
            raise ValueError(
                f"sparsity must be one of {', '.join(SPARSITIES)}, got {self.sparsity!r}"
            )
        if self.precision == "int4wo" and self.sparsity != "dense":
            # Its zero point is a real number: rounding would turn zeros into small weights.
            raise ValueError(f"sparsity must be dense with precision int4wo, got {self.sparsity}")


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """One attention block: ``n_heads`` query heads share ``n_kv_heads`` key-value heads.

    ``rank`` factorises the four projections (query, key, value, output) where that saves
    weights; ``None`` means full rank.
    """

    n_heads: int
    n_kv_heads: int
    d_head: int
    rank: int | None = None
    compression: Compression = field(default_factory=Compression)

    def __post_init__(self) -> None:
        """Validate the head counts."""
        require_positive_int("n_heads", self.n_heads)
        require_positive_int("n_kv_heads", self.n_kv_heads)
        require_positive_int("d_head", self.d_head)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_kv_heads must divide n_heads={self.n_heads}, got {self.n_kv_heads}"
            )
        if self.rank is not None:
            require_positive_int("rank", self.rank)

    def projections(self, d_model: int, d_memory: int | None = None) -> dict[str, tuple[int, int]]:
        """Shapes ``(d_in, d_out)`` of the projections, by name.

        ``d_memory`` is the width of the input of keys and values, if it is another than the
        block's own.
        """
        d_q, d_kv = self.n_heads * self.d_head, self.n_kv_heads * self.d_head
        d_read = d_model if d_memory is None else d_memory
        return {
            "q": (d_model, d_q),
            "k": (d_read, d_kv),
            "v": (d_read, d_kv),
            "o": (d_q, d_model),
        }


@dataclass(frozen=True, slots=True)
class FfnSpec:
    """One feed-forward block: ``d_model -> d_ff -> d_model``; its style has the activation."""

    d_ff: int
    rank: int | None = None
    compression: Compression = field(default_factory=Compression)

    def __post_init__(self) -> None:
        """Validate the width and rank."""
        require_positive_int("d_ff", self.d_ff)
        if self.rank is not None:
            require_positive_int("rank", self.rank)

    def projections(self, d_model: int, *, is_gated: bool = False) -> dict[str, tuple[int, int]]:
        """Shapes ``(d_in, d_out)`` of the projections, by name."""
        names = ("gate", "up") if is_gated else ("up",)
        return {**dict.fromkeys(names, (d_model, self.d_ff)), "down": (self.d_ff, d_model)}

    def ratio(self, d_model: int) -> float:
        """Width of the block relative to ``d_model``."""
        return self.d_ff / d_model


Spec = TypeVar("Spec", bound=AttentionSpec | FfnSpec)
Shapes = Mapping[str, tuple[int, int]]


def canonical_block(spec: Spec, shapes: Shapes) -> Spec:
    """Return ``spec`` without its rank where that saves no weights in any of ``shapes``."""
    rank = spec.rank
    if rank is not None and not any(is_factorised(*shape, rank) for shape in shapes.values()):
        return replace(spec, rank=None)
    return spec


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One Transformer layer: attention, then feed-forward."""

    attention: AttentionSpec
    ffn: FfnSpec


@dataclass(frozen=True, slots=True)
class DecoderLayerSpec:
    """A decoder's layer: attention over its own tokens, over the encoder's, then feed-forward."""

    attention: AttentionSpec
    cross_attention: AttentionSpec
    ffn: FfnSpec


Layer = TypeVar("Layer", LayerSpec, DecoderLayerSpec)


def layer_blocks(
    layer: LayerSpec | DecoderLayerSpec,
    d_model: int,
    d_memory: int | None = None,
    *,
    is_gated: bool = False,
) -> Iterator[tuple[str, AttentionSpec | FfnSpec, Shapes]]:
    """Yield name, specification and projections' shapes of each block, in the order they run.

    ``d_memory`` is the width that a decoder's cross-attention reads.
    """
    yield "attention", layer.attention, layer.attention.projections(d_model)
    if isinstance(layer, DecoderLayerSpec):
        cross = layer.cross_attention
        yield "cross_attention", cross, cross.projections(d_model, d_memory)
    yield "ffn", layer.ffn, layer.ffn.projections(d_model, is_gated=is_gated)


def canonical_layer(layer: Layer, d_model: int, d_memory: int | None = None) -> Layer:
    """Return ``layer`` with every block canonical."""
    blocks: dict[str, Any] = {
        name: canonical_block(spec, shapes)
        for name, spec, shapes in layer_blocks(layer, d_model, d_memory)
    }
    return type(layer)(**blocks)


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """The decoder of an encoder-decoder: its own width, and one or more layers.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    d_model: int
    layers: tuple[DecoderLayerSpec, ...]

    def __post_init__(self) -> None:
        """Validate the types; ``Architecture`` makes the layers canonical."""
        require_positive_int("decoder.d_model", self.d_model)
        if not self.layers or not all(isinstance(x, DecoderLayerSpec) for x in self.layers):
            raise ValueError(
                f"decoder.layers must hold one or more DecoderLayerSpec, got {self.layers!r}"
            )

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)


@dataclass(frozen=True, slots=True)
class PlacedBlock:
    """A block of an architecture, its path, and the shapes of its projections by name.

    ``path`` is that of its module in the network, such as ``layers.0.attention``.
    """

    path: str
    spec: AttentionSpec | FfnSpec
    shapes: Shapes
