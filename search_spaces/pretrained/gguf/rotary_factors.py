"""Scaled rotary positions of Llama 3, which GGUF files store as factors of the frequencies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of Llama 3.1, 3.2 and 3.3, which differ in the factor.
_LOW, _HIGH, _LENGTH = 1.0, 4.0, 8192
_TOLERANCE = 1e-5


def scaling_of(
    factors: NDArray[np.float32], head_size: int, theta: float, where: object
) -> dict[str, Any] | None:
    """Return the ``rope_scaling`` that gives ``factors``; ``None`` for factors of 1.

    A file stores the factors only. They are compared with those that the lengths and bounds of
    Llama 3.1 to 3.3 give with the largest factor.

    Raises:
        ValueError: the factors are others; the message begins with ``where``.
    """
    largest = float(factors.max())
    if factors.shape == (head_size // 2,) and np.isfinite(factors).all() and largest >= 1:
        if bool((factors == 1).all()):
            return None
        expected = _factors(largest, head_size, theta)
        if np.allclose(factors, expected, rtol=_TOLERANCE, atol=0):
            return {
                "rope_type": "llama3",
                "factor": largest,
                "low_freq_factor": _LOW,
                "high_freq_factor": _HIGH,
                "original_max_position_embeddings": _LENGTH,
            }
    raise ValueError(
        f"{where} must have the factors of Llama 3.1, 3.2 or 3.3 for heads of size {head_size}, "
        f"and has others"
    )


def _factors(factor: float, head_size: int, theta: float) -> NDArray[np.float64]:
    wavelengths = 2 * math.pi * theta ** (np.arange(0, head_size, 2) / head_size)
    smooth = np.clip((_LENGTH / wavelengths - _LOW) / (_HIGH - _LOW), 0, 1)
    result: NDArray[np.float64] = 1 / ((1 - smooth) / factor + smooth)
    return result
