"""Text classification from a user's tables: CSV, TSV, JSONL, Parquet, or lines of label and text.

A task is a YAML file::

    name: sentiment
    kind: text_classification   # may be left out
    train: train.csv            # paths are relative to the YAML file
    validation: dev.csv
    test: test.csv
    text: sentence              # column of texts (default: text), or [title, description]
    label: label                # column of labels
    columns: [label, sentence]  # of a CSV or TSV whose first line does not name them
    separator: " "              # between several columns of texts
    sequence_length: 40         # in tokens: longer texts are cut, shorter ones padded
    tokens: word                # or byte, or bpe
    max_vocabulary: 5000        # words or bpe, padding and unknown included
    word_letters: 7             # words are told apart by these first letters (default: by all)

A split that is not named is held out of ``train`` by a hash of each text (``validation_share``,
``test_share``), and ``data: reviews.csv`` instead of ``train`` says that all are. The same text is
then always in the same split. ``tokenizer: tokenizer.json`` brings a tokenizer of your own instead
of ``tokens``. Labels and vocabulary come from the training split alone. What is in a table's rows
is read by ``nas.tasks.base.tables``; arrays are made once and mapped (``nas.tasks.base.kept``).

Shape legend: N texts, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nas.tasks.base import SPLITS, Split, SplitName, check_split_name
from nas.tasks.base.carried import LABELS, TOKENIZER
from nas.tasks.base.columns import COLUMN_KEYS, Columns, columns_of
from nas.tasks.base.kept import Kept, keep, key_of
from nas.tasks.base.labels import like, similar
from nas.tasks.base.lengths import length_notes, summary_of
from nas.tasks.base.prepared import check_name
from nas.tasks.base.problems import Problems
from nas.tasks.base.samples import SOURCE_KEYS, Sources, classes_of
from nas.tasks.base.splits import class_counts, repeats, text_digest
from nas.tasks.base.tables import TABLES, Row, read_rows
from nas.tasks.base.task_file import TaskFile, check_whole_numbers
from nas.tasks.text.tokenize import (
    TOKENS,
    UNKNOWN_TOKEN,
    TextEncoder,
    Tokens,
    learn_tokenizer,
    least_vocabulary,
    read_tokenizer,
)
from search_spaces.workload import PADDING_TOKEN, Workload

# Cache version: raise it where the same files would give other arrays.
_FORM = 2
# Files that a folder of splits may hold.
_TABLES = (*TABLES, ".txt")
_MOST_SHOWN = 20
# Shares of texts and of words that are worth a warning.
_MANY_CUT, _MANY_UNKNOWN = 0.2, 0.15


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How texts become tokens; see the module's description.

    ``lowercase`` of ``None`` leaves capitals to bytes alone, where they cost no word.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    sequence_length: int = 40
    tokens: Tokens = "word"
    max_vocabulary: int = 5000
    lowercase: bool | None = None
    tokenizer: Path | None = None
    word_letters: int | None = None

    def __post_init__(self) -> None:
        """Validate every field."""
        if self.tokens not in TOKENS:
            allowed = ", ".join(TOKENS)
            raise ValueError(f"tokens must be one of {allowed}, got {self.tokens!r}")
        if self.lowercase is not None and not isinstance(self.lowercase, bool):
            raise ValueError(f"lowercase must be true or false, got {self.lowercase!r}")
        least = 3 if self.tokens == "byte" else least_vocabulary(self.tokens)
        whole = {"sequence_length": 1, "max_vocabulary": least}
        if self.word_letters is not None:
            whole["word_letters"] = 1
            if self.tokens != "word":
                raise ValueError(f"word_letters must have tokens: word, got {self.tokens}")
        check_whole_numbers(self, whole)

    @classmethod
    def from_file(cls, file: TaskFile) -> TextOptions:
        """Read the options of a task file; other keys are ignored.

        Raises:
            ValueError: a value is not allowed, or a tokenizer and how to learn one are both there.
        """
        learnt = ("tokens", "max_vocabulary", "lowercase", "word_letters")
        return cls(**file.given_with_tokenizer(OPTION_KEYS, learnt=learnt))

    @property
    def is_lowercase(self) -> bool:
        """Whether texts are lowercased."""
        return self.tokens != "byte" if self.lowercase is None else self.lowercase

    def encoder(self, texts: Sequence[str]) -> TextEncoder:
        """Encoder learnt from ``texts`` of the training split, or the user's own."""
        if self.tokenizer is not None:
            return read_tokenizer(self.tokenizer, self.sequence_length)
        return learn_tokenizer(
            self.tokens,
            texts,
            self.sequence_length,
            max_vocabulary=self.max_vocabulary,
            lowercase=self.is_lowercase,
            word_letters=self.word_letters,
        )


