"""Recordings of a user: read whatever their form, seen through the front end, and learnt."""

import numpy as np
import pytest
from media_fakes import TONES_HZ, task_file, tone, write_tones, write_wav
from scipy.io import wavfile
from scipy.signal import ShortTimeFFT, get_window

from nas.tasks.audio.recording import FrontEnd
from nas.tasks.audio.recording_reader import RecordingReader
from nas.tasks.audio.wav import read_sound
from nas.tasks.base import SPLITS
from nas.tasks.base.problems import DataError
from nas.tasks.registry import get_task
from nas.training.config import TrainingConfig
from nas.training.fit import Setting, fit
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec

SMALL = {"sample_rate": 8000, "duration_s": 0.4, "n_mels": 20, "hop_ms": 20, "window_ms": 32}
FRONT_END = FrontEnd(**SMALL)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def speech(tmp_path, **options):
    options = {"name": "tones", "kind": "speech", **SMALL, **options}
    return get_task(task_file(tmp_path / "task.yaml", **options))


def test_tones_are_learnt_and_speakers_kept_apart(tmp_path):
    write_tones(tmp_path / "all", 56)
    task = speech(
        tmp_path, data="all", speaker_before="_nohash_", test_share=0.25, validation_share=0.15
    )
    workload = task.workload(16)
    assert workload.input_shape == (1, 20, 20) and workload.n_classes == 3
    # Of seven speakers with 24 recordings each, whole ones are held out.
    sizes = [len(task.split(name)) for name in SPLITS]
    assert sum(sizes) == 168 and all(size % 24 == 0 and size > 0 for size in sizes)
    train = task.split("train").inputs
    np.testing.assert_allclose(train.mean((0, 1, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(train.std((0, 1, 3)), 1, atol=1e-4)
    layer = LayerSpec(AttentionSpec(2, 1, 8), FfnSpec(32))
    fitted = fit(
        Architecture(16, (layer,), patch_size=5, resolution=10),
        Setting(task, workload, seed=0),
        TrainingConfig(epochs=8, batch_size=16, learning_rate=5e-3),
    )
    assert fitted.validation.value > 0.9


@pytest.mark.parametrize("hertz", [150.0, 1000.0, 3100.0])
def test_a_tone_is_loudest_in_its_band(hertz):
    at = np.arange(FRONT_END.n_samples) / FRONT_END.sample_rate
    (log_mel,) = FRONT_END.values(np.sin(2 * np.pi * hertz * at), FRONT_END.sample_rate)
    filters = FRONT_END.mel_filters()
    bins = np.fft.rfftfreq(2 * (filters.shape[1] - 1), 1 / FRONT_END.sample_rate)
    expected = filters[:, np.abs(bins - hertz).argmin()].argmax()
    assert abs(log_mel[:, 5].argmax() - expected) <= 1


def test_spectra_are_those_of_scipy():
    signal = np.random.default_rng(0).normal(0, 0.1, FRONT_END.n_samples)
    window = get_window("hann", FRONT_END.window)
    theirs = ShortTimeFFT(
        window, FRONT_END.hop, FRONT_END.sample_rate, fft_mode="onesided", mfft=256
    )
    # Its frames are centred on their time; ours begin there.
    spectra = theirs.stft(signal, p0=0, p1=FRONT_END.n_frames + 1, k_offset=FRONT_END.window // 2)
    power = np.abs(spectra[:, : FRONT_END.n_frames]) ** 2 / (window**2).sum() / 256
    (ours,) = FRONT_END.values(signal, FRONT_END.sample_rate)
    np.testing.assert_allclose(
        ours, np.log(FRONT_END.mel_filters() @ power + 1e-8), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("form", ["u1", "i2", "i3", "i4", "f4", "f8"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_width_gives_the_same_sound(tmp_path, form, channels):
    signal = tone(440, np.random.default_rng(0))
    path = tmp_path / "a.wav"
    both = np.stack([signal] * channels, axis=1)
    if form == "i3":
        write_24_bits(path, both)
    elif form[0] == "f":
        wavfile.write(path, 8000, both.astype(form))
    elif form == "u1":
        wavfile.write(path, 8000, np.rint(both * 127 + 128).astype(np.uint8))
    else:
        full = 2 ** (8 * int(form[1]) - 1) - 1
        wavfile.write(path, 8000, np.rint(both * full).astype(form))
    found, rate, _ = read_sound(path)
    assert rate == 8000 and found.shape == signal.shape
    np.testing.assert_allclose(found, signal, atol=0.01 if form == "u1" else 1e-4)


def write_24_bits(path, both):
    import wave

    whole = np.rint(both * (2**23 - 1)).astype("<i4")
    raw = whole.view(np.uint8).reshape(*both.shape, 4)[..., :3]
    with wave.open(str(path), "wb") as file:
        file.setparams((both.shape[1], 3, 8000, 0, "NONE", None))
        file.writeframes(raw.tobytes())


def test_other_rates_and_lengths_are_brought_to_one(tmp_path):
    rng = np.random.default_rng(0)
    at = np.arange(22_050) / 22_050
    write_wav(tmp_path / "fast.wav", 0.5 * np.sin(2 * np.pi * 900 * at), rate=22_050)
    at = np.arange(8000) / 8000
    write_wav(tmp_path / "same.wav", 0.5 * np.sin(2 * np.pi * 900 * at))
    write_wav(tmp_path / "short.wav", tone(900, rng, seconds=0.1))
    fast, same, short = (
        RecordingReader(FRONT_END).read(tmp_path / f"{name}.wav")
        for name in ("fast", "same", "short")
    )
    loud = same > same.max() - 5
    assert fast.shape == same.shape == short.shape == (1, 20, 20)
    np.testing.assert_allclose(fast[loud], same[loud], atol=0.1)
    # What is missing at the end is silence.
    assert short[0, :, 8:].max() < short[0, :, :4].max() - 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_mels": 200}, "n_mels must leave each band a frequency"),
        ({"window_ms": 0.1}, "window_ms and hop_ms must hold samples"),
        ({"duration_s": 0}, "duration_s must be a number > 0"),
        ({"duration_s": 1e6}, "duration_s must be at most 100"),
        ({"sample_rate": "8k"}, "sample_rate must be an integer"),
        ({"low_hz": 4000}, "low_hz must be below half"),
        ({"speaker_before": 3}, "speaker_before must be a text"),
        ({"size": 3}, "unknown key 'size'"),
    ],
)
def test_options_that_cannot_be(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        speech(tmp_path, data="all", **change)


def test_all_recordings_that_cannot_be_read_are_named(tmp_path):
    folder = write_tones(tmp_path / "all", 4)
    (folder / "low" / "empty.wav").touch()
    (folder / "low" / "text.wav").write_text("RIFF of a kind")
    whole = (folder / "high" / "s0_nohash_0.wav").read_bytes()
    (folder / "high" / "head.wav").write_bytes(whole[:30])
    (folder / "middle" / "silent.wav").write_bytes(whole[:40] + bytes(4))
    wavfile.write(folder / "low" / "nan.wav", 8000, np.full(800, np.nan, np.float32))
    with pytest.raises(DataError) as caught:
        speech(tmp_path, data="all").workload(1)
    text = "\n".join(caught.value.lines)
    for name in ("empty", "text", "head", "silent", "nan"):
        assert f"{name}.wav must " in text
    assert len(caught.value.lines) == 5


def test_one_class_is_refused(tmp_path):
    write_tones(tmp_path / "all", 40, tones={"low": TONES_HZ["low"]})
    with pytest.raises(ValueError, match="two classes or more, got low"):
        speech(tmp_path, data="all").workload(1)
