"""Configuration of training, the same for every candidate of a search."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from nas.core.plain import require_int
from search_spaces.architecture import require_positive_int

# Source of a network's first weights, and result of quantisation-aware training; see ``fit``.
Start = Literal["random", "teacher", "supernet"]
Qat = Literal["not needed", "kept", "no better"]


@dataclass(frozen=True, slots=True)
class DistillConfig:
    """Weights of the distillation loss; see ``nas.training.distill``.

    With ``standardise`` logits are standardised over the classes, and ``temperature`` is in units
    of their standard deviation. ``logit_weight`` is the teacher's share of the loss on outputs;
    the labels have the rest. ``feature_weight`` is the weight of the loss on pooled hidden states,
    0 to leave it out.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    temperature: float = 1.0
    logit_weight: float = 1.0
    feature_weight: float = 0.0
    standardise: bool = True

    def __post_init__(self) -> None:
        _require_positive("distill temperature", self.temperature)
        _require_share("distill logit_weight", self.logit_weight)
        if not (math.isfinite(self.feature_weight) and self.feature_weight >= 0):
            raise ValueError(
                f"distill feature_weight must be finite and >= 0, got {self.feature_weight!r}"
            )
        if self.logit_weight == 0 and self.feature_weight == 0:
            raise ValueError("distill must have a logit_weight or a feature_weight above 0")


@dataclass(frozen=True, slots=True)
class RecoveryConfig:
    """Settings of fine-tunes that recover quality after compression.

    A candidate that starts from a teacher's or a supernet's weights trains for ``inherit_share``
    of ``TrainingConfig.epochs``; with ``None`` every candidate starts from random weights. Masked
    (2:4) and quantisation-aware fine-tunes take ``share`` of the epochs. All use
    ``learning_rate_factor`` of the learning rate. A quantised network is fine-tuned if it loses
    more than ``qat_threshold`` of validation quality against its own fp32 weights.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    inherit_share: float | None = None
    share: float = 0.1
    learning_rate_factor: float = 0.3
    qat_threshold: float = 0.005

    def __post_init__(self) -> None:
        for name in ("share", "inherit_share"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and 0 < value <= 1):
                raise ValueError(f"recovery {name} must be in (0, 1], got {value!r}")
        _require_positive("recovery learning_rate_factor", self.learning_rate_factor)
        _require_share("recovery qat_threshold", self.qat_threshold)


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Settings of AdamW, its learning-rate schedule, label smoothing and data augmentation.

    ``shift_pixels`` moves each training image by up to that many pixels on each axis, filling
    with the border's value (a random crop of the padded image). ``flip_images`` mirrors half of
    them, for data where left and right do not matter. ``token_dropout`` is the probability that a
    token of a training text becomes padding. With ``averaged_share`` above 0 the final weights are
    their mean over that last share of the steps, and the learning rate is constant after the
    warm-up (see ``nas.training.average``); supernets are not averaged. ``distill`` adds a
    teacher's outputs to the loss.

    Sources: AdamW, Loshchilov & Hutter 2019; cosine decay, Loshchilov & Hutter 2017; label
    smoothing, Szegedy et al. 2016.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_fraction: float = 0.1
    label_smoothing: float = 0.1
    shift_pixels: int = 1
    flip_images: bool = False
    token_dropout: float = 0.0
    averaged_share: float = 0.0
    gradient_clip: float = 1.0
    distill: DistillConfig | None = None
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)

    def __post_init__(self) -> None:
        require_positive_int("epochs", self.epochs)
        require_positive_int("batch_size", self.batch_size)
        for name in ("learning_rate", "gradient_clip"):
            _require_positive(name, getattr(self, name))
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be finite and >= 0, got {self.weight_decay!r}")
        for name in ("warmup_fraction", "label_smoothing", "token_dropout", "averaged_share"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value!r}")
        require_int("shift_pixels", self.shift_pixels, 0)
        if not isinstance(self.flip_images, bool):
            raise ValueError(f"flip_images must be true or false, got {self.flip_images!r}")


@dataclass(frozen=True, slots=True)
class SupernetRecipe:
    """Settings of supernet training that the ``TrainingConfig`` of its sub-networks lacks.

    ``epochs_factor`` multiplies the epochs. Each step trains the smallest sub-network and
    ``n_random`` random ones; one of ``largest_each`` steps also trains the largest, which is
    costly. A ``front_share`` of the random ones is sampled near the Pareto front (see
    ``nas.training.members``). ``distill_weight`` is the weight of the largest sub-network's
    outputs in the loss of the others; the rest is the loss on labels.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    epochs_factor: float = 2.0
    n_random: int = 3
    largest_each: int = 4
    front_share: float = 0.0
    distill_weight: float = 0.5

    def __post_init__(self) -> None:
        _require_positive("supernet epochs_factor", self.epochs_factor)
        for name in ("n_random", "largest_each"):
            require_positive_int(f"supernet {name}", getattr(self, name))
        for name in ("front_share", "distill_weight"):
            _require_share(f"supernet {name}", getattr(self, name))

    def epochs(self, training: TrainingConfig) -> int:
        """Return the supernet's epochs, given the configuration of its sub-networks."""
        return max(1, round(self.epochs_factor * training.epochs))


def _require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and > 0, got {value!r}")


def _require_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")
