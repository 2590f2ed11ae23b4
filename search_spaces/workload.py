"""What a model is asked to do: a frozen, validated ``Workload``. Every joule names one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import Architecture, require_positive_int

Kind = Literal[
    "image_classification",
    "text_classification",
    "language_modelling",
    "image_segmentation",
    "question_answering",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Outputs of question answering: where an answer begins, and where it ends.
SPAN_ENDS = 2
# Where tokens are not predicted one by one, this one fills short samples up: it is never read.
PADDING_TOKEN = 0
# In arrays of resolutions: images are not shrunk.
AS_IT_IS = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """One forward pass over a batch of samples.

    ``input_shape`` is ``(channels, height, width)`` for images and ``(sequence_length,)`` for
    token workloads. ``n_classes`` is the width of the output: classes (of a sample, or of each
    pixel), the vocabulary for language modelling, 2 for question answering, which scores each
    token as an answer's first and as its last. ``vocab_size`` is ``None`` for images. Energy is
    joules per *sample*: one image or one sequence, the batch's joules divided by ``batch_size``.

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
        if self.kind == "question_answering" and self.n_classes != SPAN_ENDS:
            raise ValueError(f"n_classes must be 2 for {self.kind}, got {self.n_classes}")
        if self.is_image and self.vocab_size is not None:
            raise ValueError(f"vocab_size must be None for {self.kind}, got {self.vocab_size}")
        if not self.is_image:
            require_positive_int("vocab_size", self.vocab_size)

    @property
    def is_image(self) -> bool:
        """Whether samples are images rather than token sequences."""
        return self.kind in ("image_classification", "image_segmentation")

    @property
    def is_pooled(self) -> bool:
        """Whether a sample has one output rather than one for each token or pixel."""
        return self.kind in ("image_classification", "text_classification")

    @property
    def is_dense(self) -> bool:
        """Whether each pixel has an output."""
        return self.kind == "image_segmentation"

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
        grids = np.array([[architecture.patch_size], [architecture.resolution or AS_IT_IS]])
        return int(self.n_tokens_batch(*grids)[0])

    def n_tokens_batch(
        self, patch_sizes: NDArray[np.int64], resolutions: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Sequence lengths in tokens at patch sizes and resolutions, all of shape ``(N,)``.

        Raises:
            ValueError: a patch size or resolution does not fit this workload.
        """
        for patch_size, resolution in np.unique(np.stack([patch_sizes, resolutions], 1), axis=0):
            self.check_grid(int(patch_size), int(resolution) or None)
        if not self.is_image:
            return np.full(len(patch_sizes), float(self.input_shape[0]))
        heights, widths = self.image_sizes(resolutions)
        tokens: NDArray[np.float64] = ((heights // patch_sizes) * (widths // patch_sizes)).astype(
            np.float64
        )
        return tokens

    def image_sizes(
        self, resolutions: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Heights and widths in pixels of images that are cut into patches, each ``(N,)``."""
        _, height, width = self.input_shape
        heights = np.where(resolutions == AS_IT_IS, height, resolutions)
        return heights, heights * width // height

    def image_size(self, architecture: Architecture) -> tuple[int, int]:
        """Height and width in pixels of what ``architecture`` cuts into patches."""
        heights, widths = self.image_sizes(np.array([architecture.resolution or AS_IT_IS]))
        return int(heights[0]), int(widths[0])

    def check_fits(self, architecture: Architecture) -> None:
        """Raise ``ValueError`` unless ``architecture`` can read this workload's samples."""
        self.check_grid(architecture.patch_size, architecture.resolution)

    def check_grid(self, patch: int, resolution: int | None = None) -> None:
        """Raise ``ValueError`` unless samples can be shrunk and cut into patches like that."""
        if not self.is_image:
            if patch != 1:
                raise ValueError(f"patch_size must be 1 for {self.kind}, got {patch}")
            if resolution is not None:
                raise ValueError(f"resolution must be null for {self.kind}, got {resolution}")
            return
        _, height, width = self.input_shape
        if resolution is not None:
            if resolution >= height:
                raise ValueError(
                    f"resolution must be below the image's height of {height} pixels, for which "
                    f"null stands, got {resolution}"
                )
            if resolution * width % height:
                raise ValueError(
                    f"resolution must keep the proportions of the image's {height}x{width} "
                    f"pixels in whole numbers, got {resolution}"
                )
            height, width = resolution, resolution * width // height
        if height % patch or width % patch:
            raise ValueError(
                f"patch_size must divide the image's {height}x{width} pixels, got {patch}"
            )

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
