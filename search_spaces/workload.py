"""What a model is asked to do: a frozen, validated ``Workload``. Every joule names one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import Architecture, require_positive_int

Kind = Literal["image_classification", "text_classification", "language_modelling"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# In text classification this token fills short samples up; models neither read nor pool it.
PADDING_TOKEN = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """One forward pass over a batch of samples.

    ``input_shape`` is ``(channels, height, width)`` for images and ``(sequence_length,)`` for
    token workloads. ``n_classes`` is the width of the output: classes, or the vocabulary for
    language modelling. ``vocab_size`` is ``None`` for images. Energy is joules per *sample*: one
    image or one sequence, the batch's joules divided by ``batch_size``.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    name: str
    kind: Kind
    input_shape: tuple[int, ...]
    n_classes: int
    batch_size: int
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        """Validate that the fields fit the kind."""
        if not self.name:
            raise ValueError("name must not be empty")
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        require_positive_int("n_classes", self.n_classes)
        require_positive_int("batch_size", self.batch_size)
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        rank = 3 if self.is_image else 1
        if len(self.input_shape) != rank:
            raise ValueError(
                f"input_shape must have {rank} dimensions for {self.kind}, got {self.input_shape}"
            )
        for size in self.input_shape:
            require_positive_int("input_shape", size)
        if self.is_image and self.vocab_size is not None:
            raise ValueError(f"vocab_size must be None for {self.kind}, got {self.vocab_size}")
        if not self.is_image:
            require_positive_int("vocab_size", self.vocab_size)

    @property
    def is_image(self) -> bool:
        """Whether samples are images rather than token sequences."""
        return self.kind == "image_classification"

    @property
    def is_causal(self) -> bool:
        """Whether a token may only attend to itself and those before it."""
        return self.kind == "language_modelling"

    @property
    def key(self) -> str:
        """Short name of the measured situation, such as ``digits/b128``."""
        return f"{self.name}/b{self.batch_size}"

    def with_batch_size(self, batch_size: int) -> Workload:
        """The same workload at another batch size."""
        return replace(self, batch_size=batch_size)

    def n_tokens(self, architecture: Architecture) -> int:
        """Sequence length in tokens that ``architecture`` sees for one sample.

        Raises:
            ValueError: the architecture's patch size does not fit this workload.
        """
        return int(self.n_tokens_batch(np.array([architecture.patch_size]))[0])

    def n_tokens_batch(self, patch_sizes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Sequence lengths in tokens at patch sizes, both of shape ``(N,)``.

        Raises:
            ValueError: a patch size does not fit this workload.
        """
        for patch_size in np.unique(patch_sizes):
            self.check_patch_size(int(patch_size))
        if not self.is_image:
            return np.full(len(patch_sizes), float(self.input_shape[0]))
        _, height, width = self.input_shape
        tokens: NDArray[np.float64] = ((height // patch_sizes) * (width // patch_sizes)).astype(
            np.float64
        )
        return tokens

    def check_fits(self, architecture: Architecture) -> None:
        """Raise ``ValueError`` unless ``architecture`` can read this workload's samples."""
        self.check_patch_size(architecture.patch_size)

    def check_patch_size(self, patch: int) -> None:
        """Raise ``ValueError`` unless patches of this side fit this workload's samples."""
        if self.is_image:
            _, height, width = self.input_shape
            if height % patch or width % patch:
                raise ValueError(
                    f"patch_size must divide the image's {height}x{width} pixels, got {patch}"
                )
        elif patch != 1:
            raise ValueError(f"patch_size must be 1 for {self.kind}, got {patch}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` reads it back."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        return data | {"input_shape": list(self.input_shape)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Workload:
        """Read ``to_dict``'s form.

        Raises:
            ValueError: a key is missing, unknown, or its value not allowed.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"workload must be an object, got {data!r}")
        allowed = {f.name for f in fields(cls)}
        if data.keys() != allowed:
            raise ValueError(
                f"workload must have exactly the keys {', '.join(sorted(allowed))}, "
                f"got {', '.join(sorted(map(str, data)))}"
            )
        if not isinstance(data["input_shape"], list):
            raise ValueError(f"input_shape must be a list, got {data['input_shape']!r}")
        return cls(**data)