OPTION_KEYS = tuple(field.name for field in fields(TextOptions))


class TextSource(Protocol):
    """Where the rows of each split come from."""

    @property
    def sources(self) -> Sources:
        """What is read for each split, and the shares that are held out."""
        ...

    @property
    def columns(self) -> Columns:
        """The columns of texts and labels."""
        ...

    def key(self, options: Mapping[str, Any], files: Sequence[Path]) -> str:
        """A name for what is made of the rows by ``options`` and ``files``; see ``key_of``."""
        ...

    def rows(self, problems: Problems) -> dict[SplitName, list[Row]]:
        """The rows of each split; what is wrong with them is added to ``problems``."""
        ...


@dataclass(frozen=True, slots=True)
class TableSource:
    """Rows of files."""

    sources: Sources
    columns: Columns

    def key(self, options: Mapping[str, Any], files: Sequence[Path]) -> str:
        """See ``TextSource``."""
        sources = self.sources
        named = {split: str(path) for split, path in sources.given.items()}
        shares = [sources.validation_share, sources.test_share]
        # Rows are named by their paths, and how a file is read follows from its name.
        what = {**options, "given": named, "shares": shares, "columns": list(self.columns)}
        return key_of(what, [*sources.given.values(), *files], by_content=True)

    def rows(self, problems: Problems) -> dict[SplitName, list[Row]]:
        """See ``TextSource``."""
        given = {
            split: read_rows(path, self.columns, problems)
            for split, path in self.sources.given.items()
        }
        return placed(given, self.sources)


def placed(
    given: Mapping[SplitName, Sequence[Row]], sources: Sources
) -> dict[SplitName, list[Row]]:
    """Rows by the split they belong to, where some of ``given`` are held out."""
    found: dict[SplitName, list[Row]] = {split: [] for split in SPLITS}
    for asked, rows in given.items():
        for row in rows:
            found[sources.place(asked, text_digest(row.text))].append(row)
    return found


