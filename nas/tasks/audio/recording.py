"""One recording from a WAV file, and its log mel spectra.

The front end is that of speech recognition: power spectra of windows of ``window_ms`` every
``hop_ms`` (Hann), summed by triangular filters that are evenly spread on the mel scale (Davis and
Mermelstein 1980), ``mel = 2595 log10(1 + hertz / 700)`` (O'Shaughnessy 1987), in natural
logarithms. It runs once, when the data are read: its joules are not measured.

Shape legend: S samples of a signal, T frames, F frequencies, M mel bands.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.tasks.audio.wav_head import read_beginning

# Most seconds of a recording that are read, and those that a resampling filter needs further.
_MOST_S, FILTER_S = 101.0, 0.1
_MAX_RATE = 768_000
# Largest numerator and denominator of the ratio of two rates.
_MOST_TAPS = 50_000
# Square of a share of full scale, about the noise of 16 bits: silence needs a logarithm.
_FLOOR = 1e-8
_FULL_SCALE = {"u1": 2.0**7, "i2": 2.0**15, "i4": 2.0**31}

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
        """Validate every field."""
        for name, most in (("sample_rate", _MAX_RATE), ("n_mels", 512)):
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


class Sound(NamedTuple):
    """The beginning of a recording: ``signal`` is the mean of its channels, full scale at 1.

    ``rate`` is in samples a second; ``duration_s`` is of the whole recording.
    """

    signal: Floats
    rate: int
    duration_s: float


def read_sound(path: Path, most_s: float = _MOST_S) -> Sound:
    """Read the first ``most_s`` seconds of a WAV file, and no more.

    Raises:
        ValueError: it cannot be read, or is no WAV file of 8, 16, 24, 32 bits or floats.
    """
    from scipy.io import wavfile

    try:
        if path.stat().st_size == 0:
            raise ValueError("must have more than 0 bytes, got 0")
        raw, duration_s = read_beginning(path, most_s)
    except OSError as error:
        raise ValueError(f"must be readable: {error.strerror}") from None
    with warnings.catch_warnings():
        # Of chunks that hold no sound, such as tags.
        warnings.simplefilter("ignore", wavfile.WavFileWarning)
        try:
            rate, values = wavfile.read(io.BytesIO(raw))
        except (ValueError, EOFError, struct.error, KeyError, IndexError, TypeError) as error:
            # What its reader raises for other formats and damaged files.
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"must be a whole WAV file: {text}") from None
        except Exception as error:
            raise ValueError(f"must be a whole WAV file: {type(error).__name__}") from None
    if not 1 <= rate <= _MAX_RATE:
        raise ValueError(f"must have at most {_MAX_RATE} samples a second, got {rate}")
    if values.size == 0:
        raise ValueError("must hold sound, and holds no sample")
    kind = values.dtype.str[1:]
    if kind not in _FULL_SCALE and values.dtype.kind != "f":
        raise ValueError(f"must have 8, 16, 24 or 32 bits or floats, got {values.dtype}")
    signal = values.astype(np.float64)
    if kind == "u1":
        signal -= 128
    signal /= _FULL_SCALE.get(kind, 1.0)
    signal_S = signal if signal.ndim == 1 else signal.mean(axis=1)
    return Sound(signal_S, int(rate), len(signal_S) / rate if duration_s is None else duration_s)


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _hertz(mel: Floats) -> Floats:
    hertz: Floats = 700 * (10 ** (mel / 2595) - 1)
    return hertz
