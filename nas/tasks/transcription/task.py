"""Speech to text from recordings with transcripts, judged by word or character error rates.

Networks are encoders over log-mel spectra with an output for each patch of frames, trained by CTC.
Tokens are characters or byte pairs of the training transcripts. See ``docs/transcription.md``.

Shape legend: N utterances, C channels (one), M mel bands, T frames, F frames of an input.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nas.tasks.audio.recording import FrontEnd
from nas.tasks.audio.utterances import Utterances
from nas.tasks.base import SPLITS
from nas.tasks.base.artifact_files import PREPROCESSING, TOKENIZER
from nas.tasks.base.cache import CachedTexts, write_texts
from nas.tasks.base.file_task import Rows, RowTask
from nas.tasks.base.lengths import summary_of
from nas.tasks.base.metric import get_metric
from nas.tasks.base.problems import Problems
from nas.tasks.base.sources import Sources
from nas.tasks.base.splits import text_digest
from nas.tasks.base.tables import TABLES
from nas.tasks.base.task_file import check_whole_numbers
from nas.tasks.text.tokenize import (
    TextEncoder,
    learn_characters,
    learn_tokenizer,
    least_vocabulary,
)
from nas.tasks.transcription.ctc import steps_needed
from nas.tasks.transcription.error_rates import METRICS, check_installed
from nas.tasks.transcription.manifest import COLUMNS, Utterance, read_utterances
from nas.tasks.transcription.objective import TranscriptionObjective
from search_spaces.workload import Workload

SpeechTokens = Literal["character", "bpe"]
_TOKENS: tuple[SpeechTokens, ...] = get_args(SpeechTokens)
_REFERENCES = "references"
_LONGEST_TRANSCRIPT = 2**14
# Proposed durations are multiples of it.
_STEP_S = 0.5
# Warn where more of the training transcripts than this have too few patches of a usual size.
_FEW_STEPS, _USUAL_PATCH = 0.02, 4


@dataclass(frozen=True, slots=True)
class TranscriptionOptions(FrontEnd):
    """The front end, and how transcripts become tokens and back.

    Recordings of more than ``duration_s`` are refused. ``beam_size`` is that of the search over
    texts, 1 is greedy. The part of a file name before ``speaker_before`` names the speaker.

    Raises:
        ValueError: a field is not allowed.
    """

    duration_s: float = 10.0
    tokens: SpeechTokens = "character"
    max_vocabulary: int = 500
    lowercase: bool = True
    metric: str = METRICS[0]
    beam_size: int = 1
    speaker_before: str | None = None

    def __post_init__(self) -> None:
        # Without arguments `super` names the class as it was before it had slots.
        super(TranscriptionOptions, self).__post_init__()
        if self.tokens not in _TOKENS:
            raise ValueError(f"tokens must be one of {', '.join(_TOKENS)}, got {self.tokens!r}")
        least = least_vocabulary("bpe") if self.tokens == "bpe" else 3
        check_whole_numbers(self, {"max_vocabulary": least, "beam_size": 1})
        if self.metric not in METRICS:
            raise ValueError(f"metric must be {' or '.join(METRICS)}, got {self.metric!r}")
        if not isinstance(self.lowercase, bool):
            raise ValueError(f"lowercase must be true or false, got {self.lowercase!r}")
        mark = self.speaker_before
        if mark is not None and not (isinstance(mark, str) and mark):
            raise ValueError(f"speaker_before must be a text, got {mark!r}")

    def front_end(self) -> FrontEnd:
        """The options of the spectra alone."""
        return FrontEnd(**{field.name: getattr(self, field.name) for field in fields(FrontEnd)})

    def encoder(self, texts: Sequence[str]) -> TextEncoder:
        """Learn an encoder from ``texts`` of the training split."""
        if self.tokens == "character":
            return learn_characters(texts, _LONGEST_TRANSCRIPT, self.max_vocabulary)
        return learn_tokenizer(
            "bpe",
            texts,
            _LONGEST_TRANSCRIPT,
            max_vocabulary=self.max_vocabulary,
            lowercase=False,
        )


class Transcription(RowTask[Utterance]):
    """Recordings and their transcripts."""

    kind = "transcription"
    noun = "recordings"
    by_content = False
    options_type = TranscriptionOptions
    not_cached = ("metric", "beam_size")
    endings = TABLES
    has_parts = True
    keys = (*COLUMNS, "columns")
    column_keys = COLUMNS
    options: TranscriptionOptions

    def __init__(self, name: str, sources: Sources, options: TranscriptionOptions) -> None:
        """Read nothing yet; raises ``ValueError`` without the package of the metric."""
        check_installed()
        super().__init__(name, sources, options)
        self.metric = get_metric(options.metric)
        self.utterances = Utterances(options.front_end())

    def workload(self, batch_size: int) -> Workload:
        """Spectra into tokens and the blank, priced per second of audio."""
        utterances = self.utterances
        return Workload(
            self.name,
            "transcription",
            (1, self.options.n_mels, utterances.n_frames),
            self.about()["vocab_size"],
            batch_size,
            duration_s=utterances.duration_s,
        )

    @cached_property
    def objective(self) -> TranscriptionObjective:
        """CTC, and the error rate of decoded texts."""
        encoder = TextEncoder.from_json(
            self.cache.text(TOKENIZER), _LONGEST_TRANSCRIPT, shift=0, where="the tokenizer"
        )
        return TranscriptionObjective(
            CachedTexts(self.cache, _REFERENCES),
            encoder.decode_rows,
            metric=self.metric.key,
            beam_size=self.options.beam_size,
        )

    def rows(self, source: Any, problems: Problems) -> Iterable[Utterance]:
        """See ``RowTask.rows``."""
        for row in read_utterances(source, self.sources.columns, problems):
            text = str(row.label)
            yield row._replace(label=text.lower() if self.options.lowercase else text)

    def digest(self, row: Utterance) -> bytes:
        """Hash of the recording's bytes."""
        with Path(row.text).open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").digest()

    def split_digest(self, row: Utterance) -> bytes:
        """Hash of the speaker if file names have one, else of the transcript."""
        mark, name = self.options.speaker_before, Path(row.text).name
        if mark and mark in name:
            return hashlib.sha256(name.partition(mark)[0].encode()).digest()
        return text_digest(str(row.label))

    def files(self) -> list[Path]:
        """Return the tables or folders' files, and the recordings that tables name."""
        files = super().files()
        problems = Problems()
        for source in self.sources.by_split.values():
            if isinstance(source, Path) and source.is_file():
                # Rows with errors are reported when all is read.
                rows = read_utterances(source, self.sources.columns, problems)
                files += [Path(row.text) for row in rows]
        return [path for path in files if path.is_file()]

    def write(self, rows: Rows[Utterance], folder: Path, problems: Problems) -> dict[str, Any]:
        """See ``FileTask.write``; the last target of a row is the index of its reference."""
        values = {split: self._values(rows[split], folder / f"{split}.values", problems) for
                  split in SPLITS}  # fmt: skip
        problems.check()
        encoder = self.options.encoder([str(row.label) for row in rows["train"]])
        mean_M, deviation_M = values["train"].scale()
        references: list[str] = []
        about: dict[str, Any] = {}
        for split in SPLITS:
            texts = [str(row.label) for row in rows[split]]
            inputs_N = np.lib.format.open_memmap(
                folder / f"{split}.inputs.npy",
                "w+",
                np.float32,
                (len(texts), 1, self.options.n_mels, self.utterances.n_frames),
            )
            for row, values_MT in enumerate(values[split]):
                inputs_N[row] = self.utterances.padded(values_MT, mean_M, deviation_M)
            inputs_N.flush()
            tokens = [tokens_T.tolist() for tokens_T, _ in encoder.encode_whole(texts)]
            if split == "train":
                about |= self._lengths(values[split], tokens)
            longest = max([1, *map(len, tokens)])
            targets = np.zeros((len(texts), longest + 1), np.int64)
            for row, one in enumerate(tokens):
                targets[row, : len(one)] = one
            targets[:, -1] = np.arange(len(references), len(references) + len(texts))
            np.save(folder / f"{split}.targets.npy", targets)
            references += texts
            values[split].close()
        (folder / TOKENIZER).write_text(encoder.to_json(), encoding="utf-8")
        write_texts(references, folder, _REFERENCES)
        labels = {split: [str(row.label) for row in rows[split]] for split in SPLITS}
        return {
            **about,
            "vocab_size": encoder.vocab_size,
            "mean": mean_M.tolist(),
            "deviation": deviation_M.tolist(),
            "repeats": self.repeats(rows, labels),
            "seconds": {split: values[split].seconds for split in SPLITS},
        }

    def _values(self, rows: Sequence[Utterance], path: Path, problems: Problems) -> _Values:
        values = _Values(path, self.options.n_mels)
        for row in rows:
            try:
                values.add(*self.utterances.read(Path(row.text)))
            except ValueError as error:
                where = row.place if row.place == row.text else f"{row.place} {row.text}"
                problems.add(f"{where} {error}")
        return values

    def _lengths(self, values: _Values, tokens: Sequence[list[int]]) -> dict[str, Any]:
        needed = np.array([steps_needed(one) for one in tokens])
        frames = np.array(values.lengths)
        short = float((frames < _USUAL_PATCH * needed).mean())
        # The largest patch with which nearly all transcripts can be written.
        patch = math.floor(np.quantile(frames / np.maximum(1, needed), _FEW_STEPS))
        summary = summary_of(
            np.array(values.durations_s),
            self.utterances.duration_s,
            key="duration_s",
            what="training recordings",
            many_cut=1.0,
            unit="s",
            step=_STEP_S,
        )
        return {"lengths": [summary], "short": short, "patch": max(1, patch)}

    def warnings(self) -> list[str]:
        """Add a warning of transcripts that are too long for the frames of their recording."""
        lines, about = super().warnings(), self.about()
        if about["short"] > _FEW_STEPS:
            lines.append(
                f"steps: {about['short']:.0%} of the training transcripts have more tokens than "
                f"their recordings have patches of {_USUAL_PATCH} frames, and CTC cannot write "
                f"them: a patch_size of at most {about['patch']} in the space, a smaller hop_ms "
                f"or tokens: bpe can"
            )
        return lines

    def measured_inputs(self, batch_size: int) -> NDArray[np.float32]:
        """Training recordings one after another, so that inputs are full of sound."""
        split = self.split("train").inputs
        full = np.zeros((batch_size, *split.shape[1:]), np.float32)
        row, at, n_frames = 0, 0, split.shape[-1]
        while row < batch_size:
            for values_CMF in split:
                values_MT = values_CMF[0, :, (values_CMF[0] != 0).any(axis=0)].T
                start = 0
                while start < values_MT.shape[1] and row < batch_size:
                    n = min(n_frames - at, values_MT.shape[1] - start)
                    full[row, 0, :, at : at + n] = values_MT[:, start : start + n]
                    start, at = start + n, at + n
                    if at == n_frames:
                        row, at = row + 1, 0
        return full

    def artifact_files(self) -> dict[str, str]:
        """The tokenizer, and how files become inputs."""
        about, options = self.about(), self.options
        made_of = {
            "what": self.noun,
            "front_end": asdict(options.front_end()),
            "padding": "zeros",
            "beam_size": options.beam_size,
        }
        preprocessing = {
            "mean": about["mean"],
            "deviation": about["deviation"],
            "axis": 1,
            "of": made_of,
        }
        return {
            TOKENIZER: self.cache.text(TOKENIZER),
            PREPROCESSING: json.dumps(preprocessing, indent=2),
        }