@dataclass(frozen=True)
class TextClassification:
    """A ``Task``: texts into the classes of the training split."""

    name: str
    source: TextSource
    options: TextOptions

    def __post_init__(self) -> None:
        """Validate the name, which is the user's."""
        check_name(self.name)

    @classmethod
    def from_file(cls, file: TaskFile) -> TextClassification:
        """The task that a user's file describes.

        Raises:
            ValueError: a key is missing, unknown, or its value not allowed.
        """
        allowed = ("name", *SOURCE_KEYS, *COLUMN_KEYS, *OPTION_KEYS)
        file.check_keys(allowed=allowed, required=("name",))
        file.check_paths(("data", *SPLITS))
        return cls(
            file.options["name"],
            TableSource(Sources.from_file(file, files=_TABLES), columns_of(file)),
            TextOptions.from_file(file),
        )

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
        )

    def split(self, name: SplitName) -> Split:
        """One split, mapped from disk; see ``Task.split``."""
        check_split_name(name)
        inputs, targets = (self._kept.array(f"{name}.{what}") for what in ("inputs", "targets"))
        return Split(inputs, targets)

    def about(self) -> Mapping[str, Any]:
        """What was found in the data; see ``nas.tasks.base.checks`` for the keys.

        Raises:
            DataError: the data are not what they must be; all that is wrong is in it.
        """
        return self._kept.about

    def warnings(self) -> list[str]:
        """What is allowed but seldom meant; see ``nas.tasks.base.checks``."""
        about = self.about()
        found = length_notes(
            about["lengths"]["train"],
            "sequence_length",
            self.options.sequence_length,
            what="training texts",
            many_cut=_MANY_CUT,
        )
        for split, share in about["unknown"].items():
            if share > _MANY_UNKNOWN:
                found.append(
                    f"unknown: {share:.0%} of the {split} words are not in the vocabulary; "
                    f"tokens: bpe leaves none out"
                )
        return found

    def notes(self) -> list[str]:
        """What of the data is not read; see ``nas.tasks.base.checks``."""
        return [*self.source.sources.notes]

    def carried(self) -> dict[str, str]:
        """The tokenizer and the labels; see ``nas.tasks.base.carried``."""
        about = self.about()
        tokenizer = (self._kept.folder / TOKENIZER).read_text(encoding="utf-8")
        labels: dict[str, Any] = {
            "labels": [str(label) for label in about["classes"]],
            "shift": about["shift"],
        }
        columns = self.source.columns
        if not isinstance(columns.text, str):
            labels |= {"texts": list(columns.texts), "separator": columns.separator}
        return {TOKENIZER: tokenizer, LABELS: json.dumps(labels)}

    @cached_property
    def _kept(self) -> Kept:
        what = {"form": _FORM, **asdict(self.options)}
        own = [] if self.options.tokenizer is None else [self.options.tokenizer]
        try:
            key = self.source.key(what, own)
        except ValueError:
            # Report every missing file together with the errors in the others.
            problems = Problems()
            self.source.rows(problems)
            problems.check()
            raise
        return keep(key, self._make)

    def _make(self, folder: Path) -> Mapping[str, Any]:
        problems = Problems()
        rows = self.source.rows(problems)
        for split in SPLITS:
            if not rows[split] and not problems:
                held_out = "" if split == "train" else f": raise {split}_share, or name its data"
                problems.add(f"the {split} split must have texts, and has none{held_out}")
        where = self.source.sources.training
        seen = [row.label for row in rows["train"]]
        classes = classes_of(seen, where, problems) if seen else []
        labels = {split: [like(row.label, classes) for row in rows[split]] for split in SPLITS}
        position = {label: index for index, label in enumerate(classes)}
        for split in SPLITS:
            for row, label in zip(rows[split], labels[split], strict=True):
                if classes and label not in position:
                    problems.add(_unseen(row, classes))
        problems.check()
        encoder = self.options.encoder([row.text for row in rows["train"]])
        about: dict[str, Any] = {
            "classes": classes,
            "vocab_size": encoder.vocab_size,
            "shift": encoder.shift,
            "samples": {split: len(rows[split]) for split in SPLITS},
            "of_classes": {split: class_counts(labels[split], classes) for split in SPLITS},
            "lengths": {},
            "unknown": {},
        }
        for split in SPLITS:
            tokens_NT, lengths_N = encoder.encode_measured([row.text for row in rows[split]])
            targets = np.array([position[label] for label in labels[split]], dtype=np.int64)
            np.save(folder / f"{split}.inputs.npy", tokens_NT)
            np.save(folder / f"{split}.targets.npy", targets)
            used_N = (tokens_NT != PADDING_TOKEN).sum(axis=1)
            about["lengths"][split] = {
                "mean": float(used_N.mean()),
                "full": int((used_N == self.options.sequence_length).sum()),
                **summary_of(lengths_N, self.options.sequence_length),
            }
            if self.options.tokenizer is None:
                unknown = (tokens_NT == UNKNOWN_TOKEN).sum() / max(1, used_N.sum())
                about["unknown"][split] = float(unknown)
        (folder / TOKENIZER).write_text(encoder.to_json(), encoding="utf-8")
        digests = {split: [text_digest(row.text) for row in rows[split]] for split in SPLITS}
        places = {split: [row.place for row in rows[split]] for split in SPLITS}
        return about | {"repeats": repeats(digests, labels, places)}


def _unseen(row: Row, classes: Sequence[str | int]) -> str:
    allowed = ", ".join(map(str, classes[:_MOST_SHOWN]))
    more = ", ..." if len(classes) > _MOST_SHOWN else ""
    return (
        f"{row.place} must have a label of the training split ({allowed}{more}), got {row.label!r}"
        f"{similar(row.label, classes)}"
    )
