"""The frozen, validated ``Workload`` of a model, which every joule refers to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nas.core.names import check_name
from search_spaces.architecture import TRANSFORMER, Architecture, BlockStyle, require_positive_int
from search_spaces.grids import check_images, check_recordings, check_texts

Kind = Literal[
    "image_classification",
    "text_classification",
    "language_modelling",
    "image_segmentation",
    "object_detection",
    "question_answering",
    "translation",
    "summarisation",
    "transcription",
    "masked_language_modelling",
    "text_embedding",
    "image_embedding",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Phases of a decoder's use that joules may be of; see ``Workload``.
Phase = Literal["prefill", "generate"]
PHASES: tuple[Phase, ...] = get_args(Phase)

# Units of joules: of texts that are written, and of other workloads by their phase.
SAMPLE, OUTPUT_TOKEN, AUDIO_SECOND = "sample", "output token", "second of audio"
_UNITS: dict[Phase | None, str] = {
    None: SAMPLE,
    "prefill": "prefill token",
    "generate": "generated token",
}

# Kinds whose networks read one text and write another.
_WRITING: tuple[Kind, ...] = ("translation", "summarisation")
# Kinds whose networks cut their samples into patches.
_IMAGES: tuple[Kind, ...] = (
    "image_classification",
    "image_segmentation",
    "object_detection",
    "image_embedding",
    "transcription",
)
# What people call a sample of a kind, where joules per sample are shown beside those per unit.
_SAMPLES: Mapping[Kind, str] = {"summarisation": "document"}

# Outputs of question answering: where an answer begins, and where it ends.
SPAN_ENDS = 2
# Outputs of a patch in detection beside its classes: that an object is there, and four of its box.
BOX_OUTPUTS = 5
# Fills short samples up, except in language modelling; see ``Workload.padding_token``.
PADDING_TOKEN = 0
# The output of CTC that writes nothing (Graves et al. 2006).
BLANK_TOKEN = 0
# In arrays of resolutions: samples are read whole.
AS_IT_IS = 0
# Fields that plain data leaves out where they have their default.
_MAY_LACK = {"phase", "target_length", "beam_size", "padding_token", "duration_s"}


@dataclass(frozen=True, slots=True)
class Workload:
    """One forward pass over a batch of samples.

    ``input_shape`` is ``(channels, height, width)`` for images and ``(sequence_length,)`` for
    token workloads. ``n_classes`` is the width of the output: classes (of a sample, of each pixel,
    or in detection of the object at a patch, which has ``BOX_OUTPUTS`` more), the vocabulary for
    language modelling (of the next token, or of masked tokens from both sides), 2 for question
    answering, which scores each token as an answer's first and as its last, the pooled width for
    embeddings, which have no output layer. ``vocab_size`` is
    ``None`` for images. ``padding_token`` fills texts up at their end and is masked in attention
    and pooling, except in language modelling; one that is no token of the vocabulary masks none.
    Energy is joules per *sample*: one image or one sequence, the batch's joules divided by
    ``batch_size``.

    With a ``phase`` of a decoder's use, energy is joules per *token* instead:

    * ``prefill``: it reads whole sequences, fills its cache of keys and values, and gives logits
      after the last token; the batch's joules are divided by all tokens read;
    * ``generate``: it reads one token a sequence at the last position of the context, whose
      earlier tokens are in the cache; the batch's joules are divided by ``batch_size``.

    In translation and summarisation ``input_shape`` and ``vocab_size`` are those of sources,
    ``target_length`` is the most tokens of a target. ``n_classes`` counts the target tokens and,
    last, the end token, which also starts a target. ``beam_size`` is that of beam search, 1 is
    greedy.
    Energy is joules per *output token*: the encoder reads a batch once, the decoder writes it in
    ``target_length`` steps with a cache, however early a target ends, and the joules are
    divided by ``batch_size * target_length``.

    In transcription ``input_shape`` is ``(1, bands, frames)`` of log-mel spectra that last
    ``duration_s`` seconds, and ``n_classes`` counts the tokens and, first, the blank of CTC. A
    patch is as high as the bands; frames that are 0 in all bands are padding. Energy is joules per
    *second of audio*: inputs are full, and the batch's joules are divided by
    ``batch_size * duration_s``.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    name: str
    kind: Kind
    input_shape: tuple[int, ...]
    n_classes: int
    batch_size: int
    vocab_size: int | None = None
    phase: Phase | None = None
    target_length: int | None = None
    beam_size: int = 1
    padding_token: int = PADDING_TOKEN
    duration_s: float | None = None

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
        self._check_padding()
        if self.phase is not None and self.phase not in PHASES:
            raise ValueError(
                f"phase must be one of {', '.join(PHASES)} or null, got {self.phase!r}"
            )
        if self.phase is not None and not self.is_causal:
            raise ValueError(f"phase must be null for {self.kind}, got {self.phase!r}")
        require_positive_int("beam_size", self.beam_size)
        if self.is_sequence_to_sequence:
            require_positive_int("target_length", self.target_length)
        elif self.target_length is not None or self.beam_size != 1:
            raise ValueError(
                f"target_length must be null and beam_size 1 for {self.kind}, got "
                f"{self.target_length!r} and {self.beam_size!r}"
            )

        self._check_duration()

    def _check_duration(self) -> None:
        seconds = self.duration_s
        if not self.is_transcription:
            if seconds is not None:
                raise ValueError(f"duration_s must be null for {self.kind}, got {seconds!r}")
            return
        if type(seconds) not in (int, float) or not 0 < (seconds or 0) < math.inf:
            raise ValueError(f"duration_s must be a number > 0 for {self.kind}, got {seconds!r}")

    def _check_padding(self) -> None:
        token = self.padding_token
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 2**31:
            raise ValueError(f"padding_token must be an integer >= 0, got {token!r}")
        if token != PADDING_TOKEN and (self.is_image or self.is_sequence_to_sequence):
            raise ValueError(f"padding_token must be {PADDING_TOKEN} for {self.kind}, got {token}")

    @property
    def is_image(self) -> bool:
        """Whether samples are images rather than token sequences."""
        return self.kind in _IMAGES

    @property
    def is_embedding(self) -> bool:
        """Whether the output of a sample is its pooled vector."""
        return self.kind in ("text_embedding", "image_embedding")

    @property
    def is_pooled(self) -> bool:
        """Whether a sample has one output rather than one for each token or pixel."""
        return self.is_embedding or self.kind in ("image_classification", "text_classification")

    @property
    def predicts_tokens(self) -> bool:
        """Whether each token has an output over the vocabulary."""
        return self.kind in ("language_modelling", "masked_language_modelling", "transcription")

    @property
    def is_transcription(self) -> bool:
        """Whether samples are recordings whose patches are as high as all bands."""
        return self.kind == "transcription"

    @property
    def is_dense(self) -> bool:
        """Whether each pixel has an output."""
        return self.kind == "image_segmentation"

    @property
    def is_detection(self) -> bool:
        """Whether each patch has an output of the object at it."""
        return self.kind == "object_detection"

    @property
    def n_outputs(self) -> int:
        """Width of the output of a sample, token, pixel or patch."""
        return self.n_classes + (BOX_OUTPUTS if self.is_detection else 0)

    @property
    def is_causal(self) -> bool:
        """Whether a token may only attend to itself and those before it, in every style."""
        return self.kind == "language_modelling"

    @property
    def is_sequence_to_sequence(self) -> bool:
        """Whether an encoder reads and a decoder writes."""
        return self.kind in _WRITING

    @property
    def n_steps(self) -> int:
        """Number of tokens that a decoder writes, 0 without a decoder."""
        return self.target_length or 0

    @property
    def key(self) -> str:
        """Short name of the measured situation, such as ``digits/b128``, ``lm@64/generate/b8``.

        After ``@`` is the length that samples are padded or cut to, in tokens (of sources and of
        targets), or height and width where they differ, as joules depend on it.
        """
        what = f"{self.name}{self._length}"
        if self.phase is not None:
            what += f"/{self.phase}"
        if self.beam_size > 1:
            what += f"/beam{self.beam_size}"
        return f"{what}/b{self.batch_size}"

    @property
    def _length(self) -> str:
        if self.is_transcription:
            return f"@{self.duration_s:g}s"
        if not self.is_image:
            return "@" + "-".join(map(str, (*self.input_shape, *filter(None, [self.n_steps]))))
        _, height, width = self.input_shape
        return "" if height == width else f"@{height}x{width}"

    @property
    def unit(self) -> str:
        """Unit that joules are per: ``sample``, or the token of a phase or of written texts."""
        if self.is_transcription:
            return AUDIO_SECOND
        return OUTPUT_TOKEN if self.is_sequence_to_sequence else _UNITS[self.phase]

    @property
    def units_per_sample(self) -> float:
        """Number of ``unit`` in a sample."""
        if self.duration_s is not None:
            return self.duration_s
        if self.is_sequence_to_sequence:
            return self.n_steps
        return self.input_shape[0] if self.phase == "prefill" else 1

    @property
    def sample_name(self) -> str | None:
        """Name of a sample, for joules per sample beside those per unit; ``None``: not shown."""
        return _SAMPLES.get(self.kind)

    @property
    def n_units(self) -> float:
        """Number of ``unit`` in a batch, which its joules are divided by."""
        return self.batch_size * self.units_per_sample

    def with_batch_size(self, batch_size: int) -> Workload:
        """Return the workload at another batch size."""
        return replace(self, batch_size=batch_size)

    def with_phase(self, phase: Phase | None) -> Workload:
        """Return the workload of another phase of a decoder's use.

        Raises:
            ValueError: there is no such phase, or the workload is not a decoder's.
        """
        return replace(self, phase=phase)

    def n_tokens(self, architecture: Architecture) -> int:
        """Tokens of a sample that ``architecture`` reads, prefix tokens included.

        Raises:
            ValueError: the architecture's patch size does not fit this workload.
        """
        grids = np.array([[architecture.patch_size], [architecture.resolution or AS_IT_IS]])
        return int(self.n_tokens_batch(*grids)[0]) + architecture.style.n_prefix_tokens

    def n_tokens_batch(
        self, patch_sizes: NDArray[np.int64], resolutions: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Tokens of a sample at patch sizes and resolutions, all ``(N,)``, without prefix tokens.

        Raises:
            ValueError: a patch size or resolution does not fit this workload.
        """
        for patch_size, resolution in np.unique(np.stack([patch_sizes, resolutions], 1), axis=0):
            self.check_grid(int(patch_size), int(resolution) or None)
        if not self.is_image:
            read = np.where(resolutions == AS_IT_IS, self.input_shape[0], resolutions)
            return read.astype(np.float64)
        heights, widths = self.image_sizes(resolutions)
        rows = heights // self.patch_heights(patch_sizes)
        tokens: NDArray[np.float64] = (rows * (widths // patch_sizes)).astype(np.float64)
        return tokens

    def patch_heights(self, patch_sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Heights of patches of these widths, ``(N,)``; those of recordings have all bands."""
        return (
            np.full_like(patch_sizes, self.input_shape[1])
            if self.is_transcription
            else (patch_sizes)
        )

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
        self.check_decoder(architecture.decoder is not None)
        self.check_style(architecture.style)
        self.check_width(architecture.style, architecture.d_model)
        if self.phase is not None and architecture.family != TRANSFORMER:
            raise ValueError(
                f"family must be {TRANSFORMER} for the phase {self.phase}, got "
                f"{architecture.family!r}"
            )

    def check_decoder(self, has_decoder: bool) -> None:
        """Raise ``ValueError`` unless kinds that write texts, and only they, have a decoder."""
        if has_decoder != self.is_sequence_to_sequence:
            needed = "an encoder-decoder" if self.is_sequence_to_sequence else "a single stack"
            raise ValueError(
                f"architecture must be {needed} for {self.kind}, got one with"
                f"{'' if has_decoder else 'out'} a decoder"
            )

    def check_style(self, style: BlockStyle) -> None:
        """Raise ``ValueError`` unless networks of ``style`` can read this workload's samples."""
        if style.n_prefix_tokens and (self.is_transcription or not self.is_image):
            raise ValueError(
                f"style.n_prefix_tokens must be 0 for {self.kind}, got {style.n_prefix_tokens}"
            )
        for name in ("is_causal", "has_head_transform"):
            if self.is_sequence_to_sequence and getattr(style, name):
                raise ValueError(f"style.{name} must be false for {self.kind}, got true")
        if style.n_token_types and (self.is_image or self.is_sequence_to_sequence):
            raise ValueError(
                f"style.n_token_types must be 0 for {self.kind}, got {style.n_token_types}"
            )
        if style.is_head_tied and self.predicts_tokens and self.n_classes != self.vocab_size:
            raise ValueError(
                f"style.is_head_tied must be false with {self.n_classes} outputs over a "
                f"vocabulary of {self.vocab_size}, got true"
            )

    def check_width(self, style: BlockStyle, d_model: int) -> None:
        """Raise ``ValueError`` unless embeddings have as many features as are pooled."""
        if self.is_embedding and self.n_classes != style.n_pooled * d_model:
            raise ValueError(
                f"n_classes must be the pooled width {style.n_pooled * d_model} for {self.kind}, "
                f"got {self.n_classes}"
            )

    def has_tied_head(self, style: BlockStyle) -> bool:
        """Whether the output layer of networks of ``style`` is an embedding."""
        return style.is_head_tied and (self.predicts_tokens or self.is_sequence_to_sequence)

    def has_head_transform(self, style: BlockStyle) -> bool:
        """Whether the output layer of networks of ``style`` reads a transform of each token."""
        return style.has_head_transform and self.predicts_tokens

    def reads_past_only(self, style: BlockStyle) -> bool:
        """Whether tokens attend only to themselves and those before in networks of ``style``."""
        return self.is_causal or style.is_causal

    @property
    def has_padding(self) -> bool:
        """Whether samples may be padded: recordings, and texts but for language modelling."""
        return self.is_transcription or not (self.is_image or self.is_causal)

    def check_grid(self, patch: int, resolution: int | None = None) -> None:
        """Raise ``ValueError`` unless resolution and patch size fit the samples."""
        shape = self.input_shape
        if self.is_transcription:
            check_recordings(self.kind, shape[-1], patch, resolution)
        elif self.is_image:
            check_images(shape[1], shape[2], patch, resolution)
        else:
            check_texts(self.kind, shape[0], patch, resolution, is_pooled=self.is_pooled)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` reads it back."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        # Defaults are left out, so that stored keys do not change when a field is added.
        if self.phase is None:
            del data["phase"]
        if not self.is_sequence_to_sequence:
            del data["target_length"], data["beam_size"]
        if self.padding_token == PADDING_TOKEN:
            del data["padding_token"]
        if self.duration_s is None:
            del data["duration_s"]
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
        if data.keys() | _MAY_LACK != allowed:
            raise ValueError(
                f"workload must have exactly the keys {', '.join(sorted(allowed))}, "
                f"got {', '.join(sorted(map(str, data)))}"
            )
        if not isinstance(data["input_shape"], list):
            raise ValueError(f"input_shape must be a list, got {data['input_shape']!r}")
        check_name("name", data["name"])
        return cls(**data)
