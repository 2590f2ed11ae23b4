"""Rotary positions of configurations, in the form before transformers 5 and in that since.

Before: ``rope_theta`` and ``rope_scaling``. Since: ``rope_parameters`` with both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from search_spaces.architecture.style import PositionStyle, RotaryScaling
from search_spaces.pretrained.files.config import MOST_POSITIONS, Config

_THETA = 10_000.0


def _default(config: Config) -> None:
    return None


def _linear(config: Config) -> RotaryScaling:
    return RotaryScaling("linear", config.number("factor"))


def _llama3(config: Config) -> RotaryScaling:
    return RotaryScaling(
        "llama3",
        config.number("factor"),
        config.number("low_freq_factor"),
        config.number("high_freq_factor"),
        config.integer("original_max_position_embeddings", most=MOST_POSITIONS),
    )


# YaRN, LongRoPE and dynamic scaling also change attention's scale, or depend on the length read.
_KINDS: dict[str, Callable[[Config], RotaryScaling | None]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
}


def rotary_values(positions: PositionStyle) -> dict[str, Any]:
    """Return the keys of a configuration that ``rotary_positions`` reads as ``positions``."""
    part: dict[str, Any] = {"rope_type": "default", "rope_theta": positions.theta}
    scaling = positions.scaling
    if scaling is not None:
        part |= {"rope_type": scaling.kind, "factor": scaling.factor}
        if scaling.kind == "llama3":
            part["low_freq_factor"] = scaling.low_frequency_factor
            part["high_freq_factor"] = scaling.high_frequency_factor
            part["original_max_position_embeddings"] = scaling.original_length
    # Versions before 5 of transformers read the first and the last.
    values = {"rope_theta": positions.theta, "rope_parameters": part}
    return values if scaling is None else values | {"rope_scaling": part}


def rotary_positions(config: Config) -> PositionStyle:
    """Return the rotary positions that a configuration describes.

    Raises:
        ValueError: a kind of scaling, or a key of it, is not supported.
    """
    config.require("partial_rotary_factor", (1, 1.0))
    new, old = config.section("rope_parameters"), config.section("rope_scaling")
    if new is not None and old is not None and new.values != old.values:
        raise config.error("rope_scaling", "left out beside rope_parameters", old.values)
    theta = config.number("rope_theta", _THETA, above=1)
    part = new or old
    if part is None:
        return PositionStyle("rotary", theta)
    theta = part.number("rope_theta", theta, above=1)
    part.require("partial_rotary_factor", (1, 1.0))
    name = "rope_type" if "rope_type" in part or "type" not in part else "type"
    part.take("type")
    kind = part.choice(name, _KINDS) if name in part else _default
    scaling = kind(part)
    unknown = part.unread()
    if unknown:
        raise part.error(unknown[0], "left out: no known key of it", part.take(unknown[0]))
    return PositionStyle("rotary", theta, scaling)
