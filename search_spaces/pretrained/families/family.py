"""What a family of checkpoints is: a configuration map and a name map.

A family is a ``Family`` record in a file of its own. ``read`` makes a ``Blueprint`` of a
configuration; ``names`` and the heads' ``names`` map our network's parameters to stored tensors.
The rest is shared: ``load`` reads folders, ``matching`` compares names and shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from search_spaces.architecture import Architecture
from search_spaces.pretrained.families.image_positions import Resizing
from search_spaces.pretrained.files.config import Config
from search_spaces.workload import Kind, Workload

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a parameter of ours is among stored tensors, and what is done to it.

    In this order: the tensor is transposed (``is_transposed``: weights ``(d_in, d_out)``), its
    first ``skip`` and last ``rest`` rows are left out, and it is cut into ``parts`` equal parts of
    rows, of which ``part`` is taken. ``is_flat`` reads the values in their order as rows of the
    parameter's shape, such as a convolution's ``(D, C, P, P)`` as ``(D, C * P * P)``. ``scale``
    names a tensor whose values multiply the rows, ``factor`` multiplies all.
    """

    name: str
    part: int = 0
    parts: int = 1
    skip: int = 0
    rest: int = 0
    is_transposed: bool = False
    is_flat: bool = False
    scale: str | None = None
    factor: float = 1.0

    @property
    def is_plain(self) -> bool:
        """Whether a parameter is the whole tensor as it is."""
        return self == Stored(self.name)

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the stored tensor of a parameter of ``shape``, that it is read as if flat."""
        stored = (shape[0] * self.parts + self.skip + self.rest, *shape[1:])
        return stored[::-1] if self.is_transposed else stored

    def apply(self, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return the parameter of ``shape`` as a view of ``tensor``, not scaled."""
        if self.is_flat:
            tensor = tensor.reshape(self.shape_of(shape))
        first = self.skip + self.part * shape[0]
        return (tensor.T if self.is_transposed else tensor)[first : first + shape[0]]


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a parameter: from ``start`` to ``stop`` (``None`` is its end) along ``dim``."""

    source: Stored
    start: int = 0
    stop: int | None = None
    dim: int = 0

    def shape_in(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of this part of a parameter of ``shape``."""
        size = len(range(shape[self.dim])[self.start : self.stop])
        return (*shape[: self.dim], size, *shape[self.dim + 1 :])

    def of(self, parameter: Tensor) -> Tensor:
        """Return this part of ``parameter`` as a view."""
        stop = parameter.shape[self.dim] if self.stop is None else self.stop
        return parameter.narrow(self.dim, self.start, stop - self.start)


# Several pieces of a parameter are added up; what is in none is zero.
Names = Mapping[str, Stored | str | tuple[Piece, ...]]


@dataclass(frozen=True)
class Head:
    """What a class of networks has after its layers: the workload's kind, and its names."""

    kind: Kind
    names: Names = field(default_factory=dict)


@dataclass(frozen=True)
class Blueprint:
    """What a configuration describes, apart from the head's outputs.

    ``input_shape`` is a ``Workload``'s, for texts the most tokens, which follows from the key
    ``limit``. ``vocab_size`` is ``None`` for images. ``names`` are those that depend on the
    configuration.
    """

    architecture: Architecture
    input_shape: tuple[int, ...]
    limit: str
    vocab_size: int | None = None
    names: Names = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SizeKeys:
    """Keys of a configuration that contain sizes, each one value for all layers.

    Attributes:
        depth: Number of layers.
        heads: Number of query heads.
        d_ff: Width of the feed-forward block, or what it follows from.
        kv_heads: Number of key-value heads; ``None`` where every query head has its own.
        d_head: Size of a head; ``None`` where classes divide the width by the number of heads.
        ffn_value: The value under ``d_ff`` from the block's width, the network's, and whether the
            block is gated; ``None`` where no value gives this width. By default the width itself.
        ffn_rule: Which widths ``ffn_value`` allows.
        by_layer: Keys of lists with a value for each layer.
        of_depth: Keys that classes derive from the depth: left out where the depth changes.
    """

    depth: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    d_ff: str = "intermediate_size"
    kv_heads: str | None = None
    d_head: str | None = None
    ffn_value: Callable[[int, int, bool], int | None] | None = None
    ffn_rule: str = ""
    by_layer: tuple[str, ...] = ()
    of_depth: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A configuration map and a name map.

    Attributes:
        name: Name of the family, such as ``llama``.
        classes: First part of the names of ``transformers``' classes for each ``model_type``, such
            as ``Llama`` of ``LlamaForCausalLM``.
        heads: What each class has after its layers, by the rest of its name.
        read: Describe a configuration, of a network with this head.
        sizes: Keys of sizes, by which an architecture is written.
        names: Stored tensors of parameters, by parameter, or by module where weight and bias have
            the same names in both. ``{i}`` is the number of a layer.
        renamed: Last parts of names in older files, and what they are called now.
        prefix: First part of names that files of networks without a head lack.
        ties: Tensors that a file may repeat, and what they must equal.
        spare: Last parts of the names of tensors that no output depends on.
        harmless: Keys of configurations that no output depends on.
        resizing: How positions of images are interpolated, ``None`` for texts.
        write: The values of a configuration from an architecture and a workload: the inverse of
            ``read``, without the keys of ``sizes``. It may be called with a style that the family
            does not compute. ``None`` where networks without a parent are not written.
        flat_shapes: Shapes of the tensors that are read as if flat, by name.
        padding_token: Padding token where a configuration has none; ``None`` masks no token.
    """

    name: str
    classes: Mapping[str, str]
    heads: Mapping[str, Head]
    read: Callable[[Config, Head], Blueprint]
    sizes: SizeKeys
    names: Names
    renamed: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    ties: Mapping[str, str] = field(default_factory=dict)
    spare: tuple[str, ...] = ()
    harmless: frozenset[str] = frozenset()
    padding_token: int | None = None
    resizing: Resizing | None = None
    write: Callable[[Architecture, Workload], dict[str, Any]] | None = None
    flat_shapes: Callable[[Architecture, Workload], Mapping[str, tuple[int, ...]]] | None = None
