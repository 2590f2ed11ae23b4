"""How a candidate is trained: one frozen record, the same for every candidate of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from search_spaces.architecture import require_positive_int


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """AdamW with linear warm-up and cosine decay, label smoothing, and shifts of images.

    ``shift_pixels`` moves each training image by up to that many pixels on each axis, filling
    with the border's value. Sources: AdamW, Loshchilov & Hutter 2019; cosine decay, Loshchilov &
    Hutter 2017; label smoothing, Szegedy et al. 2016.

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
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        """Validate every field."""
        require_positive_int("epochs", self.epochs)
        require_positive_int("batch_size", self.batch_size)
        for name in ("learning_rate", "gradient_clip"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be finite and > 0, got {value!r}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be finite and >= 0, got {self.weight_decay!r}")
        for name in ("warmup_fraction", "label_smoothing"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value!r}")
        if isinstance(self.shift_pixels, bool) or not isinstance(self.shift_pixels, int):
            raise ValueError(f"shift_pixels must be an integer, got {self.shift_pixels!r}")
        if self.shift_pixels < 0:
            raise ValueError(f"shift_pixels must be >= 0, got {self.shift_pixels!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``from_dict`` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainingConfig:
        """Read ``to_dict``'s form; an unknown key is a ``ValueError``."""
        unknown = data.keys() - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"training config has unknown key {', '.join(sorted(unknown))}")
        return cls(**data)
