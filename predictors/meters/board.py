"""Settings of a board. This project reads settings and never changes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nas.core.plain import from_plain

# Settings under which joules are comparable, in display order.
Limits = tuple[float | None, float | None, float | None, bool | None, bool | None]


@dataclass(frozen=True, slots=True)
class Board:
    """One board and its settings; an unreported setting is ``None``, never 0.

    ``power_limit_w`` is the enforced limit, ``default_power_limit_w`` the factory default.
    ``sm_clock_limit_mhz`` and ``memory_clock_limit_mhz`` are the applications clocks;
    ``memory_clock_mhz`` is the memory clock under load. For the sum of several boards, ``uuid``
    has all UUIDs joined by ``+``, and the settings are those of the first board.
    """

    uuid: str
    power_limit_w: float | None = None
    default_power_limit_w: float | None = None
    sm_clock_limit_mhz: float | None = None
    memory_clock_limit_mhz: float | None = None
    memory_clock_mhz: float | None = None
    ecc: bool | None = None
    persistence: bool | None = None
    mig: bool | None = None

    @property
    def limits(self) -> Limits:
        """The settings under which joules of one model are comparable."""
        return (
            self.power_limit_w,
            self.sm_clock_limit_mhz,
            self.memory_clock_limit_mhz,
            self.ecc,
            self.mig,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Board:
        """Read the result of ``to_dict``.

        Raises:
            ValueError: a key is missing or unknown.
        """
        return from_plain(cls, data, "board")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; ``from_dict`` reads it."""
        return asdict(self)


def describe_limits(limits: Limits | None) -> str:
    """Describe limits, such as ``700 W, SM clock 1980 MHz, ECC on``; empty if unknown."""
    if limits is None:
        return ""
    power_w, sm_mhz, memory_mhz, ecc, mig = limits
    parts = [
        None if power_w is None else f"{power_w:g} W",
        None if sm_mhz is None else f"SM clock {sm_mhz:g} MHz",
        None if memory_mhz is None else f"memory clock {memory_mhz:g} MHz",
        None if ecc is None else f"ECC {'on' if ecc else 'off'}",
        "MIG on" if mig else None,
    ]
    return ", ".join(part for part in parts if part is not None)
