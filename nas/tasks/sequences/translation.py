"""Translation from pairs of sentences.

A task is a YAML file::

    name: captions
    kind: translation
    train: {source: train.en, target: train.de}   # lines that belong together; or a table
    validation: {source: val.en, target: val.de}
    test: {source: test.en, target: test.de}
    source: en               # columns of tables (default: source, target)
    target: de
    sequence_length: 40      # tokens of a source: longer ones are cut
    target_length: 40        # the most tokens of a translation, its end included
    max_vocabulary: 8000     # bytes and pairs of them, of both languages together
    lowercase: false
    metric: bleu             # or chrf; both by sacrebleu, of the texts as they are
    beam_size: 1             # translations that are followed at a time; 1 is greedy

``data`` instead of ``train`` says that all pairs are there, and a split that is not named is held
out by a hash of each source: the same source is then always in the same split. The vocabulary is
learnt from both sides of the training split; ``tokenizer: tokenizer.json`` brings one of your own.
Arrays are made once and mapped (``nas.tasks.base.kept``).

Shape legend: N pairs, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.tasks.base import SPLITS, Split, SplitName, check_split_name
from nas.tasks.base.carried import TOKENIZER
from nas.tasks.base.columns import Columns, columns_of
from nas.tasks.base.kept import Kept, keep, key_of
from nas.tasks.base.lengths import length_notes, summary_of
from nas.tasks.base.metric import Metric, get_metric
from nas.tasks.base.prepared import check_name
from nas.tasks.base.problems import Problems
from nas.tasks.base.samples import SOURCE_KEYS, Sources
from nas.tasks.base.splits import repeats, text_digest
from nas.tasks.base.tables import TABLES
from nas.tasks.base.task_file import TaskFile, check_whole_numbers
from nas.tasks.sequences.parallel import SIDES, Pair, files_of, read_pairs
from nas.tasks.sequences.translation_score import METRICS, Translation
from nas.tasks.text.tokenize import TextEncoder, learn_tokenizer, least_vocabulary, read_tokenizer
from search_spaces.workload import PADDING_TOKEN, Workload

# Of what is kept: another number where the same files would give other arrays.
_FORM = 2
_LARGEST = 2**20
_MANY_CUT = 0.05
_REFERENCES = "references.json"


@dataclass(frozen=True, slots=True)
class TranslationOptions:
    """How sentences become tokens and how translations are judged; see the module's description.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    sequence_length: int = 40
    target_length: int = 40
    max_vocabulary: int = 8000
    lowercase: bool = False
    tokenizer: Path | None = None
    metric: str = "bleu"
    beam_size: int = 1

    def __post_init__(self) -> None:
        """Validate every field."""
        least = {
            "sequence_length": 1,
            "target_length": 2,
            "max_vocabulary": least_vocabulary("bpe"),
            "beam_size": 1,
        }
        check_whole_numbers(self, least, most=_LARGEST)
        if not isinstance(self.lowercase, bool):
            raise ValueError(f"lowercase must be true or false, got {self.lowercase!r}")
        if self.metric not in METRICS:
            raise ValueError(f"metric must be {' or '.join(METRICS)}, got {self.metric!r}")

    @property
    def of_arrays(self) -> dict[str, Any]:
        """Those that the arrays depend on."""
        return {k: v for k, v in asdict(self).items() if k not in ("metric", "beam_size")}

    def encoders(self, pairs: Sequence[Pair]) -> tuple[TextEncoder, TextEncoder]:
        """What cuts sources and targets, learnt from ``pairs`` or the user's own: one vocabulary.

        Raises:
            ValueError: the user's tokenizer cannot be read.
        """
        if self.tokenizer is not None:
            sources = read_tokenizer(self.tokenizer, self.sequence_length)
        else:
            sources = learn_tokenizer(
                "bpe",
                [text for pair in pairs for text in (pair.source, pair.target)],
                self.sequence_length,
                max_vocabulary=self.max_vocabulary,
                lowercase=self.lowercase,
            )
        return sources, self.for_targets(sources.to_json(), sources.shift)

    def for_targets(self, tokenizer: str, shift: int) -> TextEncoder:
        """What cuts targets, and makes texts of tokens, by the ``tokenizer.json`` of both."""
        return TextEncoder.from_json(
            tokenizer, self.target_length, shift=shift, where="the tokenizer"
        )


OPTION_KEYS = tuple(field.name for field in fields(TranslationOptions))


