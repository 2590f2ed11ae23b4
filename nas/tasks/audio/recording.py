"""Log mel spectra of a recording.

The front end is that of speech recognition: power spectra of windows of ``window_ms`` every
``hop_ms`` (Hann), summed by triangular filters that are evenly spread on the mel scale (Davis and
Mermelstein 1980), ``mel = 2595 log10(1 + hertz / 700)`` (O'Shaughnessy 1987), in natural
logarithms. It runs once, when the data are read: its joules are not measured.

Shape legend: S samples of a signal, T frames, F frequencies, M mel bands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nas.tasks.audio.wav import MAX_RATE

# Seconds that a resampling filter needs beyond the duration.
FILTER_S = 0.1
# Largest numerator and denominator of the ratio of two rates.
_MOST_TAPS = 50_000
# Square of a share of full scale, about the noise of 16 bits: silence needs a logarithm.
_FLOOR = 1e-8

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FrontEnd:
    """Options of log mel spectra ``(1, n_mels, frames)``.

    Recordings are cut after ``duration_s``, shorter ones padded with silence. Filters lie between
    ``low_hz`` and half of ``sample_rate``.

    Raises:
        ValueError: a field is not allowed.
    """

    sample_rate: int = 16_000
    duration_s: float = 1.0
    n_mels: int = 40
    window_ms: float = 25.0
    hop_ms: float = 10.0
    low_hz: float = 20.0

    def __post_init__(self) -> None:
        for name, most in (("sample_rate", MAX_RATE), ("n_mels", 512)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"{name} must be an integer in 1..{most}, got {value!r}")
        for name in ("duration_s", "window_ms", "hop_ms", "low_hz"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a number > 0, got {value!r}")
        if self.n_samples > 100 * self.sample_rate:
            raise ValueError(f"duration_s must be at most 100, got {self.duration_s}")
        if self.window < 2 or self.hop < 1 or self.window > self.n_samples:
            raise ValueError(
                f"window_ms and hop_ms must hold samples and be within duration_s, got "
                f"{self.window_ms} and {self.hop_ms}"
            )
        if self.low_hz >= self.sample_rate / 2:
            raise ValueError(f"low_hz must be below half of sample_rate, got {self.low_hz}")
        empty = np.flatnonzero(self.mel_filters().sum(axis=1) == 0)
        if len(empty):
            raise ValueError(
                f"n_mels must leave each band a frequency of windows of {self.window_ms} ms, got "
                f"{self.n_mels}"
            )

    @property
    def n_samples(self) -> int:
        """Samples of a recording after resampling."""
        return round(self.duration_s * self.sample_rate)

    @property
    def window(self) -> int:
        """Samples of a window."""
        return round(self.window_ms * self.sample_rate / 1000)

    @property
    def hop(self) -> int:
        """Samples from one window to the next."""
        return round(self.hop_ms * self.sample_rate / 1000)

    @property
    def n_frames(self) -> int:
        """Windows that begin within the recording; the last ones reach into silence."""
        return math.ceil(self.n_samples / self.hop)

    def mel_filters(self) -> Floats:
        """Weights of frequencies in each band, ``(M, F)``: triangles over three centres."""
        edges = _hertz(np.linspace(_mel(self.low_hz), _mel(self.sample_rate / 2), self.n_mels + 2))
        bins_F = np.fft.rfftfreq(self._n_fft, 1 / self.sample_rate)
        rising = (bins_F - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        falling = (edges[2:, None] - bins_F) / (edges[2:] - edges[1:-1])[:, None]
        return np.maximum(0.0, np.minimum(rising, falling))

    @property
    def _n_fft(self) -> int:
        return int(2 ** math.ceil(math.log2(self.window)))

    def values(self, signal_S: Floats, rate: int) -> NDArray[np.float32]:
        """``(1, n_mels, n_frames)`` of a signal with ``rate`` samples a second."""
        if rate != self.sample_rate:
            from scipy.signal import resample_poly

            signal_S = signal_S[: math.ceil((self.duration_s + FILTER_S) * rate)]
            up, down = Fraction(self.sample_rate, rate).as_integer_ratio()
            if max(up, down) > _MOST_TAPS:
                # Avoid a filter of a million taps for a rate that no recording has.
                nearest = Fraction(up, down).limit_denominator(_MOST_TAPS)
                up, down = nearest.as_integer_ratio() if nearest else (1, _MOST_TAPS)
            signal_S = resample_poly(signal_S, up, down)
        reach = (self.n_frames - 1) * self.hop + max(self.window, self.hop)
        padded = np.zeros(max(reach, self.n_samples))
        padded[: min(len(signal_S), self.n_samples)] = signal_S[: self.n_samples]
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.window)[:: self.hop]
        # A periodic Hann window, as spectral analysis needs it.
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)
        spectra_TF = np.fft.rfft(frames[: self.n_frames] * hann, self._n_fft)
        power_TF = np.abs(spectra_TF) ** 2 / (hann**2).sum() / self._n_fft
        log_MT: Floats = np.log(self.mel_filters() @ power_TF.T + _FLOOR)
        return log_MT.astype(np.float32)[None]


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _hertz(mel: Floats) -> Floats:
    hertz: Floats = 700 * (10 ** (mel / 2595) - 1)
    return hertz
