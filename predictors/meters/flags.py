"""Flags of a reading and their descriptions."""

from __future__ import annotations

from collections.abc import Iterable

FOREIGN_PROCESS = "foreign_process"
FOREIGN_COMPUTE = "foreign_compute"
PROCESSES_UNSEEN = "processes_unseen"
NOT_CONVERGED = "not_converged"
LIMITS_CHANGED = "limits_changed"
BOARDS_DIFFER = "boards_differ"
# Windows with one of these flags are repeated: their joules are not those of the model alone.
REJECTED = frozenset({"thermal_throttle", "power_brake", "hw_slowdown", FOREIGN_COMPUTE})

_WORDS = {
    "thermal_throttle": "throttled by heat; such windows were repeated",
    "power_brake": "slowed by the power brake; such windows were repeated",
    "hw_slowdown": "slowed by the hardware; such windows were repeated",
    FOREIGN_PROCESS: "another process was on the device",
    FOREIGN_COMPUTE: "another process computed on the device; such windows were repeated",
    PROCESSES_UNSEEN: "other processes on the device cannot be seen from here",
    NOT_CONVERGED: "the interval is wider than the protocol's target",
    LIMITS_CHANGED: "limits of the board changed during the measurement",
    BOARDS_DIFFER: "repeats ran on several boards or with several limits",
    "still_warming": "the device was still warming up",
    "counter_differs_from_power": "the energy counter differs from integrated power by over 5%",
    "no_cross_check": "no power sensor to check the energy counter against",
    "drift_corrected": "corrected for drift by the reference",
    "drift_irregular": "the reference changed without a trend, so drift is not corrected",
    "no_reference": "no reference was measured in its session",
}
_SIMULATED = "simulated_"


def describe_flag(flag: str) -> str:
    """Return the description of ``flag``; a plug-in's flag is returned unchanged."""
    if flag.startswith(_SIMULATED):
        return f"{flag.removeprefix(_SIMULATED)} is only simulated here and saves nothing"
    return _WORDS.get(flag, flag)


def describe_flags(flags: Iterable[str]) -> str:
    """Join the descriptions by semicolons, each followed by the flag's name in brackets."""
    return "; ".join(
        text if (text := describe_flag(flag)) == flag else f"{text} ({flag})" for flag in flags
    )