class _Values:
    """Spectra ``(M, T)`` of the recordings of a split, one after another in a file."""

    def __init__(self, path: Path, n_mels: int) -> None:
        """Write into ``path``."""
        self._path, self._n_mels = path, n_mels
        self._handle = path.open("wb")
        self._sums = np.zeros((2, n_mels))
        self.lengths: list[int] = []
        self.durations_s: list[float] = []

    def add(self, values_MT: NDArray[np.float32], duration_s: float) -> None:
        """Append the spectra of a recording."""
        self._handle.write(np.ascontiguousarray(values_MT.T).tobytes())
        wide = values_MT.astype(np.float64)
        self._sums += [wide.sum(axis=1), (wide**2).sum(axis=1)]
        self.lengths.append(values_MT.shape[1])
        self.durations_s.append(duration_s)

    def scale(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of each band ``(M,)``; a constant band is not divided."""
        mean_M, square_M = self._sums / max(1, sum(self.lengths))
        deviation_M = np.sqrt(np.maximum(square_M - mean_M**2, 0.0))
        return mean_M, np.where(deviation_M > 1e-6, deviation_M, 1.0)

    def __iter__(self) -> Any:
        """Iterate over the recordings in order."""
        self._handle.flush()
        with self._path.open("rb") as handle:
            for length in self.lengths:
                raw = np.frombuffer(handle.read(4 * length * self._n_mels), np.float32)
                yield raw.reshape(length, self._n_mels).T

    @property
    def seconds(self) -> float:
        """Seconds of all recordings."""
        return float(sum(self.durations_s))

    def close(self) -> None:
        """Remove the file."""
        self._handle.close()
        self._path.unlink()
