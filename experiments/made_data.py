"""Generated data with a known answer, for benchmarks and tests of kinds of tasks."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_TEAMS = ("lions", "hawks", "bears", "wolves", "foxes", "eagles", "sharks", "tigers")
_CITIES = ("oslo", "lima", "paris", "cairo", "delhi", "quito", "rome", "tokyo")
_FILLERS = (
    "the {other} sold {n} shirts last year .",
    "the mayor of {place} sent flowers .",
    "it rained in {place} on monday .",
    "fans of the {other} came by bus .",
    "a band from {place} played before noon .",
    "tickets cost {n} coins this season .",
)
# Hertz of sung notes.
_NOTES = {"do": 262, "re": 330, "mi": 415, "fa": 523, "so": 659, "la": 831, "ti": 1047}
_RATE = 8000


def documents(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """``n`` match reports and their summaries, no report twice.

    A report has six to eight sentences. Three of them, anywhere among sentences on other teams and
    places, have the winner, the loser and the place, which the summary names.
    """
    rng = np.random.default_rng(seed)
    reports: dict[str, str] = {}
    while len(reports) < n:
        winner, loser = (str(team) for team in rng.choice(_TEAMS, 2, replace=False))
        place = str(rng.choice(_CITIES))
        sentences = [
            str(rng.choice(_FILLERS)).format(
                other=rng.choice(_TEAMS), place=rng.choice(_CITIES), n=rng.integers(10, 20)
            )
            for _ in range(rng.integers(3, 6))
        ]
        facts = (
            f"the winners are the {winner} .",
            f"the losers are the {loser} .",
            f"they met in {place} .",
        )
        for fact in facts:
            sentences.insert(int(rng.integers(len(sentences) + 1)), fact)
        reports[" ".join(sentences)] = f"{winner} beat {loser} in {place}"
    return list(reports.items())


def lead(text: str, n_sentences: int = 3) -> str:
    """The first sentences of a document, the usual baseline of summaries."""
    return " . ".join(part.strip() for part in text.split(" .")[:n_sentences]).strip()


def melody(rng: np.random.Generator, rate: int = _RATE) -> tuple[NDArray[np.float64], str]:
    """Two to six sung notes in noise, in [-1, 1], and their names.

    Notes differ in length and loudness, are out of tune by up to 2%, and have an overtone.
    """
    names = [str(name) for name in rng.choice(list(_NOTES), rng.integers(2, 7))]
    parts = [np.zeros(round(rate * rng.uniform(0.02, 0.08)))]
    for name in names:
        at_S = np.arange(round(rate * rng.uniform(0.14, 0.26))) / rate
        hertz = _NOTES[name] * rng.uniform(0.98, 1.02)
        # Sung notes begin and end softly.
        shape_S = np.sin(np.pi * np.linspace(0, 1, len(at_S))) ** 0.5
        angle_S = 2 * np.pi * (hertz * at_S + rng.random())
        sung_S = np.sin(angle_S) + 0.4 * np.sin(2 * angle_S)
        parts += [rng.uniform(0.15, 0.5) * shape_S * sung_S]
        parts += [np.zeros(round(rate * rng.uniform(0.02, 0.06)))]
    signal_S = np.concatenate(parts)
    # As loud in each band at every rate.
    signal_S = signal_S + rng.normal(0, 0.03 * (rate / _RATE) ** 0.5, len(signal_S))
    return np.clip(signal_S, -1, 1), " ".join(names)


def write_melodies(folder: Path, n: int, seed: int = 0) -> Path:
    """Write ``n`` melodies into ``folder``, and return their table of paths and names."""
    rng = np.random.default_rng(seed)
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(n):
        signal_S, text = melody(rng)
        name = f"clips/{index:05}.wav"
        write_sound(folder / name, signal_S)
        lines.append(json.dumps({"audio": name, "text": text}) + "\n")
    table = folder / "melodies.jsonl"
    table.write_text("".join(lines), encoding="utf-8")
    return table


def write_sound(path: Path, signal_S: NDArray[np.float64], rate: int = _RATE) -> None:
    """Write a WAV file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((signal_S * 32767).astype("<i2").tobytes())
