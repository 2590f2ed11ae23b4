"""What a Transformer is: a frozen, validated, canonical ``Architecture``.

Canonical means one form per model: construction normalises genes that do not matter, so that two
architectures of the same network compare and hash equal.

* A rank that would not save parameters in any projection of its block becomes ``None``.
* A patch size is not changed; text workloads require ``patch_size == 1``.
* A resolution is ``None`` where samples are read whole; a workload refuses the number that equals
  its own size.

An encoder-decoder (Vaswani et al. 2017) has a ``decoder`` with its own width, depth and blocks, as
in HAT (Wang et al. 2020). Other architectures have none, and are written and hashed without one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from nas.core.names import check_name
from search_spaces.architecture import plain_data
from search_spaces.architecture.blocks import (
    BF16_STREAM,
    INT4_GROUP_SIZE,
    PRECISIONS,
    SPARSITIES,
    UNSTRUCTURED,
    AttentionSpec,
    Compression,
    DecoderLayerSpec,
    DecoderSpec,
    FfnSpec,
    LayerSpec,
    PlacedBlock,
    Precision,
    Sparsity,
    canonical_layer,
    is_factorised,
    layer_blocks,
    require_positive_int,
)
from search_spaces.architecture.style import DEFAULT_STYLE, STYLES, BlockStyle

__all__ = [
    "BF16_STREAM",
    "DEFAULT_STYLE",
    "INT4_GROUP_SIZE",
    "PRECISIONS",
    "SCHEMA_VERSION",
    "SPARSITIES",
    "STYLES",
    "TRANSFORMER",
    "UNSTRUCTURED",
    "Architecture",
    "AttentionSpec",
    "BlockStyle",
    "Compression",
    "DecoderLayerSpec",
    "DecoderSpec",
    "Extra",
    "FfnSpec",
    "LayerSpec",
    "PlacedBlock",
    "Precision",
    "Sparsity",
    "is_factorised",
    "require_positive_int",
]

SCHEMA_VERSION = 1
# The family of our own networks; see ``search_spaces.cost.families`` for others.
TRANSFORMER = "transformer"
Extra = tuple[tuple[str, int | float | str], ...]


@dataclass(frozen=True)
class Architecture:
    """A Transformer: ``depth`` layers of width ``d_model``, and perhaps a decoder.

    ``patch_size`` is the side in pixels of the square patches that become tokens; it is 1 for
    token workloads. ``resolution`` is the height in pixels that the network shrinks images to
    before it cuts them into patches (the width follows in proportion), or the number of a text's
    first tokens that it reads; ``None`` reads whole samples. With a ``decoder``, ``layers`` are
    the encoder's. ``style`` is the blocks' of both stacks. Families other than ``transformer`` may
    have ``extra`` genes, by name. The ``Workload`` defines inputs and outputs.

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
    style: BlockStyle = DEFAULT_STYLE

    def __post_init__(self) -> None:
        """Validate, then bring every layer to its canonical form."""
        require_positive_int("d_model", self.d_model)
        require_positive_int("patch_size", self.patch_size)
        if self.resolution is not None:
            require_positive_int("resolution", self.resolution)
        if not self.layers or not all(isinstance(layer, LayerSpec) for layer in self.layers):
            raise ValueError(f"layers must hold one or more LayerSpec, got {self.layers!r}")
        layers = tuple(canonical_layer(layer, self.d_model) for layer in self.layers)
        object.__setattr__(self, "layers", layers)
        if self.decoder is not None:
            width = self.decoder.d_model
            own = tuple(canonical_layer(x, width, self.d_model) for x in self.decoder.layers)
            object.__setattr__(self, "decoder", DecoderSpec(width, own))
        self._check_style()
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

    def _check_style(self) -> None:
        if not isinstance(self.style, BlockStyle):
            raise ValueError(f"style must be a BlockStyle, got {self.style!r}")
        if self.style != DEFAULT_STYLE and self.family != TRANSFORMER:
            raise ValueError(
                f"style must be the default for family {self.family}, got {self.style.describe()}"
            )
        if not self.style.is_rotary:
            return
        for placed in self.placed_blocks:
            if isinstance(placed.spec, AttentionSpec) and placed.spec.d_head % 2:
                raise ValueError(
                    f"{placed.path}.d_head must be even with style.positions rotary, got "
                    f"{placed.spec.d_head}"
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
        stacks: list[tuple[str, int, Sequence[LayerSpec | DecoderLayerSpec]]] = [
            ("", self.d_model, self.layers)
        ]
        if self.decoder is not None:
            stacks.append(("decoder.", self.decoder.d_model, self.decoder.layers))
        return tuple(
            PlacedBlock(f"{stack}layers.{index}.{name}", spec, shapes)
            for stack, width, layers in stacks
            for index, layer in enumerate(layers)
            for name, spec, shapes in layer_blocks(
                layer, width, self.d_model, is_gated=self.style.is_gated
            )
        )

    @cached_property
    def stream_precision(self) -> Precision:
        """Precision of the residual stream, embeddings, norms and head.

        bf16 when the products of every block read bf16, else fp32: a stream narrower than a block
        would undo that block's choice, and on CPUs the int8 product is faster from fp32.
        """
        precisions = {block.compression.precision for block in self.blocks}
        return "bf16" if precisions <= BF16_STREAM else "fp32"

    @cached_property
    def hash(self) -> str:
        """16 hex digits that name this model; equal models have equal hashes."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` reads it back."""
        # Defaults are left out, so that hashes do not change when a field is added.
        rest: dict[str, Any] = {}
        if self.resolution is not None:
            rest["resolution"] = self.resolution
        if self.family != TRANSFORMER:
            rest |= {"family": self.family, "extra": dict(self.extra)}
        if self.decoder is not None:
            rest["decoder"] = plain_data.decoder_to_dict(self.decoder)
        if self.style != DEFAULT_STYLE:
            rest["style"] = self.style.to_dict()
        return {
            "schema": SCHEMA_VERSION,
            "d_model": self.d_model,
            "patch_size": self.patch_size,
            **rest,
            "layers": plain_data.layers_to_list(self.layers),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """Read ``to_dict``'s form.

        Raises:
            ValueError: a key is missing, unknown, or its value not allowed.
        """
        plain_data.check_keys(
            "architecture",
            data,
            {"schema", "d_model", "patch_size", "layers"},
            may_lack={"resolution", "family", "extra", "decoder", "style"},
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
            layers=plain_data.layers_from_list(data["layers"], "architecture.layers"),
            patch_size=data["patch_size"],
            resolution=data.get("resolution"),
            family=data.get("family", TRANSFORMER),
            extra=tuple(extra.items()),
            decoder=plain_data.decoder_from_dict(decoder, "architecture.decoder")
            if (decoder := data.get("decoder")) is not None
            else None,
            style=BlockStyle.from_dict(data.get("style", {})),
        )

    def in_precision(self, precision: Precision) -> Architecture:
        """Return this architecture with all blocks of its layers in ``precision``, dense."""
        compression = Compression(precision=precision)
        layers = tuple(
            LayerSpec(
                replace(layer.attention, compression=compression),
                replace(layer.ffn, compression=compression),
            )
            for layer in self.layers
        )
        return replace(self, layers=layers)

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
        if self.style != DEFAULT_STYLE:
            parts.append(self.style.describe())
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


def _span(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}-{high}"
