"""WAV files as other programs write them, and heads that no recording has."""

import struct
import time

import numpy as np
import pytest

from nas.tasks.audio.recording import FrontEnd
from nas.tasks.audio.wav import read_sound

RATE = 16_000
SOUND = (np.sin(np.arange(RATE) / 7) * 0.4 * 2**15).astype("<i2").tobytes()


def chunk(name, content, size=None):
    size = len(content) if size is None else size
    return name + struct.pack("<I", size) + content + b"\0" * (len(content) % 2)


def form(channels=1, rate=RATE, bits=16, block=None):
    block = channels * bits // 8 if block is None else block
    return chunk(
        b"fmt ", struct.pack("<HHIIHH", 1, channels, rate, rate * block & 0xFFFFFFFF, block, bits)
    )


def wav(*chunks, head=b"RIFF"):
    body = b"WAVE" + b"".join(chunks)
    return head + struct.pack("<I", min(len(body), 0xFFFFFFFF)) + body


def sound_of(tmp_path, content):
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    return read_sound(path, 2)


LONG = chunk(b"ds64", struct.pack("<QQQI", len(SOUND) + 80, len(SOUND), RATE, 0))


@pytest.mark.parametrize(
    "content",
    [
        wav(form(), chunk(b"data", SOUND, 0xFFFFFFFF)),
        wav(form(), chunk(b"data", SOUND, 0x7FFFF000)),
        wav(form(), chunk(b"data", SOUND, 0x80000000)),
        wav(form(), chunk(b"data", SOUND + b"\0", 0xFFFFFFFF)[:-1]),
        wav(LONG, form(), chunk(b"data", SOUND, 0xFFFFFFFF), head=b"RF64"),
        wav(LONG, form(), chunk(b"data", SOUND, 0xFFFFFFFF), head=b"BW64"),
        wav(chunk(b"LIST", b"INFOabc"), form(), chunk(b"LIST", b"ab"), chunk(b"data", SOUND)),
    ],
    ids=["ffmpeg", "sox", "arecord", "half a sample", "RF64", "BW64", "LIST"],
)
def test_heads_of_other_programs(content, tmp_path):
    sound = sound_of(tmp_path, content)
    assert (len(sound.signal), sound.rate, sound.duration_s) == (RATE, RATE, 1)
    assert np.abs(sound.signal).max() == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize(
    "content, said",
    [
        (wav(form(), chunk(b"data", SOUND[:-1])), "31,999 bytes"),
        (wav(form(channels=2), chunk(b"data", SOUND[:-2])), "31,998 bytes"),
        (wav(form(bits=24), chunk(b"data", SOUND)), "32,000 bytes"),
        (wav(form(channels=0), chunk(b"data", SOUND)), "0 channels"),
        (wav(form(channels=65535, block=2), chunk(b"data", SOUND)), "65535 channels"),
        (wav(form(rate=0), chunk(b"data", SOUND)), "0 samples a second"),
        (wav(form(block=0), chunk(b"data", SOUND)), "0 bytes"),
        (wav(form()), "no sound"),
        (wav(form(), chunk(b"LIST", b"ab", 0xFFFFFFF0), chunk(b"data", SOUND)), "no sound"),
        (wav(form(), *[chunk(b"JUNK", b"")] * 2000, chunk(b"data", SOUND)), "no sound"),
        (wav(form(), chunk(b"data", SOUND))[:40], "no sound"),
        (wav(chunk(b"data", SOUND)), "does not describe its sound"),
    ],
)
def test_heads_that_no_recording_has(content, said, tmp_path):
    with pytest.raises(ValueError) as error:
        sound_of(tmp_path, content)
    assert said in str(error.value) and "Error" not in str(error.value)


def test_half_a_sample_is_refused_however_much_is_read(tmp_path):
    for seconds in (1, 5):
        content = wav(form(), chunk(b"data", (SOUND * seconds)[:-1]))
        with pytest.raises(ValueError, match="end within a sample"):
            sound_of(tmp_path, content)


def test_a_rate_that_has_nothing_in_common_takes_no_filter_of_millions():
    began = time.process_time()
    odd = FrontEnd().values(np.sin(np.arange(2 * 767_999) / 300), 767_999)
    assert time.process_time() - began < 1.5
    even = FrontEnd().values(np.sin(np.arange(2 * 768_000) / 300), 768_000)
    assert np.abs(odd - even).mean() < 0.1
