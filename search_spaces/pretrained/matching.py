"""Match a network's parameters with stored tensors by names and shapes, before values are read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from search_spaces.pretrained.families.family import Family, Names, Piece, Stored
from search_spaces.pretrained.files.config import shown
from search_spaces.pretrained.files.header import DTYPES, Entry

_LAYER = re.compile(r"\blayers\.(\d+)\.")
# Learned positions of a network that reads fewer tokens than the checkpoint has positions for.
POSITIONS = "position_TD"


@dataclass(frozen=True)
class Match:
    """Stored tensors and shapes of parameters, and pairs of stored tensors that must be equal."""

    sources: Mapping[str, tuple[Piece, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    equal: tuple[tuple[str, str], ...]
    entries: Mapping[str, Entry]


def match(
    network: nn.Module, family: Family, names: Names, entries: Mapping[str, Entry], folder: Path
) -> Match:
    """Find the stored tensors of each parameter of ``network``, which may be on ``meta``.

    Raises:
        ValueError: a tensor is missing, superfluous, of another shape or of a type without
            weights; the message names the file and the tensor.
    """
    entries = _renamed_entries(entries, family.renamed)
    has_prefix = any(name.startswith(family.prefix) for name in entries)

    def as_stored(name: str) -> str:
        return name if has_prefix else name.removeprefix(family.prefix)

    sources, shapes = {}, {}
    for parameter, value in network.named_parameters():
        shapes[parameter] = tuple(value.shape)
        pieces = sources_of(parameter, names)
        sources[parameter] = tuple(
            replace(piece, source=_renamed(piece.source, as_stored)) for piece in pieces
        )
        for piece in sources[parameter]:
            source = piece.source
            for name in filter(None, (source.name, source.scale)):
                if name not in entries:
                    raise ValueError(
                        f"{folder} must hold the tensor {name!r} (for {parameter} of shape "
                        f"{shapes[parameter]}), and does not"
                    )
                _check_type(entries[name])
            _check_shape(source, entries, piece.shape_in(shapes[parameter]))
    ties = {as_stored(one): as_stored(other) for one, other in family.ties.items()}
    return Match(sources, shapes, _equal(sources, entries, ties, family.spare), entries)


def _renamed_entries(
    entries: Mapping[str, Entry], renamed: Mapping[str, str]
) -> Mapping[str, Entry]:
    """Entries by the names of today."""
    current: dict[str, Entry] = {}
    for name, entry in entries.items():
        ending = next(filter(name.endswith, renamed), "")
        now = name.removesuffix(ending) + renamed.get(ending, "")
        if now in current:
            raise ValueError(f"{entry.path}: {shown(name)} must stand there once, under one name")
        current[now] = entry
    return current


def _equal(
    sources: Mapping[str, tuple[Piece, ...]],
    entries: Mapping[str, Entry],
    ties: Mapping[str, str],
    spare: tuple[str, ...],
) -> tuple[tuple[str, str], ...]:
    """Pairs of tensors that must be equal; every other tensor must have a use."""
    stored = [piece.source for pieces in sources.values() for piece in pieces]
    used = {name for s in stored for name in (s.name, s.scale) if name is not None}
    equal = []
    for name in sorted(entries.keys() - used):
        entry = entries[name]
        if ties.get(name) in used:
            _check_type(entry)
            other = entries[ties[name]]
            if entry.shape != other.shape:
                raise ValueError(
                    f"{entry.path}: {name!r} must have the shape of {ties[name]!r} (tied), "
                    f"{other.shape}, got {shown(entry.shape)}"
                )
            equal.append((name, ties[name]))
        elif not name.endswith(spare):
            raise ValueError(
                f"{entry.path}: {shown(entry.name)} must be left out: no part of the network is "
                f"named so"
            )
    return tuple(equal)


def sources_of(parameter: str, names: Names) -> tuple[Piece, ...]:
    """Return what a name map has for a parameter, by its own name or its module's."""
    number = _LAYER.search(parameter)
    pattern = _LAYER.sub("layers.{i}.", parameter)
    source, suffix = names.get(pattern), ""
    if source is None:
        module, _, last = pattern.rpartition(".")
        source, suffix = names[module], f".{last}"
    if isinstance(source, str):
        source = Stored(source)
    if isinstance(source, Stored):
        source = (Piece(source),)
    layer = number[1] if number else ""
    return tuple(
        replace(piece, source=_renamed(piece.source, lambda x: x.replace("{i}", layer), suffix))
        for piece in source
    )


def _renamed(source: Stored, rename: Callable[[str], str], suffix: str = "") -> Stored:
    scale = None if source.scale is None else rename(source.scale)
    return replace(source, name=rename(source.name) + suffix, scale=scale)


def _check_type(entry: Entry) -> None:
    if entry.encoding is None and entry.dtype not in DTYPES:
        raise ValueError(
            f"{entry.path}: {entry.name!r}.dtype must be one of {', '.join(DTYPES)}, got "
            f"{entry.dtype}"
        )


def _check_shape(source: Stored, entries: Mapping[str, Entry], shape: tuple[int, ...]) -> None:
    entry = entries[source.name]
    stored = source.shape_of(shape)
    if source.is_flat:
        fits, allowed = entry.n_values == math.prod(stored), f"{math.prod(stored)} values"
    else:
        fits, allowed = entry.shape == stored, f"the shape {stored}"
    if not fits:
        raise ValueError(
            f"{entry.path}: {entry.name!r} must have {allowed} by the configuration, got the "
            f"shape {shown(entry.shape)}"
        )
    if source.scale is not None and entries[source.scale].shape != shape[:1]:
        scale = entries[source.scale]
        raise ValueError(
            f"{scale.path}: {scale.name!r} must have the shape {shape[:1]} by the configuration, "
            f"got {shown(scale.shape)}"
        )
