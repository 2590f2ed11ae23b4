"""Make the stored tensors of a network: the inverse of its family's map of names.

Parts of a tensor are joined, weights are transposed back, and tied tensors are left out. Rows
without a parameter, such as RoBERTa's positions up to the padding token's, are the parent's. A
layer scale that was folded into a projection is written as ones, and the projection as the
product; if neither has changed and nothing is rounded, both are the parent's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from search_spaces.pretrained.checkpoint import Checkpoint
from search_spaces.pretrained.families.family import Piece
from search_spaces.pretrained.files.header import DTYPES
from search_spaces.pretrained.files.tensors import MappedTensors
from search_spaces.pretrained.matching import POSITIONS

_OF_A_LAYER = re.compile(r"\.\d+\.")


@dataclass(frozen=True, slots=True)
class _Placed:
    """A piece of a parameter, to be written to its stored tensor."""

    parameter: str
    piece: Piece


@torch.no_grad()
def stored_tensors(
    checkpoint: Checkpoint, network: nn.Module, *, is_rounded: bool = False
) -> dict[str, Tensor]:
    """Return every stored tensor of ``network`` by name, in the network's type or the parent's.

    Args:
        checkpoint: The parent.
        network: A network of its family, with sizes that a stock class supports, at most as deep.
        is_rounded: Whether values are rounded afterwards. A layer scale and its projection are
            then not the parent's, since their rounded product would differ.

    Raises:
        ValueError: the network has values that no stored tensor contains.
    """
    return dict(_Writer(checkpoint, network, is_rounded).tensors())


def in_parents_types(
    checkpoint: Checkpoint, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """Return ``tensors`` in the parent's types.

    Return ``None`` if a value would be rounded, or one of the parent's types is quantised.
    """
    cast = {}
    for name, tensor in tensors.items():
        dtype = DTYPES.get(checkpoint.match.entries[name].dtype)
        if dtype is None:
            return None
        changed = tensor.to(dtype)
        if not torch.equal(changed.to(tensor.dtype), tensor):
            return None
        cast[name] = changed
    return cast


class _Writer:
    """Tensors of one network."""

    def __init__(self, checkpoint: Checkpoint, network: nn.Module, is_rounded: bool) -> None:
        self._is_rounded = is_rounded
        self._match, self._checkpoint = checkpoint.match, checkpoint
        self._parameters = dict(network.named_parameters())
        self._placed: dict[str, list[_Placed]] = {}
        # Names of parameters by the tensor that scales them.
        self._scaled: dict[str, list[str]] = {}
        for name in self._parameters:
            for piece in self._match.sources[name]:
                self._placed.setdefault(piece.source.name, []).append(_Placed(name, piece))
                if piece.source.scale is not None:
                    self._scaled.setdefault(piece.source.scale, []).append(name)

    @cached_property
    def _mapped(self) -> MappedTensors:
        # A network without a parent has no file to map.
        return MappedTensors(self._match.entries)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield names and values."""
        copied = set()
        for scale, names in self._scaled.items():
            if not self._is_rounded and all(map(self._is_parents, names)):
                copied |= {scale, *(self._match.sources[name][0].source.name for name in names)}
            else:
                yield scale, torch.ones(self._match.entries[scale].shape)
        for name in self._parameters:
            pieces = self._match.sources[name]
            self._check_covered(name)
            if self._n_values(name) > self._parameters[name].numel() and self._is_parents(name):
                # A sum does not determine its summands.
                copied |= {piece.source.name for piece in pieces}
        for name in self._placed:
            if name not in copied:
                yield name, self._joined(name)
        for name in sorted(copied | self._spare()):
            yield name, self._parents(name)

    def _joined(self, stored: str) -> Tensor:
        """Return the stored tensor, joined from all its pieces."""
        placed, entry = self._placed[stored], self._match.entries[stored]
        # A tensor that is read as flat has the parent's shape.
        is_flat = placed[0].piece.source.is_flat
        shape = entry.shape if is_flat else self._shape_of(placed[0])
        values = [(each, self._value(each)) for each in placed]
        n_values = sum(value.numel() for _, value in values)
        if n_values < math.prod(shape):
            # Values without a parameter are the parent's; the shape cannot have changed.
            out = self._parents(stored).to(values[0][1].dtype)
        else:
            out = values[0][1].new_empty(shape)
        for each, value in values:
            source, piece_shape = each.piece.source, self._piece_shape(each)
            region = source.apply(out, piece_shape)
            region[: len(value)].copy_(value)
        return out

    def _shape_of(self, placed: _Placed) -> tuple[int, ...]:
        return placed.piece.source.shape_of(self._piece_shape(placed))

    def _piece_shape(self, placed: _Placed) -> tuple[int, ...]:
        shape = tuple(self._parameters[placed.parameter].shape)
        if placed.parameter == POSITIONS:
            # A network for shorter texts has the first positions only.
            shape = self._match.shapes[POSITIONS]
        return placed.piece.shape_in(shape)

    def _value(self, placed: _Placed) -> Tensor:
        parameter = self._parameters[placed.parameter].detach()
        value = placed.piece.of(parameter)
        pieces = self._match.sources[placed.parameter]
        share = placed.piece.source.factor
        if self._n_values(placed.parameter) > parameter.numel():
            # All tensors of a sum are written equal.
            share = sum(piece.source.factor for piece in pieces)
        return value if share == 1 else value / share

    def _n_values(self, name: str) -> int:
        """Return the number of values of a parameter's pieces: more than its own for a sum."""
        parameter = self._parameters[name]
        return sum(piece.of(parameter).numel() for piece in self._match.sources[name])

    def _check_covered(self, name: str) -> None:
        parameter = self._parameters[name].detach()
        if self._n_values(name) >= parameter.numel():
            return
        rest = parameter.clone()
        for piece in self._match.sources[name]:
            piece.of(rest).zero_()
        if bool(rest.any()):
            raise ValueError(
                f"{name} must be 0 where files of the family {self._checkpoint.family} have no "
                f"values of it, got {float(rest.abs().max()):g}"
            )

    def _is_parents(self, name: str) -> bool:
        """Return whether a parameter has the parent's values."""
        parameter = self._parameters[name].detach()
        if tuple(parameter.shape) != self._match.shapes[name]:
            return False
        parents = torch.empty_like(parameter)
        self._checkpoint.read_into(name, parents, self._mapped)
        return torch.equal(parents, parameter)

    def _parents(self, stored: str) -> Tensor:
        tensor = self._mapped.view(stored).clone()
        self._mapped.release()
        return tensor

    def _spare(self) -> set[str]:
        """Return names of the parent's tensors, except in layers, that no output depends on."""
        pieces = [piece for each in self._match.sources.values() for piece in each]
        used = {name for p in pieces for name in (p.source.name, p.source.scale)}
        tied = {name for name, _ in self._match.equal}
        rest = self._match.entries.keys() - used - tied
        return {
            name
            for name in rest
            if not _OF_A_LAYER.search(name) and self._match.entries[name].dtype in DTYPES
        }
