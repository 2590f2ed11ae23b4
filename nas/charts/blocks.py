"""An architecture as a list of blocks to draw, from the input to the output."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from search_spaces.architecture import Architecture
from search_spaces.architecture.simulated import is_simulated


@dataclass(frozen=True, slots=True)
class Block:
    """One block of ``repeats`` equal layers.

    ``width`` is its inner dimension: that of all query heads, or the feed-forward width.
    ``label`` names its kind, ``detail`` its figures, ``precision`` that of its products.
    """

    label: str
    detail: str
    width: int
    precision: str
    layer: str
    repeats: int


def blocks_of(architecture: Architecture, device: str = "cpu") -> list[Block]:
    """Return every block; consecutive equal layers become one with their number."""
    blocks: list[Block] = []
    for stack, d_model, layers in _stacks(architecture):
        start = 0
        while start < len(layers):
            end = start + 1
            while end < len(layers) and layers[end] == layers[start]:
                end += 1
            name = f"{start}" if end == start + 1 else f"{start}-{end - 1}"
            layer = f"{stack} {name}".strip()
            blocks += _layer(d_model, layers[start], layer, end - start, device)
            start = end
    return blocks


def _stacks(architecture: Architecture) -> list[tuple[str, int, tuple[Any, ...]]]:
    """Return the name (empty for a single stack), width and layers of every stack."""
    if architecture.decoder is None:
        return [("", architecture.d_model, architecture.layers)]
    decoder = architecture.decoder
    return [
        ("encoder", architecture.d_model, architecture.layers),
        ("decoder", decoder.d_model, decoder.layers),
    ]


def _layer(d_model: int, layer: Any, name: str, repeats: int, device: str) -> list[Block]:
    blocks = []
    for field in fields(layer):
        spec = getattr(layer, field.name)
        width = next(iter(spec.projections(d_model).values()))[1]
        details = []
        if hasattr(spec, "n_heads"):
            details.append(f"{spec.n_heads}/{spec.n_kv_heads} heads")
        details.append(f"{width} wide")
        if spec.rank is not None:
            details.append(f"rank {spec.rank}")
        sparsity = spec.compression.sparsity
        if sparsity != "dense":
            simulated = " simulated" if is_simulated(spec.compression, device) else ""
            details.append(f"{sparsity}{simulated}")
        blocks.append(
            Block(
                label={"ffn": "feed-forward"}.get(field.name, field.name.replace("_", " ")),
                detail=", ".join(details),
                width=width,
                precision=spec.compression.precision,
                layer=name,
                repeats=repeats,
            )
        )
    return blocks
