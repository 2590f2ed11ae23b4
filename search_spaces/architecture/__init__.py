"""What a Transformer is: a frozen, validated, canonical ``Architecture``.

Canonical means one form per model: genes that do not matter are normalised away on
construction, so two architectures that build the same network compare and hash equal.

* A rank that would not save parameters in any projection of its block becomes ``None``.
* A patch size is kept as given; text workloads demand ``patch_size == 1``.
* A resolution is ``None`` where samples are read as they are; a workload refuses the number that
  would name its own size, so that nothing has two forms.

An encoder-decoder (Vaswani et al. 2017) has a ``decoder`` of its own width, depth and blocks, as
in HAT (Wang et al. 2020); all others have none, and are written and hashed without one.

Convention: ``d_ff`` and ``d_head`` are stored as whole numbers, never as ratios, because two
ratios can name one width. ``FfnSpec.ratio`` gives the ratio back for display.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

from nas.core.names import check_name

Precision = Literal["fp32", "bf16", "int8", "fp8", "int8wo", "int4wo"]
Sparsity = Literal["dense", "2:4", "unstructured-50", "unstructured-90"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SPARSITIES: tuple[Sparsity, ...] = get_args(Sparsity)
# What a sparsity is called whose zeros no kernel of any device skips.
UNSTRUCTURED: dict[Sparsity, float] = {"unstructured-50": 0.5, "unstructured-90": 0.9}
# Four-bit weights share a scale and a zero point among this many along the input.
INT4_GROUP_SIZE = 32

# A residual stream is bf16 where every block is one of these.
BF16_STREAM: frozenset[Precision] = frozenset({"bf16", "fp8", "int8wo", "int4wo"})

SCHEMA_VERSION = 1
# The family of our own networks; see ``search_spaces.cost.families`` for others.
TRANSFORMER = "transformer"
Extra = tuple[tuple[str, int | float | str], ...]

_LARGEST_INT = 2**31 - 1


def require_positive_int(name: str, value: object) -> None:
    """Raise ``ValueError`` naming the field unless ``value`` is an integer above zero.

    None that is ours needs more than 31 bits, and what computes with them has 64.
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

        ``d_memory`` is the width of what keys and values are made of, where it is not the
        block's own input.
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
    """One feed-forward block: ``d_model -> d_ff -> d_model`` with GELU between."""

    d_ff: int
    rank: int | None = None
    compression: Compression = field(default_factory=Compression)

    def __post_init__(self) -> None:
        """Validate the width and rank."""
        require_positive_int("d_ff", self.d_ff)
        if self.rank is not None:
            require_positive_int("rank", self.rank)

    def projections(self, d_model: int) -> dict[str, tuple[int, int]]:
        """Shapes ``(d_in, d_out)`` of the projections, by name."""
        return {"up": (d_model, self.d_ff), "down": (self.d_ff, d_model)}

    def ratio(self, d_model: int) -> float:
        """Width of the block relative to ``d_model``."""
        return self.d_ff / d_model


Spec = TypeVar("Spec", AttentionSpec, FfnSpec)


def canonical_block(spec: Spec, shapes: Mapping[str, tuple[int, int]]) -> Spec:
    """``spec`` without its rank, where that saves no weights in a projection of ``shapes``."""
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


