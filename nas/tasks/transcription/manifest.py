"""Recordings and their transcripts: a table of paths and texts, or a folder of pairs of files.

A table (``nas.tasks.base.tables``) has a column of paths, relative to the table, and one of texts.
A folder holds WAV files with a ``.txt`` file of the same name beside each. An error of a row is
added to the problems with its file and row, and reading continues.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nas.tasks.base.columns import Columns
from nas.tasks.base.problems import Problems, shown
from nas.tasks.base.sources import files_below
from nas.tasks.base.tables import TABLES, Row, check_text, read_rows, read_text

COLUMNS = ("audio", "text")
# A ``Row`` whose text is the path of the recording and whose label is the transcript.
Utterance = Row


def read_utterances(source: Any, columns: Columns, problems: Problems) -> list[Utterance]:
    """List the utterances of ``source``, the path of a table or a folder."""
    if not isinstance(source, Path):
        problems.add(f"recordings must be in a table or a folder, got {sorted(source)}")
        return []
    if source.is_dir():
        return list(_pairs(source, problems))
    if source.suffix.lower() not in TABLES:
        problems.add(f"{source} must be a table ({', '.join(TABLES)}) or a folder")
        return []

    def check(place: str, audio: Any, text: Any) -> Utterance:
        check_text(audio, "audio")
        check_text(text, "text")
        path = (source.parent / audio.strip()).resolve()
        if path.suffix.lower() != ".wav":
            raise ValueError(f"must name a .wav file, got {shown(audio)}")
        if not path.is_file():
            raise ValueError(f"must name a recording that exists, got {shown(audio)}")
        return Utterance(place, str(path), plain(text))

    return read_rows(source, columns, problems, check)


def plain(text: str) -> str:
    """Return a transcript with single spaces."""
    return " ".join(text.split())


def _pairs(folder: Path, problems: Problems) -> Iterator[Utterance]:
    files = files_below(folder, (".wav", ".txt"), problems)
    recordings = [path for path in files if path.suffix.lower() == ".wav"]
    transcripts = {path.with_suffix("") for path in files if path.suffix.lower() == ".txt"}
    if not recordings:
        problems.add(f"{folder} must hold .wav files with a .txt file beside each, and has none")
    for path in recordings:
        if path.with_suffix("") not in transcripts:
            problems.add(
                f"{path} must have a transcript {path.with_suffix('.txt').name} beside it"
            )
            continue
        text = read_text(path.with_suffix(".txt"), problems)
        if text is None:
            continue
        try:
            check_text(text, "text")
        except ValueError as error:
            problems.add(f"{path.with_suffix('.txt')} {error}")
            continue
        yield Utterance(str(path), str(path), plain(text))
    for orphan in sorted(transcripts - {path.with_suffix("") for path in recordings}):
        problems.add(f"{orphan.with_suffix('.txt')} must have a recording beside it, and has none")
