"""Reads recordings, and warns of lengths and sample rates that do not fit the options."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.tasks.audio.recording import FILTER_S, FrontEnd
from nas.tasks.audio.wav import read_sound
from nas.tasks.base.array_task import Reader
from nas.tasks.base.lengths import length_notes, summary_of

_MANY_CUT = 0.2
# Proposed durations are multiples of it.
_STEP_S = 0.05
_MOST_RATES = 3


class RecordingReader(Reader):
    """Reads recordings by a front end and counts their durations and sample rates."""

    def __init__(self, front_end: FrontEnd) -> None:
        """Read nothing yet."""
        self._front_end = front_end
        self._lock = threading.Lock()
        self._durations_s: list[float] = []
        self._rates: Counter[int] = Counter()

    def read(self, path: Path) -> NDArray[np.float32]:
        """Read the WAV file at ``path`` as log mel spectra ``(1, n_mels, frames)``.

        Raises:
            ValueError: it cannot be read, or is no whole WAV file.
        """
        sound = read_sound(path, self._front_end.duration_s + FILTER_S)
        with self._lock:
            self._durations_s.append(sound.duration_s)
            self._rates[sound.rate] += 1
        return self._front_end.values(sound.signal, sound.rate)

    def about(self) -> dict[str, Any]:
        """Durations and rates, as plain data."""
        front_end = self._front_end
        lengths = {}
        if self._durations_s:
            lengths = summary_of(
                np.array(self._durations_s),
                front_end.duration_s,
                key="duration_s",
                what="recordings",
                many_cut=_MANY_CUT,
                unit="s",
                step=_STEP_S,
            )
        rates = {str(rate): n for rate, n in self._rates.most_common()}
        return {"lengths": lengths, "rates": rates, "sample_rate": front_end.sample_rate}

    def preprocessing(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """The front end."""
        names = {field.name for field in fields(FrontEnd)}
        options = asdict(self._front_end)
        return {"front_end": {name: options[name] for name in options if name in names}}

    def warnings(self, about: Mapping[str, Any]) -> list[str]:
        """See ``Reader.warnings``."""
        lines, rate = length_notes(about["lengths"]), about["sample_rate"]
        total = sum(about["rates"].values())
        for text, n in list(about["rates"].items())[:_MOST_RATES]:
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
