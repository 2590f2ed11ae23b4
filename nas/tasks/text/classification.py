"""Text classification from a user's tables: CSV, TSV, JSONL, Parquet, or lines of label and text.

Labels and vocabulary come from the training split alone. See ``docs/data.md`` for the task file
and ``nas.tasks.base.tables`` for the tables.

Shape legend: N texts, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nas.tasks.base import SPLITS, SplitName
from nas.tasks.base.artifact_files import LABELS, TOKENIZER
from nas.tasks.base.columns import COLUMN_KEYS
from nas.tasks.base.file_task import Rows, RowTask
from nas.tasks.base.labels import encode_labels
from nas.tasks.base.lengths import summary_of
from nas.tasks.base.problems import Problems
from nas.tasks.base.splits import text_digest
from nas.tasks.base.tables import TABLES, Row, read_rows
from nas.tasks.base.task_file import check_whole_numbers
from nas.tasks.text.token_task import TokenTask
from nas.tasks.text.tokenize import (
    TOKENS,
    UNKNOWN_TOKEN,
    TextEncoder,
    Tokens,
    check_numbers_kept,
    check_tokens_fit,
    learn_tokenizer,
    least_vocabulary,
    read_tokenizer,
)
from search_spaces.workload import PADDING_TOKEN, Workload

# Warn of larger shares of cut texts and of unknown words.
_MANY_CUT, _MANY_UNKNOWN = 0.2, 0.15


@dataclass(frozen=True, slots=True)
class TextOptions:
    """Options of tokens in a task file.

    Texts are cut after ``sequence_length`` tokens, shorter ones padded. ``max_vocabulary`` limits
    words or byte pairs, padding and unknown included; words are compared by their first
    ``word_letters``. ``lowercase`` of ``None`` keeps capitals for bytes alone. ``tokenizer`` is
    the path of a ``tokenizer.json`` that replaces all of these. With ``padding_token``, one of its
    numbers, tokens keep their numbers, as a pretrained network has them; ``vocab_size`` is then
    that of the network's embedding, by default the tokenizer's.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    sequence_length: int = 40
    tokens: Tokens = "word"
    max_vocabulary: int = 5000
    lowercase: bool | None = None
    tokenizer: Path | None = None
    word_letters: int | None = None
    padding_token: int | None = None
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        if self.tokens not in TOKENS:
            raise ValueError(f"tokens must be one of {', '.join(TOKENS)}, got {self.tokens!r}")
        if self.lowercase is not None and not isinstance(self.lowercase, bool):
            raise ValueError(f"lowercase must be true or false, got {self.lowercase!r}")
        least = 3 if self.tokens == "byte" else least_vocabulary(self.tokens)
        whole = {"sequence_length": 1, "max_vocabulary": least}
        if self.word_letters is not None:
            whole["word_letters"] = 1
            if self.tokens != "word":
                raise ValueError(f"word_letters must have tokens: word, got {self.tokens}")
        check_whole_numbers(self, whole)
        check_numbers_kept(self)

    def encoder(self, texts: Sequence[str]) -> TextEncoder:
        """Learn an encoder from ``texts`` of the training split, or read the user's."""
        if self.tokenizer is not None:
            if self.padding_token is None:
                return read_tokenizer(self.tokenizer, self.sequence_length)
            encoder = read_tokenizer(self.tokenizer, self.sequence_length, shift=0)
            check_tokens_fit(encoder, self.vocab_size, self.tokenizer)
            return replace(encoder, padding_token=self.padding_token)
        return learn_tokenizer(
            self.tokens,
            texts,
            self.sequence_length,
            max_vocabulary=self.max_vocabulary,
            lowercase=self.tokens != "byte" if self.lowercase is None else self.lowercase,
            word_letters=self.word_letters,
        )


class TextClassification(TokenTask[Row], RowTask[Row]):
    """Texts into the classes of the training split."""

    kind = "text_classification"
    noun = "texts"
    options_type = TextOptions
    keys = COLUMN_KEYS
    column_keys = ("text", "label")
    endings = (*TABLES, ".txt")
    options: TextOptions

    def workload(self, batch_size: int) -> Workload:
        """Sequences of tokens into the classes of the training split."""
        about = self.about()
        return Workload(
            self.name,
            "text_classification",
            (self.options.sequence_length,),
            len(about["classes"]),
            batch_size,
            vocab_size=about["vocab_size"],
            padding_token=self.options.padding_token or PADDING_TOKEN,
        )

    def warnings(self) -> list[str]:
        """Also warn of many unknown words."""
        return [
            *super().warnings(),
            *(
                f"unknown: {share:.0%} of the {split} words are not in the vocabulary; "
                f"with tokens: bpe no word is unknown"
                for split, share in self.about()["unknown"].items()
                if share > _MANY_UNKNOWN
            ),
        ]

    def artifact_files(self) -> dict[str, str]:
        """The tokenizer and the labels."""
        about = self.about()
        labels: dict[str, Any] = {
            "labels": [str(label) for label in about["classes"]],
            "shift": about["shift"],
        }
        if not isinstance(self.sources.columns.text, str):
            columns = self.sources.columns
            labels |= {"texts": list(columns.texts), "separator": columns.separator}
        return {**super().artifact_files(), LABELS: json.dumps(labels)}

    def rows(self, source: Any, problems: Problems) -> Iterable[Row]:
        """See ``RowTask.rows``."""
        return read_rows(source, self.sources.columns, problems)

    def digest(self, row: Row) -> bytes:
        """See ``RowTask.digest``."""
        return text_digest(row.text)

    def write(self, rows: Rows[Row], folder: Path, problems: Problems) -> dict[str, Any]:
        """See ``FileTask.write``."""
        encoded = encode_labels(
            {split: [row.label for row in rows[split]] for split in SPLITS},
            {split: [row.place for row in rows[split]] for split in SPLITS},
            self.sources.training,
            problems,
        )
        problems.check()
        encoder = self.options.encoder([row.text for row in rows["train"]])
        unknown: dict[SplitName, float] = {}
        lengths: list[Mapping[str, Any]] = []
        for split in SPLITS:
            tokens_NT, lengths_N = encoder.encode_measured([row.text for row in rows[split]])
            np.save(folder / f"{split}.inputs.npy", tokens_NT)
            np.save(folder / f"{split}.targets.npy", encoded.targets(split))
            if split == "train":
                lengths = [
                    summary_of(
                        lengths_N,
                        self.options.sequence_length,
                        key="sequence_length",
                        what="training texts",
                        many_cut=_MANY_CUT,
                    )
                ]
            if self.options.tokenizer is None:
                n_used = max(1, (tokens_NT != PADDING_TOKEN).sum())
                unknown[split] = float((tokens_NT == UNKNOWN_TOKEN).sum() / n_used)
        (folder / TOKENIZER).write_text(encoder.to_json(), encoding="utf-8")
        return {
            **encoded.about(),
            "vocab_size": self.options.vocab_size or encoder.vocab_size,
            "shift": encoder.shift,
            "lengths": lengths,
            "unknown": unknown,
            "repeats": self.repeats(rows, encoded.labels),
        }
