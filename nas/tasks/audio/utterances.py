"""Log mel spectra of recordings of any length up to a limit, for transcription.

Shape legend: C channels (one), M mel bands, T frames, F frames of the longest input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.tasks.audio.recording import FrontEnd
from nas.tasks.audio.wav import read_sound

# Inputs have a multiple of so many frames, so that patches of 2, 4 and 8 frames divide them.
FRAMES_MULTIPLE = 8
# A recording may be this much longer than the limit: encoders pad their last block.
_SLACK_S = 0.01


@dataclass(frozen=True, slots=True)
class Utterances:
    """Reads recordings of at most ``front_end.duration_s`` seconds."""

    front_end: FrontEnd

    @property
    def n_frames(self) -> int:
        """Frames of an input."""
        return math.ceil(self.front_end.n_frames / FRAMES_MULTIPLE) * FRAMES_MULTIPLE

    @property
    def duration_s(self) -> float:
        """Seconds of an input that is full."""
        return self.n_frames * self.front_end.hop / self.front_end.sample_rate

    def read(self, path: Path) -> tuple[NDArray[np.float32], float]:
        """Read log mel spectra ``(M, T)`` of the whole WAV file, and its seconds.

        Raises:
            ValueError: it cannot be read, is no whole WAV file, or is too long.
        """
        front_end, most_s = self.front_end, self.front_end.duration_s
        sound = read_sound(path, most_s + 2 * _SLACK_S)
        if sound.duration_s > most_s + _SLACK_S:
            raise ValueError(
                f"must be at most duration_s ({most_s:g} s) long, got {sound.duration_s:.3g} s"
            )
        n_frames = math.ceil(sound.duration_s * front_end.sample_rate / front_end.hop)
        (values_MT,) = front_end.values(sound.signal, sound.rate)
        return values_MT[:, : max(1, n_frames)], sound.duration_s

    def padded(
        self,
        values_MT: NDArray[np.float32],
        mean_M: NDArray[np.float64],
        deviation_M: NDArray[np.float64],
    ) -> NDArray[np.float32]:
        """Standardise each band, and fill up with zeros: an input ``(C, M, F)``.

        Networks read frames that are 0 in all bands as padding. No frame of a recording is at the
        mean in all of them.
        """
        input_CMF = np.zeros((1, len(values_MT), self.n_frames), np.float32)
        input_CMF[0, :, : values_MT.shape[1]] = (values_MT - mean_M[:, None]) / deviation_M[
            :, None
        ]
        return input_CMF