@dataclass(frozen=True, slots=True)
class DecoderSpec:
    """The decoder of an encoder-decoder: its own width, and one or more layers.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    d_model: int
    layers: tuple[DecoderLayerSpec, ...]

    def __post_init__(self) -> None:
        """Validate; what is canonical depends on the encoder, and is the architecture's to say."""
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
    """A block of an architecture, where it is, and the shapes of its projections by name.

    ``path`` is that of its module in the network, such as ``layers.0.attention``.
    """

    path: str
    spec: AttentionSpec | FfnSpec
    shapes: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Architecture:
    """A Transformer: ``depth`` pre-norm layers of width ``d_model``, and perhaps a decoder.

    ``patch_size`` is the side in pixels of the square patches that become tokens; it is 1 for
    token workloads. ``resolution`` is what of a sample is read, as the network's first step: the
    height in pixels that images are shrunk to before they are cut into patches (their width
    follows in proportion), or the number of a text's first tokens; ``None`` reads samples as they
    are. With a ``decoder``, ``layers`` are the encoder's. ``family`` says whose network it is;
    those of others may have ``extra`` genes, by name. What the network reads and predicts is the
    ``Workload``'s to say.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    d_model: int
    layers: tuple[LayerSpec, ...]
    patch_size: int = 1
    resolution: int | None = None
    family: str = TRANSFORMER
    extra: Extra = ()
    decoder: DecoderSpec | None = None

    def __post_init__(self) -> None:
        """Validate, then bring every layer to its canonical form."""
        require_positive_int("d_model", self.d_model)
        require_positive_int("patch_size", self.patch_size)
        if self.resolution is not None:
            require_positive_int("resolution", self.resolution)
        if not self.layers or not all(isinstance(layer, LayerSpec) for layer in self.layers):
            raise ValueError(f"layers must hold one or more LayerSpec, got {self.layers!r}")
        canonical = tuple(
            LayerSpec(
                canonical_block(layer.attention, layer.attention.projections(self.d_model)),
                canonical_block(layer.ffn, layer.ffn.projections(self.d_model)),
            )
            for layer in self.layers
        )
        object.__setattr__(self, "layers", canonical)
        if self.decoder is not None:
            object.__setattr__(self, "decoder", _canonical_decoder(self.decoder, self.d_model))
        if not isinstance(self.family, str) or not self.family:
            raise ValueError(f"family must be a name, got {self.family!r}")
        if self.family != TRANSFORMER:
            check_name("family", self.family)
        if self.extra and self.family == TRANSFORMER:
            raise ValueError(f"extra must be empty for family {TRANSFORMER}, got {self.extra!r}")
        for name, value in self.extra:
            if not isinstance(name, str) or not _is_extra(value):
                raise ValueError(
                    f"extra must hold names with finite numbers or texts, got {name!r}: {value!r}"
                )
            for text in (name, value):
                if isinstance(text, str):
                    check_name("extra", text)
        object.__setattr__(self, "extra", tuple(sorted(self.extra)))
        if self.family != TRANSFORMER and not all(_is_plain(block) for block in self.blocks):
            raise ValueError(
                f"family {self.family} must have blocks of precision fp32, sparsity dense and "
                f"full rank"
            )

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @property
    def stacks(self) -> tuple[tuple[LayerSpec | DecoderLayerSpec, ...], ...]:
        """The layers of each stack: the encoder's, and the decoder's where there is one."""
        return (self.layers,) if self.decoder is None else (self.layers, self.decoder.layers)

    @property
    def blocks(self) -> tuple[AttentionSpec | FfnSpec, ...]:
        """Every attention and feed-forward block, in the order they run."""
        return tuple(placed.spec for placed in self.placed_blocks)

    @cached_property
    def placed_blocks(self) -> tuple[PlacedBlock, ...]:
        """Every block with its place in the network, in the order they run."""
        found = []
        for index, layer in enumerate(self.layers):
            for name, spec in (("attention", layer.attention), ("ffn", layer.ffn)):
                shapes = spec.projections(self.d_model)
                found.append(PlacedBlock(f"layers.{index}.{name}", spec, shapes))
        if self.decoder is None:
            return tuple(found)
        width = self.decoder.d_model
        for index, own in enumerate(self.decoder.layers):
            where = f"decoder.layers.{index}"
            cross = own.cross_attention
            found += [
                PlacedBlock(f"{where}.attention", own.attention, own.attention.projections(width)),
                PlacedBlock(
                    f"{where}.cross_attention", cross, cross.projections(width, self.d_model)
                ),
                PlacedBlock(f"{where}.ffn", own.ffn, own.ffn.projections(width)),
            ]
        return tuple(found)

    @cached_property
    def stream_precision(self) -> Precision:
        """Precision of the residual stream, embeddings, norms and head.

        bf16 when every block asks for a precision whose products read bf16, else fp32: a
        stream narrower than one of its blocks would undo that block's choice, and on CPUs the
        int8 product is faster from fp32.
        """
        asked = {block.compression.precision for block in self.blocks}
        return "bf16" if asked <= BF16_STREAM else "fp32"

    @cached_property
    def hash(self) -> str:
        """16 hex digits that name this model; equal models have equal hashes."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` reads it back."""
        from search_spaces.architecture import plain_data as architecture_json

        # Left out where it says nothing: what was hashed and stored before there was one stays.
        rest: dict[str, Any] = {}
        if self.resolution is not None:
            rest["resolution"] = self.resolution
        if self.family != TRANSFORMER:
            rest |= {"family": self.family, "extra": dict(self.extra)}
        if self.decoder is not None:
            rest["decoder"] = architecture_json.decoder_to_dict(self.decoder)
        return {
            "schema": SCHEMA_VERSION,
            "d_model": self.d_model,
            "patch_size": self.patch_size,
            **rest,
            "layers": architecture_json.layers_to_list(self.layers),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """Read ``to_dict``'s form.

        Raises:
            ValueError: a key is missing, unknown, or its value not allowed.
        """
        from search_spaces.architecture import plain_data as architecture_json

        architecture_json.check_keys(
            "architecture",
            data,
            {"schema", "d_model", "patch_size", "layers"},
            may_lack={"resolution", "family", "extra", "decoder"},
        )
        if data["schema"] != SCHEMA_VERSION:
            raise ValueError(
                f"architecture.schema must be {SCHEMA_VERSION}, got {data['schema']!r}"
            )
        extra = data.get("extra", {})
        if not isinstance(extra, Mapping):
            raise ValueError(f"architecture.extra must be an object, got {extra!r}")
        return cls(
            d_model=data["d_model"],
            layers=architecture_json.layers_from_list(data["layers"], "architecture.layers"),
            patch_size=data["patch_size"],
            resolution=data.get("resolution"),
            family=data.get("family", TRANSFORMER),
            extra=tuple(extra.items()),
            decoder=architecture_json.decoder_from_dict(decoder, "architecture.decoder")
            if (decoder := data.get("decoder")) is not None
            else None,
        )

    def describe(self) -> str:
        """One short line for tables, such as ``d64 L4 h4/2 ff128 p2 bf16``.

        A value that differs between layers is shown as the range ``low-high``, a mixed precision
        as its distinct values joined by ``+``.
        """
        own = [] if self.family == TRANSFORMER else [self.family]
        parts = [*own, f"d{self.d_model}", *_describe_layers(self.layers)]
        if self.decoder is not None:
            crossed = [layer.cross_attention for layer in self.decoder.layers]
            parts += ["+", f"d{self.decoder.d_model}", *_describe_layers(self.decoder.layers)]
            parts.append(f"x{_heads(crossed)}")
        ranks = [b.rank for b in self.blocks if b.rank is not None]
        if ranks:
            parts.append(f"r{_span(ranks)}")
        if self.patch_size != 1:
            parts.append(f"p{self.patch_size}")
        if self.resolution is not None:
            parts.append(f"@{self.resolution}")
        parts += [f"{name}={value}" for name, value in self.extra]
        precisions = {block.compression.precision for block in self.blocks}
        parts.append("+".join(p for p in PRECISIONS if p in precisions))
        sparsities = {block.compression.sparsity for block in self.blocks}
        parts += [s for s in SPARSITIES if s in sparsities and s != "dense"]
        return " ".join(parts)


def _is_extra(value: object) -> bool:
    return isinstance(value, str) or (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    )


def _is_plain(block: AttentionSpec | FfnSpec) -> bool:
    return block.rank is None and block.compression == Compression()


def _describe_layers(layers: Sequence[LayerSpec | DecoderLayerSpec]) -> list[str]:
    heads = _heads([layer.attention for layer in layers])
    return [f"L{len(layers)}", f"h{heads}", f"ff{_span([layer.ffn.d_ff for layer in layers])}"]


def _heads(blocks: Sequence[AttentionSpec]) -> str:
    return f"{_span([a.n_heads for a in blocks])}/{_span([a.n_kv_heads for a in blocks])}"


def _canonical_decoder(decoder: DecoderSpec, d_memory: int) -> DecoderSpec:
    width = decoder.d_model
    layers = tuple(
        DecoderLayerSpec(
            canonical_block(own.attention, own.attention.projections(width)),
            canonical_block(own.cross_attention, own.cross_attention.projections(width, d_memory)),
            canonical_block(own.ffn, own.ffn.projections(width)),
        )
        for own in decoder.layers
    )
    return DecoderSpec(width, layers)


def _span(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"
