"""Reads the recordings of a task, and says how their lengths and sample rates fit it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.tasks.audio.recording import FILTER_S, FrontEnd, read_sound, seen_by_network
from nas.tasks.base.lengths import length_notes, summary_of

_MANY_CUT = 0.2
# Proposed durations are multiples of it.
_STEP_S = 0.05
_MOST_RATES = 3


class RecordingReader:
    """Reads recordings by a front end and counts their durations and sample rates."""

    def __init__(self, front_end: FrontEnd) -> None:
        """Nothing is read yet."""
        self._front_end = front_end
        self._lock = threading.Lock()
        self._durations_s: list[float] = []
        self._rates: Counter[int] = Counter()

    def read(self, path: Path) -> NDArray[np.float32]:
        """What a network sees of the WAV file at ``path``.

        Raises:
            ValueError: it cannot be read, or is no whole WAV file.
        """
        sound = read_sound(path, self._front_end.duration_s + FILTER_S)
        with self._lock:
            self._durations_s.append(sound.duration_s)
            self._rates[sound.rate] += 1
        return seen_by_network(sound.signal, sound.rate, self._front_end)

    def settle(self, reads: Iterable[Callable[[], Any]]) -> None:
        """Nothing is left open here."""

    def about(self) -> dict[str, Any]:
        """Durations and rates as plain data; ``warnings`` reads it."""
        durations_s, limit_s = np.array(self._durations_s), self._front_end.duration_s
        rates = {str(rate): n for rate, n in self._rates.most_common()}
        return {
            "seen": {"lengths": summary_of(durations_s, limit_s), "rates": rates},
            "sample_rate": self._front_end.sample_rate,
        }

    def notes(self, about: Mapping[str, Any]) -> list[str]:
        """Nothing beside warnings."""
        return []

    def warnings(self, about: Mapping[str, Any]) -> list[str]:
        """Lengths and rates that do not fit the front end, in lines for people."""
        return _warnings(about)

    def causes(self, about: Mapping[str, Any]) -> list[str]:
        """Nothing here explains other errors."""
        return []


def _warnings(about: Mapping[str, Any]) -> list[str]:
    seen, rate = about["seen"], about["sample_rate"]
    limit_s = seen["lengths"]["limit"]
    lines = length_notes(
        seen["lengths"],
        "duration_s",
        limit_s,
        what="recordings",
        unit="s",
        many_cut=_MANY_CUT,
        step=_STEP_S,
    )
    total = sum(seen["rates"].values())
    for text, n in list(seen["rates"].items())[:_MOST_RATES]:
        theirs = int(text)
        share = f"{n:,} of {total:,} recordings have {theirs:,} samples a second"
        if theirs < rate:
            lines.append(
                f"rate: {share}, fewer than sample_rate ({rate:,}): nothing is above "
                f"{theirs // 2:,} Hz in them, and joules are measured with the bands there: "
                f"sample_rate: {theirs} fits"
            )
        elif theirs >= 2 * rate:
            lines.append(
                f"rate: {share}, many more than sample_rate ({rate:,}): what is above "
                f"{rate // 2:,} Hz is lost: sample_rate: {theirs} keeps it"
            )
    return lines
