"""Base class of tasks that read a text and write another: translation, summarisation.

Both texts share one tokenizer, built from the training split or given by the user. The first of
``metrics`` is the default; see ``docs/translation.md`` for the task file.

Shape legend: N pairs, T tokens.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nas.tasks.base import SPLITS
from nas.tasks.base.artifact_files import TOKENIZER
from nas.tasks.base.cache import CachedTexts, write_texts
from nas.tasks.base.file_task import Rows, RowTask
from nas.tasks.base.lengths import summary_of
from nas.tasks.base.metric import get_metric
from nas.tasks.base.problems import Problems
from nas.tasks.base.sources import Sources
from nas.tasks.base.splits import text_digest
from nas.tasks.base.tables import TABLES
from nas.tasks.base.task_file import check_whole_numbers
from nas.tasks.sequences.pair_objective import PairObjective, TextScore
from nas.tasks.sequences.parallel import SIDES, Pair, read_pairs
from nas.tasks.text.token_task import TokenTask
from nas.tasks.text.tokenize import TextEncoder, learn_tokenizer, least_vocabulary, read_tokenizer
from search_spaces.workload import PADDING_TOKEN, Kind, Workload

_REFERENCES = "references"


@dataclass(frozen=True, slots=True)
class PairOptions:
    """Options of pairs in a task file.

    Inputs are cut after ``sequence_length`` tokens, targets after ``target_length``, their end
    included. ``max_vocabulary`` is of bytes and pairs of them, of both sides together.
    ``beam_size`` is the number of hypotheses that decoding keeps; 1 is greedy.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    sequence_length: int = 40
    target_length: int = 40
    max_vocabulary: int = 8000
    lowercase: bool = False
    tokenizer: Path | None = None
    metric: str | None = None
    beam_size: int = 1

    def __post_init__(self) -> None:
        least = {
            "sequence_length": 1,
            "target_length": 2,
            "max_vocabulary": least_vocabulary("bpe"),
            "beam_size": 1,
        }
        check_whole_numbers(self, least)
        if not isinstance(self.lowercase, bool):
            raise ValueError(f"lowercase must be true or false, got {self.lowercase!r}")

    def encoder(self, texts: Sequence[str]) -> TextEncoder:
        """Learn the encoder of both sides from ``texts``, or read the user's."""
        if self.tokenizer is not None:
            return read_tokenizer(self.tokenizer, self.sequence_length)
        return learn_tokenizer(
            "bpe",
            texts,
            self.sequence_length,
            max_vocabulary=self.max_vocabulary,
            lowercase=self.lowercase,
        )


class PairTask(TokenTask[Pair], RowTask[Pair]):
    """Texts and their targets, judged by ``metric`` over what a network writes."""

    noun = "pairs"
    options_type = PairOptions
    not_cached: ClassVar[Collection[str]] = ("metric", "beam_size")
    endings = TABLES
    has_parts = True
    keys = (*SIDES, "columns")
    column_keys = SIDES
    #: Keys of the metrics that the task file may choose.
    metrics: ClassVar[tuple[str, ...]]
    workload_kind: ClassVar[Kind]
    #: Warn where more than this share of the sources or targets is cut.
    many_cut: ClassVar[float] = 0.05
    options: PairOptions

    def __init__(self, name: str, sources: Sources, options: PairOptions) -> None:
        """Read nothing yet; raises ``ValueError`` for another metric."""
        super().__init__(name, sources, options)
        key = self.metrics[0] if options.metric is None else options.metric
        if key not in self.metrics:
            raise ValueError(f"metric must be {' or '.join(self.metrics)}, got {key!r}")
        self.metric = get_metric(key)

    def workload(self, batch_size: int) -> Workload:
        """Tokens into tokens, priced per output token."""
        vocab_size = self.about()["vocab_size"]
        return Workload(
            self.name,
            self.workload_kind,
            (self.options.sequence_length,),
            # One more is the end.
            vocab_size + 1,
            batch_size,
            vocab_size=vocab_size,
            target_length=self.options.target_length,
            beam_size=self.options.beam_size,
        )

    @abstractmethod
    def score(self) -> TextScore:
        """Return the score of what a network writes."""

    @cached_property
    def objective(self) -> PairObjective:
        """Cross-entropy of targets, and the score of what a network writes."""
        shift, tokenizer = self.about()["shift"], self.cache.text(TOKENIZER)
        return PairObjective(
            CachedTexts(self.cache, _REFERENCES),
            self._target_encoder(tokenizer, shift).decode_rows,
            end=self.about()["vocab_size"],
            score=self.score(),
        )

    def _target_encoder(self, tokenizer: str, shift: int) -> TextEncoder:
        length = self.options.target_length
        return TextEncoder.from_json(tokenizer, length, shift=shift, where="the tokenizer")

    def rows(self, source: Any, problems: Problems) -> Iterable[Pair]:
        """See ``RowTask.rows``."""
        return read_pairs(source, self.sources.columns, problems)

    def digest(self, row: Pair) -> bytes:
        """See ``RowTask.digest``."""
        return text_digest(row.text)

    def write(self, rows: Rows[Pair], folder: Path, problems: Problems) -> dict[str, Any]:
        """See ``FileTask.write``; the last target of a row is the index of its reference."""
        problems.check()
        encoder = self.options.encoder(
            [text for pair in rows["train"] for text in (pair.text, str(pair.label))]
        )
        tokenizer = encoder.to_json()
        target_encoder = self._target_encoder(tokenizer, encoder.shift)
        lengths: list[dict[str, Any]] = []
        references: list[str] = []
        for split in SPLITS:
            targets = [str(pair.label) for pair in rows[split]]
            inputs_NT, inputs_N = encoder.encode_measured([pair.text for pair in rows[split]])
            targets_NT, targets_N = target_encoder.encode_measured(targets)
            if split == "train":
                options = self.options
                lengths = [
                    summary_of(
                        lengths_N,
                        limit,
                        key=key,
                        what=f"training {side}s",
                        many_cut=self.many_cut,
                    )
                    # A target's end takes a place of its own.
                    for lengths_N, limit, key, side in (
                        (inputs_N, options.sequence_length, "sequence_length", SIDES[0]),
                        (targets_N + 1, options.target_length, "target_length", SIDES[1]),
                    )
                ]
            indices_N = np.arange(len(references), len(references) + len(targets))
            np.save(folder / f"{split}.inputs.npy", inputs_NT)
            ended_NT = _ended(targets_NT, encoder.vocab_size)
            np.save(folder / f"{split}.targets.npy", np.column_stack([ended_NT, indices_N]))
            references += targets
        (folder / TOKENIZER).write_text(tokenizer, encoding="utf-8")
        write_texts(references, folder, _REFERENCES)
        return {
            "vocab_size": encoder.vocab_size,
            "shift": encoder.shift,
            "lengths": lengths,
            # A text with two targets is no contradiction.
            "repeats": self.repeats(rows, {split: [0] * len(rows[split]) for split in SPLITS}),
        }


def _ended(tokens_NT: NDArray[np.int64], end: int) -> NDArray[np.int64]:
    """Add ``end`` after the tokens of each row; rows that were cut have no room for it."""
    lengths_N = (tokens_NT != PADDING_TOKEN).sum(axis=1)
    ended, rows = tokens_NT.copy(), np.flatnonzero(lengths_N < tokens_NT.shape[1])
    ended[rows, lengths_N[rows]] = end
    return ended
