"""Keyword classification from folders of WAV files.

The network reads log mel spectra ``(1, n_mels, frames)`` in patches, as it reads images; each band
is standardised by the training split. Recordings of one speaker, if file names contain the
speaker, are never in two splits. See ``docs/images.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nas.tasks.audio.recording import FrontEnd
from nas.tasks.audio.recording_reader import RecordingReader
from nas.tasks.base.array_task import ArrayClassification
from nas.tasks.base.problems import Problems
from nas.tasks.base.sources import Sample, class_files


@dataclass(frozen=True, slots=True)
class SpeechOptions(FrontEnd):
    """The front end; the part of a file name before ``speaker_before`` names the speaker.

    Raises:
        ValueError: a field is not allowed.
    """

    speaker_before: str | None = None

    def __post_init__(self) -> None:
        # Without arguments `super` names the class as it was before it had slots.
        super(SpeechOptions, self).__post_init__()
        mark = self.speaker_before
        if mark is not None and not (isinstance(mark, str) and mark):
            raise ValueError(f"speaker_before must be a text, got {mark!r}")


class Speech(ArrayClassification):
    """Recordings into classes."""

    kind = "speech"
    noun = "recordings"
    options_type = SpeechOptions
    has_parts = True
    axis = 1
    reader_type = RecordingReader
    reader: RecordingReader

    def rows(self, source: Any, problems: Problems) -> list[Sample]:
        """See ``ArrayTask.rows``."""
        if not isinstance(source, Path):
            problems.add(f"recordings must be in a folder, got {sorted(source)}")
            return []
        return [
            Sample(str(path), label, partial(self.reader.read, path), self._speaker(path))
            for path, label in class_files(source, (".wav",), problems)
        ]

    def _speaker(self, path: Path) -> str | None:
        mark = self.options.speaker_before
        return path.name.partition(mark)[0] if mark and mark in path.name else None
