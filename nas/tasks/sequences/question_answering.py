"""Extractive question answering: the span of a paragraph that answers a question.

A network reads words (lower case, punctuation apart) and scores each as the answer's first and its
last. The best span within the paragraph is the answer, evaluated as SQuAD does (Rajpurkar et al.
2016): without case, punctuation and articles, against the best of several answers. A question
whose answer is beyond ``sequence_length`` is not trained on, and counts in evaluation. See
``docs/data.md`` for the task file.

Shape legend: N questions, T words of a sample.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.tasks.base import SPLITS
from nas.tasks.base.artifact_files import VOCABULARY
from nas.tasks.base.cache import CachedTexts, write_texts
from nas.tasks.base.file_task import Rows, RowTask
from nas.tasks.base.lengths import summary_of
from nas.tasks.base.metric import get_metric
from nas.tasks.base.problems import Problems
from nas.tasks.base.sources import Sources
from nas.tasks.base.splits import text_digest
from nas.tasks.base.task_file import check_whole_numbers
from nas.tasks.sequences.spans import SpanExtraction, answer_span, words_of
from nas.tasks.sequences.squad import Question, question_of, read_squad
from search_spaces.workload import PADDING_TOKEN, SPAN_ENDS, Workload

_UNKNOWN, _MARK = PADDING_TOKEN + 1, PADDING_TOKEN + 2
_FIRST_WORD = _MARK + 1
# As in text classification: a word that occurs once generalises to nothing.
_MIN_COUNT = 2
_METRICS = ("f1", "exact_match")
# Warn of a larger share of answers out of reach, and of paragraphs that are cut.
_MANY_CUT, _MANY_FILLED = 0.05, 0.5
_QUESTIONS = "questions"


@dataclass(frozen=True, slots=True)
class QuestionOptions:
    """Options of a task file of kind ``question_answering``.

    ``sequence_length`` is in words: the question, a mark, and as much of the paragraph as fits.
    ``max_answer_words`` limits predicted answers.

    Raises:
        ValueError: a field is not allowed.
    """

    sequence_length: int = 128
    max_vocabulary: int = 10_000
    max_answer_words: int = 16
    metric: str = "f1"

    def __post_init__(self) -> None:
        least = {"sequence_length": 4, "max_vocabulary": _FIRST_WORD + 1, "max_answer_words": 1}
        check_whole_numbers(self, least)
        if self.metric not in _METRICS:
            raise ValueError(f"metric must be {' or '.join(_METRICS)}, got {self.metric!r}")


class QuestionAnswering(RowTask[Question]):
    """Questions on paragraphs; targets are ``(N, 5)``, as ``SpanExtraction`` reads them."""

    kind = "question_answering"
    noun = "questions"
    options_type = QuestionOptions
    not_cached = ("metric", "max_answer_words")
    endings = (".json",)
    options: QuestionOptions

    def __init__(self, name: str, sources: Sources, options: QuestionOptions) -> None:
        """Read nothing yet."""
        super().__init__(name, sources, options)
        self.metric = get_metric(options.metric)

    def workload(self, batch_size: int) -> Workload:
        """Words into two scores of each."""
        return Workload(
            self.name,
            "question_answering",
            (self.options.sequence_length,),
            SPAN_ENDS,
            batch_size,
            vocab_size=self.about()["vocab_size"],
        )

    @cached_property
    def objective(self) -> SpanExtraction:
        """Cross-entropy of both ends, and SQuAD's measures."""
        texts = CachedTexts(self.cache, _QUESTIONS)
        return SpanExtraction(
            lambda index: question_of(texts[index]),
            max_words=self.options.max_answer_words,
            metric=self.options.metric,
        )

    def warnings(self) -> list[str]:
        """Also warn of many answers that are out of reach."""
        about = self.about()
        return [
            *(
                f"cut: {n / about['samples'][split]:.0%} of the {split} answers lie beyond "
                f"sequence_length ({self.options.sequence_length} words)"
                for split, n in about["beyond_reach"].items()
                if n > _MANY_CUT * about["samples"][split]
            ),
            *super().warnings(),
        ]

    def artifact_files(self) -> dict[str, str]:
        """The words, and how a sample is made of them."""
        return {VOCABULARY: self.cache.text(VOCABULARY)}

    def rows(self, source: Any, problems: Problems) -> Iterable[Question]:
        """See ``RowTask.rows``."""
        return read_squad(source, problems)

    def split_digest(self, row: Question) -> bytes:
        """Return the hash of the paragraph: one question on it may answer another."""
        return hashlib.sha256(row.context.encode()).digest()

    def digest(self, row: Question) -> bytes:
        """Return the hash of question and paragraph."""
        # Neither text has this character, so that no other pair joins to the same text.
        return text_digest(f"{row.text}\0{row.context}")

    def write(self, rows: Rows[Question], folder: Path, problems: Problems) -> dict[str, Any]:
        """See ``FileTask.write``."""
        problems.check()
        length = self.options.sequence_length
        vocabulary = _vocabulary(rows["train"], self.options.max_vocabulary)
        beyond_reach: dict[str, int] = {}
        questions: list[Question] = []
        for split in SPLITS:
            samples = [_encoded(question, vocabulary, length) for question in rows[split]]
            ends = np.array([ends for _, ends in samples], dtype=np.int64)
            # The last target is the index of the question.
            indices = np.arange(len(questions), len(questions) + len(samples))
            np.save(folder / f"{split}.inputs.npy", np.stack([tokens for tokens, _ in samples]))
            np.save(folder / f"{split}.targets.npy", np.column_stack([ends, indices]))
            beyond_reach[split] = int((ends[:, 0] < 0).sum())
            questions += rows[split]
        if beyond_reach["train"] == len(rows["train"]):
            raise ValueError(
                f"sequence_length must reach an answer of the training split, got {length}"
            )
        write_texts([json.dumps(asdict(q)) for q in questions], folder, _QUESTIONS)
        artifact = {
            "words": list(vocabulary),
            "first": _FIRST_WORD,
            "padding": PADDING_TOKEN,
            "unknown": _UNKNOWN,
            "mark": _MARK,
            "of": "words in lower case, punctuation apart: a question, the mark, its paragraph",
        }
        text = json.dumps(artifact, ensure_ascii=False)
        (folder / VOCABULARY).write_text(text, encoding="utf-8")
        answers = {split: [sorted(set(q.answers)) for q in rows[split]] for split in SPLITS}
        return {
            "vocab_size": _FIRST_WORD + len(vocabulary),
            "beyond_reach": beyond_reach,
            "lengths": [
                summary_of(
                    np.array([_n_words(question, length) for question in rows["train"]]),
                    length,
                    key="sequence_length",
                    what="training questions",
                    many_cut=_MANY_FILLED,
                    unit="words",
                )
            ],
            "repeats": self.repeats(rows, answers),
        }


