"""Keyword classification from folders of WAV files.

A task is a YAML file::

    name: keywords
    kind: speech
    data: recordings             # a folder of folders named after classes; or train, ...
    sample_rate: 16000           # others are resampled
    duration_s: 1.0              # longer recordings are cut, shorter ones filled up with silence
    n_mels: 40                   # bands, what an image's height is
    hop_ms: 10                   # a frame each, what an image's width is
    speaker_before: _nohash_     # of a file's name, the part before this names the speaker

Splits are those of images (``nas.tasks.base.samples``); recordings of one speaker, where the names
of files tell him, are never in two. The network sees ``(1, n_mels, frames)``, in patches as it
sees images; each band is standardised by the training split.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from nas.tasks.audio.padding import RecordingReader
from nas.tasks.audio.recording import FrontEnd
from nas.tasks.base.prepared import Prepared, PreparedClassification
from nas.tasks.base.problems import Problems
from nas.tasks.base.samples import SOURCE_KEYS, Sample, Sources, class_files
from nas.tasks.base.task_file import TaskFile


def speech_task(file: TaskFile) -> PreparedClassification:
    """The task that a user's file of kind ``speech`` describes.

    Raises:
        ValueError: a key is missing, unknown, or its value not allowed.
    """
    own = [f.name for f in fields(FrontEnd)]
    keys = ("name", *SOURCE_KEYS, *own, "speaker_before")
    file.check_keys(allowed=keys, required=("name",))
    front_end = FrontEnd(**file.given(own))
    mark = file.options.get("speaker_before")
    if mark is not None and not (isinstance(mark, str) and mark):
        raise ValueError(f"speaker_before must be a text, got {mark!r}")
    reader = RecordingReader(front_end)
    prepared = Prepared(
        Sources.from_file(file, "classes"),
        {"front_end": asdict(front_end), "speaker_before": mark},
        partial(_samples, reader=reader, mark=mark),
        axis=1,
        what="recordings",
        reader=reader,
    )
    return PreparedClassification(file.options["name"], prepared, kind=file.kind)


def _samples(
    source: Any, problems: Problems, *, reader: RecordingReader, mark: str | None
) -> list[Sample]:
    if not isinstance(source, Path):
        problems.add(f"recordings must be in a folder, got {sorted(source)}")
        return []
    return [
        Sample(str(path), label, partial(reader.read, path), _speaker(path, mark))
        for path, label in class_files(source, (".wav",), problems)
    ]


def _speaker(path: Path, mark: str | None) -> str | None:
    before, found, _ = path.name.partition(mark) if mark else ("", "", "")
    return before if found else None
