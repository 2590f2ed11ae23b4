"""A checkpoint in a folder or a GGUF file: what it is, and its network with its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search_spaces.architecture import Architecture, require_positive_int
from search_spaces.models.transformer import Transformer
from search_spaces.pretrained.families.family import Piece
from search_spaces.pretrained.families.image_positions import Resizing, resized
from search_spaces.pretrained.files.tensors import MappedTensors
from search_spaces.pretrained.matching import POSITIONS, Match
from search_spaces.pretrained.shapes import empty_network
from search_spaces.workload import Workload

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Checkpoint:
    """A pretrained network in a folder or a GGUF file; its values are read by ``build``.

    Attributes:
        folder: The folder, or the GGUF file.
        family: Name of the family, such as ``llama``.
        model_type: ``config.json``'s, such as ``qwen2``.
        architecture: The network's, with its style.
        workload: The kind of its head, its longest input, batch size 1, the folder's name.
        limit: Key that the longest input follows from, and its file.
        labels: Names of classes, empty where the head has none.
        tokenizer: ``tokenizer.json``, ``vocab.txt`` or the GGUF file; ``None`` without one.
        preprocessor: ``preprocessor_config.json``, ``None`` where there is none.
        license: Licence that ``README.md`` names, ``None`` where it names none.
        unread_keys: Keys of ``config.json`` that are not known and had no effect.
        longest: The most tokens of a text, ``None`` for images.
        image_size: Height and width in pixels that positions are stored for, ``None`` for texts.
        resizing: How positions are interpolated for other sizes, ``None`` where they are not.
        files: JSON files that a folder would have, by name, of a GGUF file; else empty.
    """

    folder: Path
    family: str
    model_type: str
    architecture: Architecture
    workload: Workload
    limit: str
    match: Match = field(repr=False, compare=False)
    labels: tuple[str, ...] = ()
    tokenizer: Path | None = None
    preprocessor: Path | None = None
    license: str | None = None
    unread_keys: tuple[str, ...] = ()
    longest: int | None = None
    image_size: tuple[int, ...] | None = None
    resizing: Resizing | None = None
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def with_input_shape(self, shape: tuple[int, ...]) -> Checkpoint:
        """Return the checkpoint with a workload of inputs of ``shape``, as ``Workload`` has it.

        Raises:
            ValueError: ``with_length`` or ``with_image_size`` refuses it.
        """
        if self.workload.is_image:
            _, height, width = shape
            return self.with_image_size(height, width)
        return self.with_length(shape[0])

    def with_length(self, tokens: int) -> Checkpoint:
        """Return the checkpoint with a workload of texts of ``tokens`` tokens.

        Raises:
            ValueError: it reads images, or no texts of this length.
        """
        if self.longest is None:
            raise ValueError(f"{self.folder}: the length must be left out for images")
        require_positive_int("sequence_length", tokens)
        if tokens > self.longest:
            raise ValueError(
                f"{self.folder}: sequence_length must be at most {self.longest} "
                f"({self.limit}), got {tokens}"
            )
        return replace(self, workload=replace(self.workload, input_shape=(tokens,)))

    def with_image_size(self, height: int, width: int) -> Checkpoint:
        """Return the checkpoint with a workload of images of another size, in pixels.

        Positions of patches are interpolated as ``transformers`` does; a checkpoint of other sizes
        than those it was trained for may predict worse.

        Raises:
            ValueError: it reads texts, has no square images, or patches do not fill these.
        """
        patch = self.architecture.patch_size
        if self.image_size is None or self.resizing is None:
            raise ValueError(f"{self.folder}: the image size must be left out for texts")
        for size in (height, width):
            require_positive_int("image_size", size)
        if height % patch or width % patch:
            raise ValueError(
                f"{self.folder}: image_size must be multiples of {patch} (patch_size of "
                f"config.json), got {height}x{width}"
            )
        if (height, width) != self.image_size and self.image_size[0] != self.image_size[1]:
            stored = "x".join(map(str, self.image_size))
            raise ValueError(
                f"{self.folder}: image_size must be {stored} (only positions of a square are "
                f"interpolated), got {height}x{width}"
            )
        shape = (self.workload.input_shape[0], height, width)
        return replace(self, workload=replace(self.workload, input_shape=shape))

    def build(self, *, dtype: torch.dtype = torch.float32) -> Transformer:
        """Build the network with the checkpoint's weights, in evaluation mode.

        Args:
            dtype: Type of the weights: float32, float64, bfloat16 or float16.

        Raises:
            ValueError: a value is not finite, tied weights differ, or ``dtype`` is another.
        """
        if dtype not in _DTYPES:
            shown = ", ".join(str(each).removeprefix("torch.") for each in _DTYPES)
            raise ValueError(f"dtype must be one of {shown}, got {dtype}")
        network = empty_network(self.architecture, self.workload, device="cpu", dtype=dtype)
        tensors = MappedTensors(self.match.entries)
        for one, other in self.match.equal:
            if not tensors.are_equal(one, other):
                path = self.match.entries[one].path
                raise ValueError(f"{path}: {one!r} must equal {other!r} (tied), and differs")
        for name, parameter in network.named_parameters():
            self.read_into(name, parameter, tensors)
        return network.eval()

    @property
    def _is_resized(self) -> bool:
        return self.image_size not in (None, self.workload.input_shape[1:])

    def _resized_positions(self, tensors: MappedTensors, dtype: torch.dtype) -> Tensor:
        stored_TD = torch.empty(self.match.shapes[POSITIONS], dtype=dtype)
        self._fill(POSITIONS, stored_TD, tensors)
        patch = self.architecture.patch_size
        rows, columns = (size // patch for size in self.workload.input_shape[1:])
        n_prefix = self.architecture.style.n_prefix_tokens
        assert self.resizing is not None
        return resized(stored_TD, n_prefix, rows, columns, self.resizing)

    @torch.no_grad()
    def read_into(self, name: str, parameter: Tensor, tensors: MappedTensors) -> None:
        """Write the values of the parameter ``name`` to ``parameter``.

        Raises:
            ValueError: a value is not finite.
        """
        if name == POSITIONS and self._is_resized:
            parameter.copy_(self._resized_positions(tensors, parameter.dtype))
        else:
            self._fill(name, parameter, tensors)

    def _fill(self, name: str, parameter: Tensor, tensors: MappedTensors) -> None:
        """Write the stored values of a parameter."""
        pieces = self.match.sources[name]
        if len(pieces) == 1:
            is_whole = pieces[0].source.is_plain and name != POSITIONS
            change = None if is_whole else self._change(name, pieces[0], tensors)
            tensors.copy(pieces[0].source.name, parameter, change)
            return
        parameter.zero_()
        for piece in pieces:
            region = piece.of(parameter)
            part = torch.empty_like(region)
            tensors.copy(piece.source.name, part, self._change(name, piece, tensors))
            region.add_(part)

    def _change(
        self, name: str, piece: Piece, tensors: MappedTensors
    ) -> Callable[[Tensor], Tensor]:
        """What turns a stored tensor into a piece of a parameter."""
        source, shape = piece.source, piece.shape_in(self.match.shapes[name])

        def change(stored: Tensor) -> Tensor:
            value = source.apply(stored, shape)
            if source.scale is not None:
                scale = tensors.view(source.scale).double()
                value = value.double() * scale.reshape(-1, *[1] * (value.dim() - 1))
            if source.factor != 1:
                value = value * source.factor
            if name == POSITIONS and self.longest is not None:
                # A network for shorter texts has the first positions only.
                value = value[: self.workload.input_shape[0]]
            return value

        return change
