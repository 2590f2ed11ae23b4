"""Measuring protocol: all settings in one frozen record, whose hash is in each reading."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from nas.core.nearest import did_you_mean
from nas.core.plain import from_plain

Regime = Literal["throughput", "latency"]
REGIMES: tuple[Regime, ...] = get_args(Regime)


# Integer fields and their least values.
_LEAST = {
    "warmup_iterations": 0,
    "min_repeats": 0,
    "max_repeats": 0,
    "max_rejected": 0,
    "block_size": 0,
    "threads": 1,
    "version": 1,
}


@dataclass(frozen=True, slots=True)
class Protocol:
    """Settings of a measurement.

    With the model resident the device rests for ``cooldown_s``, then idle power is measured for
    ``idle_s`` (0 omits it). Warm-up lasts ``warmup_s`` seconds and ``warmup_iterations``
    batches at least, and, if there is a thermometer, until the line through its last
    ``warmup_span_s`` seconds rises by no more than ``warmup_slope_c`` degrees over them,
    ``warmup_max_s`` seconds at most.
    Windows of ``window_s`` are repeated from ``min_repeats`` times until the 95% interval's
    half-width is at most ``target_half_width`` of the median, ``max_repeats`` at most. A window
    that throttled, or beside which another process computed, is rejected and repeated,
    ``max_rejected`` times at most.

    In the ``throughput`` regime batches follow each other without waiting, in chunks of
    ``chunk_s``; in the ``latency`` regime each ends before the next starts, as for single
    requests. In a campaign, a fixed reference model is measured before each
    ``block_size`` candidates and after the last, to correct drift (0: no reference).
    On a CPU the model runs on ``threads`` threads. ``version`` is increased with every change of
    the measuring code or its constants.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    name: str
    warmup_s: float
    warmup_iterations: int
    window_s: float
    regime: Regime = "throughput"
    min_repeats: int = 6
    max_repeats: int = 15
    target_half_width: float = 0.02
    max_rejected: int = 5
    idle_s: float = 0.0
    cooldown_s: float = 0.0
    warmup_slope_c: float = 1.0
    warmup_span_s: float = 5.0
    warmup_max_s: float = 30.0
    block_size: int = 0
    chunk_s: float = 0.005
    threads: int = 1
    version: int = 4

    def __post_init__(self) -> None:
        if self.regime not in REGIMES:
            raise ValueError(
                f"regime must be one of {', '.join(REGIMES)}, got {self.regime!r}"
                f"{did_you_mean(self.regime, REGIMES)}"
            )
        for name in ("warmup_s", "idle_s", "cooldown_s", "warmup_slope_c", "warmup_span_s"):
            value = getattr(self, name)
            if not (_is_finite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and >= 0, got {value!r}")
        for name in ("window_s", "target_half_width", "chunk_s", "warmup_max_s"):
            value = getattr(self, name)
            if not (_is_finite(value) and value > 0):
                raise ValueError(f"{name} must be > 0, got {value!r}")
        if not self.warmup_max_s >= self.warmup_s:
            raise ValueError(
                f"warmup_max_s must be >= warmup_s={self.warmup_s}, got {self.warmup_max_s!r}"
            )
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
        if self.min_repeats < 6:
            # Below six no pair of order statistics bounds a median at 95%.
            raise ValueError(f"min_repeats must be >= 6, got {self.min_repeats!r}")
        if self.max_repeats < self.min_repeats:
            raise ValueError(
                f"max_repeats must be >= min_repeats={self.min_repeats}, got {self.max_repeats!r}"
            )

    @property
    def hash(self) -> str:
        """Fingerprint of the protocol, 12 hex digits."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; ``from_dict`` reads it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Protocol:
        """Read the result of ``to_dict``.

        Raises:
            ValueError: a key is missing or unknown, or a value not allowed.
        """
        return from_plain(cls, data, "protocol", is_whole=True)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        # For CPU searches of minutes: process clocks do not step, so windows may be short.
        Protocol(
            "quick",
            warmup_s=0.15,
            warmup_iterations=10,
            window_s=0.1,
            max_repeats=9,
            target_half_width=0.05,
            block_size=8,
        ),
        Protocol(
            "screening",
            warmup_s=3.0,
            warmup_iterations=50,
            window_s=2.0,
            max_repeats=10,
            idle_s=1.0,
            # Clocks stay high for a while after loading and capturing.
            cooldown_s=2.0,
            block_size=8,
        ),
        # For a board with little time (docs/gpu.md): a window ends at the counter's tenth step of
        # 0.1 s, whose jitter is far below the target. Without idle power and net joules.
        Protocol(
            "brief",
            warmup_s=1.5,
            warmup_iterations=50,
            window_s=0.95,
            # The board stays warm between measurements: two readings a second apart suffice.
            warmup_slope_c=0.0,
            warmup_span_s=1.0,
            warmup_max_s=15.0,
            max_repeats=9,
            block_size=8,
        ),
        Protocol(
            "final",
            warmup_s=3.0,
            warmup_iterations=50,
            window_s=5.0,
            idle_s=3.0,
            cooldown_s=5.0,
            block_size=4,
        ),
    )
}


def get_protocol(name: str) -> Protocol:
    """Return the preset called ``name``.

    Raises:
        ValueError: there is no such preset.
    """
    if name not in PROTOCOLS:
        hint = did_you_mean(name, PROTOCOLS)
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}{hint}")
    return PROTOCOLS[name]