def _n_words(question: Question, length: int) -> int:
    """Number of words of a sample with the whole paragraph."""
    n_asked = min(len(words_of(question.text)), length // 2)
    return n_asked + 1 + len(words_of(question.context))


def _vocabulary(questions: Sequence[Question], most: int) -> dict[str, int]:
    """Number the most frequent words; ties are in alphabetical order, so that runs agree."""
    texts = [q.text for q in questions] + sorted({q.context for q in questions})
    counts = Counter(text[a:b].lower() for text in texts for a, b in words_of(text))
    frequent = [word for word in counts if counts[word] >= _MIN_COUNT]
    frequent.sort(key=lambda word: (-counts[word], word))
    return {word: _FIRST_WORD + i for i, word in enumerate(frequent[: most - _FIRST_WORD])}


def _encoded(
    question: Question, vocabulary: Mapping[str, int], length: int
) -> tuple[NDArray[np.int64], tuple[int, int, int, int]]:
    """Encode a sample; also return the ends of the answer and of the paragraph."""

    def tokens(text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
        return [vocabulary.get(text[a:b].lower(), _UNKNOWN) for a, b in spans]

    # A very long question is cut, to leave room for the paragraph.
    question_tokens = tokens(question.text, words_of(question.text)[: length // 2])
    first = len(question_tokens) + 1
    spans = words_of(question.context)[: length - first]
    row = [*question_tokens, _MARK, *tokens(question.context, spans)]
    row_T = np.full(length, PADDING_TOKEN, dtype=np.int64)
    row_T[: len(row)] = row
    span = answer_span(spans, *question.answer_at)
    ends = (-1, -1) if span is None else (first + span[0], first + span[1])
    return row_T, (*ends, first, len(row))