@dataclass(frozen=True)
class TranslationTask:
    """A ``Task``: sentences and their translations."""

    name: str
    sources: Sources
    columns: Columns
    options: TranslationOptions

    def __post_init__(self) -> None:
        """Validate the name, which is the user's."""
        check_name(self.name)

    @classmethod
    def from_file(cls, file: TaskFile) -> TranslationTask:
        """The task that a user's file of kind ``translation`` describes.

        Raises:
            ValueError: a key is missing, unknown, or its value not allowed.
        """
        file.check_keys(
            allowed=("name", *SOURCE_KEYS, *SIDES, "columns", *OPTION_KEYS), required=("name",)
        )
        given = file.given_with_tokenizer(OPTION_KEYS, learnt=("max_vocabulary", "lowercase"))
        columns = columns_of(file, SIDES)
        options = TranslationOptions(**given)
        return cls(file.options["name"], Sources.from_file(file, files=TABLES), columns, options)

    @property
    def metric(self) -> Metric:
        """BLEU or chrF."""
        return get_metric(self.options.metric)

    def workload(self, batch_size: int) -> Workload:
        """Sources of tokens into translations, priced per output token."""
        vocab_size = self.about()["vocab_size"]
        return Workload(
            self.name,
            "translation",
            (self.options.sequence_length,),
            # And the end.
            vocab_size + 1,
            batch_size,
            vocab_size=vocab_size,
            target_length=self.options.target_length,
            beam_size=self.options.beam_size,
        )

    def split(self, name: SplitName) -> Split:
        """One split, mapped from disk; targets are as ``Translation`` reads them."""
        check_split_name(name)
        return Split(self._kept.array(f"{name}.inputs"), self._kept.array(f"{name}.targets"))

    @cached_property
    def objective(self) -> Translation:
        """What networks are trained for and judged by."""
        about, folder = self.about(), self._kept.folder
        tokenizer = (folder / TOKENIZER).read_text(encoding="utf-8")
        references = json.loads((folder / _REFERENCES).read_text(encoding="utf-8"))
        return Translation(
            references,
            self.options.for_targets(tokenizer, about["shift"]).decode_rows,
            end=about["vocab_size"],
            judged_by=self.options.metric,
        )

    def about(self) -> Mapping[str, Any]:
        """What was found in the data; see ``nas.tasks.base.checks`` for the keys.

        Raises:
            DataError: the data are not what they must be; all that is wrong is in it.
        """
        return self._kept.about

    def warnings(self) -> list[str]:
        """Many sentences that are cut, or much padding."""
        lengths = self.about()["lengths"]
        return [
            line
            for side, key in zip(SIDES, ("sequence_length", "target_length"), strict=True)
            for line in length_notes(
                lengths[side],
                key,
                getattr(self.options, key),
                what=f"training {side}s",
                many_cut=_MANY_CUT,
            )
        ]

    def notes(self) -> list[str]:
        """See ``nas.tasks.base.checks``."""
        return list(self.sources.notes)

    def carried(self) -> dict[str, str]:
        """The tokenizer; see ``nas.tasks.base.carried``."""
        return {TOKENIZER: (self._kept.folder / TOKENIZER).read_text(encoding="utf-8")}

    @cached_property
    def _kept(self) -> Kept:
        sources = self.sources
        files = [path for given in sources.given.values() for path in files_of(given)]
        if self.options.tokenizer is not None:
            files.append(self.options.tokenizer)
        what = {
            "form": _FORM,
            "kind": "translation",
            **self.options.of_arrays,
            "given": {split: str(given) for split, given in sources.given.items()},
            "shares": [sources.validation_share, sources.test_share],
            "columns": list(self.columns),
        }
        try:
            key = key_of(what, files, by_content=True)
        except ValueError:
            # A file is gone: all that are shall be said, with what is wrong in the others.
            self._pairs().check()
            raise
        return keep(key, self._make)

    def _pairs(self) -> _Found:
        problems = Problems()
        found: dict[SplitName, list[Pair]] = {split: [] for split in SPLITS}
        for asked, given in self.sources.given.items():
            for pair in read_pairs(given, self.columns, problems):
                found[self.sources.place(asked, text_digest(pair.source))].append(pair)
        return _Found(found, problems)

    def _make(self, folder: Path) -> Mapping[str, Any]:
        found = self._pairs()
        found.check_splits()
        sources, targets = self.options.encoders(found.pairs["train"])
        end, lengths = sources.vocab_size, {}
        references: list[str] = []
        for split in SPLITS:
            pairs = found.pairs[split]
            read_NT, read_N = sources.encode_measured([pair.source for pair in pairs])
            written_NT, written_N = targets.encode_measured([pair.target for pair in pairs])
            if split == "train":
                # A translation's end takes a place of its own.
                of_sides = zip(SIDES, (read_N, written_N + 1), (read_NT, written_NT), strict=True)
                lengths = {s: summary_of(found_N, rows.shape[1]) for s, found_N, rows in of_sides}
            numbers_N = np.arange(len(references), len(references) + len(pairs))
            np.save(folder / f"{split}.inputs.npy", read_NT)
            rows = np.column_stack([_ended(written_NT, end), numbers_N])
            np.save(folder / f"{split}.targets.npy", rows)
            references += [pair.target for pair in pairs]
        (folder / TOKENIZER).write_text(sources.to_json(), encoding="utf-8")
        (folder / _REFERENCES).write_text(json.dumps(references), encoding="utf-8")
        pairs_of = found.pairs
        return {
            "vocab_size": sources.vocab_size,
            "shift": sources.shift,
            "samples": {split: len(pairs_of[split]) for split in SPLITS},
            "lengths": lengths,
            "repeats": repeats(
                {s: [text_digest(pair.source) for pair in pairs_of[s]] for s in SPLITS},
                # That a sentence has two translations is no contradiction.
                {s: [0] * len(pairs_of[s]) for s in SPLITS},
                {s: [pair.place for pair in pairs_of[s]] for s in SPLITS},
            ),
        }


@dataclass(frozen=True, slots=True)
class _Found:
    """Pairs of each split, and what is wrong with others."""

    pairs: Mapping[SplitName, Sequence[Pair]]
    problems: Problems

    def check(self) -> None:
        """Raise ``DataError`` if anything is wrong."""
        self.problems.check()

    def check_splits(self) -> None:
        """As ``check``, and where a split has no pairs."""
        for split, pairs in self.pairs.items():
            if not pairs and not self.problems:
                held_out = "" if split == "train" else f": raise {split}_share, or name its data"
                self.problems.add(f"the {split} split must have pairs, and has none{held_out}")
        self.check()


def _ended(tokens_NT: NDArray[np.int64], end: int) -> NDArray[np.int64]:
    """Rows with ``end`` after their tokens; those without room for it were cut, and have none."""
    lengths_N = (tokens_NT != PADDING_TOKEN).sum(axis=1)
    ended, rows = tokens_NT.copy(), np.flatnonzero(lengths_N < tokens_NT.shape[1])
    ended[rows, lengths_N[rows]] = end
    return ended
