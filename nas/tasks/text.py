"""Text classification from files of a label and a text a line.

A task is a YAML file::

    name: sentiment
    kind: text_classification   # may be left out
    train: train.txt            # paths are relative to the YAML file
    validation: dev.txt
    test: test.txt
    sequence_length: 40         # longer texts are cut, shorter ones padded
    tokens: word                # or byte
    max_vocabulary: 5000        # words only, padding and unknown included

A line is ``label text`` or ``label<TAB>text``; empty lines are skipped. Labels and vocabulary come
from the training split alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from nas.tasks.base import SPLITS, Split, SplitName, check_split_name
from nas.tasks.task_file import TaskFile
from search_spaces.workload import PADDING_TOKEN, Workload

Tokens = Literal["word", "byte"]
# Of tokens in a text, and of words: more would take memory that no text of a user's fills.
_LARGEST = 2**24
_UNKNOWN_TOKEN = PADDING_TOKEN + 1
# A word seen once is left unknown: it teaches nothing that holds elsewhere, and the unknown
# token must itself be seen in training.
_MIN_COUNT = 2


@dataclass(frozen=True, slots=True)
class TextFiles:
    """Where the texts of a task are and how they become tokens; see the module's description.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    name: str
    train: Path
    validation: Path
    test: Path
    sequence_length: int = 40
    tokens: Tokens = "word"
    max_vocabulary: int = 5000

    def __post_init__(self) -> None:
        """Validate every field."""
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be a non-empty string, got {self.name!r}")
        for name, least in (("sequence_length", 1), ("max_vocabulary", 3)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
            if value > _LARGEST:
                raise ValueError(f"{name} must be at most {_LARGEST}, got {value!r}")
        if self.tokens not in get_args(Tokens):
            allowed = " or ".join(get_args(Tokens))
            raise ValueError(f"tokens must be {allowed}, got {self.tokens!r}")


class TextClassification:
    """A ``Task`` over ``TextFiles``."""

    def __init__(self, files: TextFiles) -> None:
        """Nothing is read yet."""
        self._files = files
        self.name = files.name

    @classmethod
    def from_file(cls, file: TaskFile) -> TextClassification:
        """The task that a user's file describes.

        Raises:
            ValueError: a key is missing, unknown, or its value not allowed.
        """
        names = [f.name for f in fields(TextFiles)]
        file.check_keys(allowed=names, required=("name", *SPLITS))
        options: dict[str, Any] = dict(file.options)
        options.update((key, file.data_path(key)) for key in SPLITS)
        return cls(TextFiles(**options))

    def workload(self, batch_size: int) -> Workload:
        """Sequences of tokens into the classes of the training split."""
        read = _read(self._files)
        return Workload(
            self.name,
            "text_classification",
            (self._files.sequence_length,),
            len(read.labels),
            batch_size,
            vocab_size=read.vocab_size,
        )

    def split(self, name: SplitName) -> Split:
        """One split; see ``Task.split``."""
        check_split_name(name)
        return _read(self._files).splits[name]


@dataclass(frozen=True, slots=True)
class _Read:
    """The files as arrays."""

    splits: dict[SplitName, Split]
    labels: tuple[str, ...]
    vocab_size: int


@lru_cache(maxsize=4)
def _read(files: TextFiles) -> _Read:
    lines = {name: _read_lines(getattr(files, name)) for name in SPLITS}
    labels = tuple(sorted({line.label for line in lines["train"]}))
    if len(labels) < 2:
        raise ValueError(f"{files.train} must have two labels or more, got {labels}")
    position = {label: index for index, label in enumerate(labels)}
    if files.tokens == "word":
        vocabulary = _vocabulary([line.text for line in lines["train"]], files.max_vocabulary)
        vocab_size = _UNKNOWN_TOKEN + 1 + len(vocabulary)
    else:
        vocabulary, vocab_size = None, _UNKNOWN_TOKEN + 1 + 256
    splits: dict[SplitName, Split] = {}
    for name in SPLITS:
        tokens_NT = np.full((len(lines[name]), files.sequence_length), PADDING_TOKEN, np.int64)
        targets = np.empty(len(lines[name]), np.int64)
        for row, line in enumerate(lines[name]):
            if line.label not in position:
                raise ValueError(
                    f"{line.where} must have a label of the training split "
                    f"({', '.join(labels)}), got {line.label!r}"
                )
            targets[row] = position[line.label]
            found = _encode(line.text, vocabulary)[: files.sequence_length]
            tokens_NT[row, : len(found)] = found
        splits[name] = Split(tokens_NT, targets)
    return _Read(splits, labels, vocab_size)


@dataclass(frozen=True, slots=True)
class _Line:
    label: str
    text: str
    where: str


def _read_lines(path: Path) -> list[_Line]:
    try:
        raw = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"text file {path} must be readable: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"text file {path} must be UTF-8 text") from None
    lines = []
    # Only real line ends: texts may hold other characters that str.splitlines would cut at.
    for number, line in enumerate(raw.split("\n"), start=1):
        if not line.strip():
            continue
        parts = line.split(None, 1)
        if len(parts) != 2:
            raise ValueError(f"{path}:{number} must be a label and a text, got {line.strip()!r}")
        lines.append(_Line(parts[0], parts[1], f"{path}:{number}"))
    if not lines:
        raise ValueError(f"text file {path} must have a line `label text` or more, and has none")
    return lines


def _vocabulary(texts: list[str], max_vocabulary: int) -> dict[str, int]:
    """Tokens of the most frequent words; ties go by the alphabet, so that runs agree."""
    counts = Counter(word for text in texts for word in text.lower().split())
    frequent = [word for word in counts if counts[word] >= _MIN_COUNT]
    frequent.sort(key=lambda word: (-counts[word], word))
    first = _UNKNOWN_TOKEN + 1
    return {word: first + i for i, word in enumerate(frequent[: max_vocabulary - first])}


def _encode(text: str, vocabulary: dict[str, int] | None) -> list[int]:
    if vocabulary is None:
        return [byte + _UNKNOWN_TOKEN + 1 for byte in text.encode()]
    return [vocabulary.get(word, _UNKNOWN_TOKEN) for word in text.lower().split()]
