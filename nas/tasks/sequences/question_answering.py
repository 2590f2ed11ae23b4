"""Extractive question answering: where in a paragraph the answer to a question stands.

A task is a YAML file::

    name: facts
    kind: question_answering
    train: train.json        # in SQuAD's format, version 1.1; or data, of all splits
    validation: dev.json     # a split that is not named is held out, by whole paragraphs
    sequence_length: 128     # the question, a mark, and as much of the paragraph as fits
    max_vocabulary: 10000    # words of the training split; padding, unknown and the mark included
    max_answer_words: 16     # of an answer that is given; targets may be longer
    metric: f1               # or exact_match

A network reads words (lower case, punctuation apart) and scores each as the answer's first and its
last. The best span within the paragraph is the answer, judged as SQuAD does (Rajpurkar et al.
2016): case, punctuation and articles do not count, and the best of several right answers does.
A question whose answer lies beyond ``sequence_length`` is not learnt from, and counts as any other
where networks are judged.

Shape legend: N questions, T words of a sample.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.tasks.base import SPLITS, Split, SplitName, check_split_name
from nas.tasks.base.carried import VOCABULARY
from nas.tasks.base.kept import Kept, keep, key_of
from nas.tasks.base.lengths import length_notes, summary_of
from nas.tasks.base.metric import Metric, get_metric
from nas.tasks.base.prepared import check_name
from nas.tasks.base.problems import Problems
from nas.tasks.base.samples import SOURCE_KEYS, Sample, Sources
from nas.tasks.base.splits import repeats, text_digest
from nas.tasks.base.task_file import TaskFile
from nas.tasks.sequences.kept_questions import KeptQuestions, write_questions
from nas.tasks.sequences.spans import SpanExtraction, answer_span, words_of
from nas.tasks.sequences.squad import Question, read_squad
from search_spaces.workload import PADDING_TOKEN, SPAN_ENDS, Workload

if TYPE_CHECKING:
    from collections.abc import Iterable

_UNKNOWN, _MARK = PADDING_TOKEN + 1, PADDING_TOKEN + 2
_FIRST_WORD = _MARK + 1
# As in text classification: a word seen once teaches nothing that holds elsewhere.
_MIN_COUNT = 2
_METRICS = ("f1", "exact_match")
# A share of answers out of reach that is worth a warning.
_MANY_CUT = 0.05
# And of paragraphs that are cut, whose answers are mostly within reach.
_MANY_FILLED = 0.5
# Of what is kept: another number where the same files would give other arrays.
_FORM = 3


@dataclass(frozen=True)
class QuestionFiles:
    """Where the questions of a task are and how they are read; see the module's description.

    Raises:
        ValueError: a field is not what it must be.
    """

    name: str
    sources: Sources
    sequence_length: int = 128
    max_vocabulary: int = 10_000
    max_answer_words: int = 16
    metric: str = "f1"

    def __post_init__(self) -> None:
        """Validate every field."""
        check_name(self.name)
        least = {"sequence_length": 4, "max_vocabulary": _FIRST_WORD + 1, "max_answer_words": 1}
        for name, lowest in least.items():
            value = getattr(self, name)
            if type(value) is not int or value < lowest:
                raise ValueError(f"{name} must be an integer >= {lowest}, got {value!r}")
        if self.metric not in _METRICS:
            raise ValueError(f"metric must be {' or '.join(_METRICS)}, got {self.metric!r}")


class QuestionAnswering:
    """A ``Task`` over ``QuestionFiles``."""

    def __init__(self, files: QuestionFiles) -> None:
        """Nothing is read yet."""
        self._files = files
        self.name = files.name
        self.metric: Metric = get_metric(files.metric)

    @classmethod
    def from_file(cls, file: TaskFile) -> QuestionAnswering:
        """The task that a user's file of kind ``question_answering`` describes.

        Raises:
            ValueError: a key is missing, unknown, or its value not allowed.
        """
        own = ("sequence_length", "max_vocabulary", "max_answer_words", "metric")
        file.check_keys(allowed=("name", *SOURCE_KEYS, *own), required=("name",))
        sources = Sources.from_file(file, files=(".json",))
        for split, path in sources.given.items():
            if not isinstance(path, Path):
                raise ValueError(f"{split} must be a path, got {path!r}")
        options = file.given(own)
        return cls(QuestionFiles(file.options["name"], sources, **options))

    def workload(self, batch_size: int) -> Workload:
        """Words in, two scores of each of them out."""
        return Workload(
            self.name,
            "question_answering",
            (self._files.sequence_length,),
            SPAN_ENDS,
            batch_size,
            vocab_size=self.about()["vocab_size"],
        )

    def split(self, name: SplitName) -> Split:
        """One split; targets are ``(N, 5)``, as ``SpanExtraction`` reads them."""
        check_split_name(name)
        return Split(self._kept.array(f"{name}.inputs"), self._kept.array(f"{name}.targets"))

    @cached_property
    def objective(self) -> SpanExtraction:
        """What networks are trained for and judged by."""
        return SpanExtraction(
            KeptQuestions(self._kept),
            max_words=self._files.max_answer_words,
            judged_by=_METRICS.index(self._files.metric),
        )

    def about(self) -> Mapping[str, Any]:
        """Questions of each split, how many answers lie beyond reach, and what repeats.

        A question repeats another where its words and its paragraph's are the same.

        Raises:
            DataError: the data are not what they must be; all that is wrong is in it.
        """
        return self._kept.about

    def warnings(self) -> list[str]:
        """What is allowed but seldom meant; see ``nas.tasks.base.checks``."""
        about, length = self.about(), self._files.sequence_length
        beyond = [
            f"cut: {n / about['samples'][name]:.0%} of the {name} answers lie beyond "
            f"sequence_length ({self._files.sequence_length} words)"
            for name, n in about["beyond_reach"].items()
            if n > _MANY_CUT * about["samples"][name]
        ]
        padding = length_notes(
            about["lengths"],
            "sequence_length",
            length,
            what="training questions",
            unit="words",
            many_cut=_MANY_FILLED,
        )
        return [*beyond, *padding]

    def notes(self) -> list[str]:
        """See ``nas.tasks.base.checks``."""
        return list(self._files.sources.notes)

    def carried(self) -> dict[str, str]:
        """The words, and how a sample is made of them; see ``nas.tasks.base.carried``."""
        return {VOCABULARY: (self._kept.folder / VOCABULARY).read_text(encoding="utf-8")}

    @cached_property
    def _kept(self) -> Kept:
        files, sources = self._files, self._files.sources
        # Of the rest arrays do not depend; questions are named by paths.
        what = {
            "form": _FORM,
            "questions": sources.given,
            "shares": [sources.validation_share, sources.test_share],
            "sequence_length": files.sequence_length,
            "max_vocabulary": files.max_vocabulary,
        }
        try:
            key = key_of(what, sources.given.values(), by_content=True)
        except ValueError:
            # A file is gone: all that are shall be said, with what is wrong in the others.
            self._chosen()
            raise
        return keep(key, self._make)

    def _chosen(self) -> dict[SplitName, list[Question]]:
        """The questions of each split.

        Raises:
            DataError: they are not what they must be; all that is wrong is in it.
        """
        problems, sources = Problems(), self._files.sources
        chosen: dict[SplitName, list[Question]] = {split: [] for split in SPLITS}
        for asked, path in sources.given.items():
            for question in read_squad(path, problems):
                # By its paragraph: what one question tells of it must not help with another.
                sample = Sample(question.where, "", lambda: None, question.context)
                chosen[sources.split_of(asked, sample, b"")].append(question)
        for split, found in chosen.items():
            if not found and not problems:
                problems.add(f"the {split} split must have questions, and has none")
        problems.check()
        return chosen

    def _make(self, folder: Path) -> Mapping[str, Any]:
        length, chosen = self._files.sequence_length, self._chosen()
        vocabulary = _vocabulary(chosen["train"], self._files.max_vocabulary)
        everything: list[Question] = []
        beyond_reach: dict[str, int] = {}
        for split in SPLITS:
            rows = [_encoded(q, vocabulary, length) for q in chosen[split]]
            ends = np.array([ends for _, ends in rows], dtype=np.int64)
            # Each target ends with its question's place.
            numbers = np.arange(len(everything), len(everything) + len(rows))
            np.save(folder / f"{split}.inputs.npy", np.stack([tokens for tokens, _ in rows]))
            np.save(folder / f"{split}.targets.npy", np.column_stack([ends, numbers]))
            beyond_reach[split] = int((ends[:, 0] < 0).sum())
            everything += chosen[split]
        if beyond_reach["train"] == len(chosen["train"]):
            raise ValueError(
                f"sequence_length must reach an answer of the training split, got {length}"
            )
        write_questions(everything, folder)
        carried = {
            "words": list(vocabulary),
            "first": _FIRST_WORD,
            "padding": PADDING_TOKEN,
            "unknown": _UNKNOWN,
            "mark": _MARK,
            "of": "words in lower case, punctuation apart: a question, the mark, its paragraph",
        }
        text = json.dumps(carried, ensure_ascii=False)
        (folder / VOCABULARY).write_text(text, encoding="utf-8")
        return {
            "vocab_size": _FIRST_WORD + len(vocabulary),
            "samples": {name: len(found) for name, found in chosen.items()},
            "beyond_reach": beyond_reach,
            "lengths": summary_of(
                np.array([_n_words(question, length) for question in chosen["train"]]), length
            ),
            "repeats": repeats(
                {name: [_digest(q) for q in found] for name, found in chosen.items()},
                {name: [sorted(set(q.answers)) for q in found] for name, found in chosen.items()},
                {name: [q.where for q in found] for name, found in chosen.items()},
            ),
        }


def _digest(question: Question) -> bytes:
    # Neither text has this character, so that two pairs that differ are never joined to one text.
    return text_digest(f"{question.text}\0{question.context}")


def _n_words(question: Question, length: int) -> int:
    """Words of a sample with the whole paragraph."""
    asked = min(len(words_of(question.text)), length // 2)
    return asked + 1 + len(words_of(question.context))


def _vocabulary(questions: Iterable[Question], most: int) -> dict[str, int]:
    """Tokens of the most frequent words; ties go by the alphabet, so that runs agree."""
    questions = list(questions)
    texts = [q.text for q in questions] + sorted({q.context for q in questions})
    counts = Counter(text[a:b].lower() for text in texts for a, b in words_of(text))
    frequent = [word for word in counts if counts[word] >= _MIN_COUNT]
    frequent.sort(key=lambda word: (-counts[word], word))
    return {word: _FIRST_WORD + i for i, word in enumerate(frequent[: most - _FIRST_WORD])}


def _encoded(
    question: Question, vocabulary: Mapping[str, int], length: int
) -> tuple[NDArray[np.int64], tuple[int, int, int, int]]:
    """Words of a sample; where the answer begins and ends, and the paragraph begins and ends."""

    def tokens(text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
        return [vocabulary.get(text[a:b].lower(), _UNKNOWN) for a, b in spans]

    # Of a very long question the beginning, so that there is room for the paragraph.
    asked = tokens(question.text, words_of(question.text)[: length // 2])
    first = len(asked) + 1
    spans = words_of(question.context)[: length - first]
    row = [*asked, _MARK, *tokens(question.context, spans)]
    row_T = np.full(length, PADDING_TOKEN, dtype=np.int64)
    row_T[: len(row)] = row
    found = answer_span(spans, *question.answer_at)
    ends = (-1, -1) if found is None else (first + found[0], first + found[1])
    return row_T, (*ends, first, len(row))
