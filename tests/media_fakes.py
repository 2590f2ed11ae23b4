"""Small pictures and recordings that are easy to tell apart, and task files over them."""

import io
import wave

import numpy as np
import yaml
from PIL import Image

TONES_HZ = {"low": 300, "middle": 900, "high": 2700}


def stripes(kind, rng, height=12, width=12):
    """Noisy stripes across, down or aslant, ``(H, W, 3)`` in 0..255."""
    rows, columns = np.mgrid[:height, :width]
    at = {"across": rows, "down": columns, "aslant": rows + columns}[kind]
    grey = 128 + 80 * np.sign(np.sin(2 * np.pi * (at + rng.integers(4)) / 4 + 0.1))
    noisy = grey[..., None] + rng.normal(0, 25, (height, width, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_pictures(folder, n, seed=0, classes=("across", "aslant", "down"), **size):
    rng = np.random.default_rng(seed)
    for kind in classes:
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for index in range(n):
            (folder / kind / f"{index:03}.png").write_bytes(png(stripes(kind, rng, **size)))
    return folder


def write_scenes(folder, n, seed=0, side=12):
    """Bright and red rectangles on dark ground, in noise, with their masks."""
    rng = np.random.default_rng(seed)
    for name in ("pictures", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(n):
        mask = np.zeros((side, side), np.uint8)
        for kind in (1, 2):
            top, left = rng.integers(0, side - 5, 2)
            mask[top : top + 5, left : left + 5] = kind
        colours = np.array([[40, 40, 40], [220, 220, 220], [220, 40, 40]])
        pixels = np.clip(colours[mask] + rng.normal(0, 20, (side, side, 3)), 0, 255)
        (folder / "pictures" / f"{index:03}.png").write_bytes(png(pixels.astype(np.uint8)))
        (folder / "masks" / f"{index:03}.png").write_bytes(png(mask))
    return folder


def tone(hertz, rng, rate=8000, seconds=0.4):
    """A tone of a random phase and loudness in noise, in [-1, 1]."""
    at = np.arange(round(rate * seconds)) / rate
    signal = np.sin(2 * np.pi * (hertz * rng.uniform(0.95, 1.05) * at + rng.random()))
    return np.clip(rng.uniform(0.2, 0.6) * signal + rng.normal(0, 0.05, len(at)), -1, 1)


def write_wav(path, signal, rate=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((signal * 32767).astype("<i2").tobytes())


def write_tones(folder, n, seed=0, tones=TONES_HZ, n_speakers=7):
    rng = np.random.default_rng(seed)
    for name, hertz in tones.items():
        for index in range(n):
            path = folder / name / f"s{index % n_speakers}_nohash_{index}.wav"
            write_wav(path, tone(hertz, rng))
    return folder


def task_file(path, **options):
    path.write_text(yaml.safe_dump(options))
    return str(path)
