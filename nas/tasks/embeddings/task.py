"""Texts without labels, whose targets are a checkpoint's vectors. See ``docs/embeddings.md``.

Shape legend: N texts, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from nas.core.files import Place
from nas.tasks.base import SPLITS, Split, SplitName
from nas.tasks.base.artifact_files import PROMPT, TOKENIZER
from nas.tasks.base.columns import text_column_of
from nas.tasks.base.file_task import Rows, RowTask
from nas.tasks.base.lengths import summary_of
from nas.tasks.base.metric import get_metric
from nas.tasks.base.problems import Problems
from nas.tasks.base.sources import Sources
from nas.tasks.base.splits import text_digest
from nas.tasks.base.tables import TABLES, Row
from nas.tasks.base.task_file import TaskFile, check_whole_numbers
from nas.tasks.embeddings.agreements import AgreementOf, Agreements, save_agreements
from nas.tasks.embeddings.objective import METRICS, N_TARGETS, NO_PAIR, EmbeddingObjective
from nas.tasks.embeddings.texts import TextPair, read_text_pairs, read_texts
from nas.tasks.embeddings.vectors import files_of_reference, reference_of, write_vectors
from nas.tasks.text.token_task import TokenTask
from nas.tasks.text.tokenize import (
    TextEncoder,
    check_numbers_kept,
    check_tokens_fit,
    learn_tokenizer,
    read_tokenizer,
)
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor

# With fewer, neighbours and correlations tell nothing.
_FEWEST_TEXTS, _FEWEST_PAIRS = 24, 10
_MOST_PREFIX = 1000
# Words of the tokenizer that stands in where there is no checkpoint.
_MOST_WORDS = 5000
# Warn of larger shares of cut texts.
_MANY_CUT = 0.2
_VECTORS, _SCORES = "vectors", "scores"
_BATCH = 64


@dataclass(frozen=True, slots=True)
class EmbeddingOptions:
    """Options of a task file of kind ``embeddings``.

    Texts are cut after ``sequence_length`` tokens. ``prefix`` is put before each text, such as
    ``"query: "`` of E5. ``validation_pairs`` and ``test_pairs`` are tables of two texts and a
    score, in ``pair_columns``. ``checkpoint``, a folder whose vectors are the targets,
    ``tokenizer``, ``padding_token`` and ``vocab_size`` belong together: a search from a
    checkpoint sets them.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    sequence_length: int = 128
    prefix: str = ""
    metric: str = "recall10"
    validation_pairs: Path | None = None
    test_pairs: Path | None = None
    pair_columns: Sequence[str] = ("first", "second", "score")
    checkpoint: Path | None = None
    tokenizer: Path | None = None
    padding_token: int | None = None
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        check_whole_numbers(self, {"sequence_length": 1})
        check_numbers_kept(self)
        if not isinstance(self.prefix, str) or len(self.prefix) > _MOST_PREFIX:
            raise ValueError(
                f"prefix must be a text of at most {_MOST_PREFIX} characters, got {self.prefix!r}"
            )
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {self.metric!r}")
        names = self.pair_columns
        are_names = isinstance(names, list | tuple) and all(
            isinstance(name, str) and name for name in names
        )
        if not are_names or len(names) != 3 or len(set(names)) != 3:
            raise ValueError(
                f"pair_columns must be the columns of two texts and their score, got {names!r}"
            )
        has_pairs = [self.validation_pairs is not None, self.test_pairs is not None]
        if self.metric == "pairs" and not all(has_pairs):
            raise ValueError("metric pairs must have validation_pairs and test_pairs, got none")
        if any(has_pairs) and not all(has_pairs):
            raise ValueError("validation_pairs and test_pairs must both be given or neither")
        if self.checkpoint is not None and (self.tokenizer is None or self.padding_token is None):
            raise ValueError(
                "checkpoint must have its tokenizer and padding_token beside it: nas search "
                "--from DIR sets all three"
            )
        if self.checkpoint is None and self.tokenizer is not None:
            raise ValueError("tokenizer must have a checkpoint, whose it is, got none")

    def encoder(self, texts: Sequence[str]) -> TextEncoder:
        """Read the checkpoint's encoder; without one learn one of words from ``texts``."""
        if self.tokenizer is None or self.padding_token is None:
            encoder = learn_tokenizer(
                "word", texts, self.sequence_length, max_vocabulary=_MOST_WORDS, lowercase=True
            )
        else:
            encoder = read_tokenizer(self.tokenizer, self.sequence_length, shift=0)
            check_tokens_fit(encoder, self.vocab_size, self.tokenizer)
            encoder = replace(encoder, padding_token=self.padding_token)
        return replace(encoder, prefix=self.prefix)


class Embeddings(TokenTask[Row], RowTask[Row]):
    """Texts into vectors; targets are ``(N, 3)``, as ``EmbeddingObjective`` reads them.

    The texts of a split's pairs follow its other texts.
    """

    kind = "embeddings"
    noun = "texts"
    options_type = EmbeddingOptions
    # Paths are not: a run may be moved. Files are in the key by their content.
    not_cached = ("metric", "validation_pairs", "test_pairs", "checkpoint", "tokenizer")
    keys = ("text", "columns")
    endings = (*TABLES, ".txt")
    options: EmbeddingOptions

    def __init__(self, name: str, sources: Sources, options: EmbeddingOptions) -> None:
        """Read nothing yet."""
        super().__init__(name, sources, options)
        self.metric = get_metric(options.metric)

    @classmethod
    def from_file(cls, file: TaskFile) -> Self:
        """See ``FileTask.from_file``."""
        task = super().from_file(file)
        sources = replace(task.sources, columns=text_column_of(file))
        return cls(task.name, sources, task.options)

    def workload(self, batch_size: int) -> Workload:
        """Sequences of tokens into vectors of the checkpoint's width.

        Raises:
            ValueError: there is no checkpoint.
        """
        self._check_checkpoint()
        about, options = self.about(), self.options
        return Workload(
            self.name,
            "text_embedding",
            (options.sequence_length,),
            about["width"],
            batch_size,
            vocab_size=about["vocab_size"],
            padding_token=options.padding_token or 0,
        )

    @cached_property
    def objective(self) -> EmbeddingObjective:
        """Distance to the checkpoint's vectors, and agreement with its similarities.

        Raises:
            ValueError: there is no checkpoint.
        """
        self._check_checkpoint()
        arrays = self.cache.array(_VECTORS), self.cache.array(_SCORES)
        return EmbeddingObjective(*arrays, self.options.metric)

    def option_files(self) -> list[Path]:
        """See ``FileTask.option_files``."""
        options, reference = self.options, self.options.checkpoint
        pairs = [options.validation_pairs, options.test_pairs]
        return [
            *super().option_files(),
            *(path for path in pairs if path is not None),
            *([] if reference is None else files_of_reference(reference)),
        ]

    def rows(self, source: Any, problems: Problems) -> Iterable[Row]:
        """See ``RowTask.rows``."""
        return read_texts(source, self.sources.columns, problems)

    def digest(self, row: Row) -> bytes:
        """See ``RowTask.digest``."""
        return text_digest(row.text)

    def read(self, problems: Problems) -> Rows[Row]:
        """See ``RowTask.read``; held-out splits must have texts enough to be judged by."""
        rows = super().read(problems)
        for split in ("validation", "test") if not problems else ():
            if len(rows[split]) < _FEWEST_TEXTS:
                problems.add(
                    f"the {split} split must have at least {_FEWEST_TEXTS} texts, whose "
                    f"neighbours are compared, got {len(rows[split])}: raise {split}_share, or "
                    f"name more data"
                )
        return rows

    def write(self, rows: Rows[Row], folder: Path, problems: Problems) -> dict[str, Any]:
        """See ``FileTask.write``."""
        pairs = {split: self._pairs(split, problems) for split in SPLITS}
        problems.check()
        options = self.options
        reference = None
        if options.checkpoint is not None:
            reference = reference_of(options.checkpoint, options.sequence_length)
        encoder = options.encoder([row.text for row in rows["train"]])
        tokens: list[NDArray[np.int64]] = []
        lengths: list[Mapping[str, Any]] = []
        n_before = n_pairs = 0
        for split in SPLITS:
            texts = [row.text for row in rows[split]]
            texts += [text for pair in pairs[split] for text in (pair.first, pair.second)]
            tokens_NT, lengths_N = encoder.encode_measured(texts)
            targets_N3 = _targets(len(rows[split]), len(pairs[split]), n_before, n_pairs)
            np.save(folder / f"{split}.inputs.npy", tokens_NT)
            np.save(folder / f"{split}.targets.npy", targets_N3)
            tokens.append(tokens_NT)
            n_before, n_pairs = n_before + len(texts), n_pairs + len(pairs[split])
            # Words of the tokenizer that stands in are no lengths in the checkpoint's tokens.
            if split == "train" and reference is not None:
                lengths = [
                    summary_of(
                        lengths_N,
                        options.sequence_length,
                        key="sequence_length",
                        what="training texts",
                        many_cut=_MANY_CUT,
                    )
                ]
        scores = [pair.score for split in SPLITS for pair in pairs[split]]
        np.save(folder / f"{_SCORES}.npy", np.array(scores, dtype=np.float64))
        if reference is not None:
            write_vectors(reference, tokens, folder / f"{_VECTORS}.npy")
        (folder / TOKENIZER).write_text(encoder.to_json(), encoding="utf-8")
        return {
            "vocab_size": options.vocab_size or encoder.vocab_size,
            "width": None if reference is None else reference.workload.n_classes,
            "lengths": lengths,
            "pairs": {split: len(pairs[split]) for split in SPLITS},
            "repeats": self._repeats_of(rows, pairs),
        }

    def artifact_files(self) -> dict[str, str]:
        """The tokenizer, and the prefix of texts where there is one."""
        files = super().artifact_files()
        if self.options.prefix:
            files[PROMPT] = json.dumps({"prefix": self.options.prefix})
        return files

    def save_examples(self, call: Callable[[Tensor], Tensor], device: str, folder: Place) -> None:
        """See ``Task.save_examples``: the agreement with the checkpoint by every metric."""
        split = self.split("validation")
        save_agreements(folder, self.agreements(call, split, device))

    def agreements(
        self, call: Callable[[Tensor], Tensor], split: Split, device: str = "cpu"
    ) -> Agreements:
        """Return the agreement of a network with the checkpoint on ``split`` by every metric."""
        import torch

        vectors = []
        with torch.inference_mode():
            for batch in torch.split(torch.from_numpy(split.inputs), _BATCH):
                vectors.append(call(batch.to(device)).float().cpu())
        figures = self.objective.figures(torch.cat(vectors), split.targets, None)
        metrics = [m for m in METRICS if m != "pairs" or self.options.validation_pairs]
        found = ((metric, self.objective.agreement(figures, metric)) for metric in metrics)
        return Agreements(
            tuple(AgreementOf(m, each.value, each.standard_error) for m, each in found)
        )

    def _check_checkpoint(self) -> None:
        if self.options.checkpoint is None:
            raise ValueError(
                f"task {self.name} must have a checkpoint, whose vectors are its targets: nas "
                f"search --from DIR --task FILE"
            )

    def _pairs(self, split: SplitName, problems: Problems) -> list[TextPair]:
        path = {"validation": self.options.validation_pairs, "test": self.options.test_pairs}
        source, before = path.get(split), len(problems)
        if source is None:
            return []
        pairs = read_text_pairs(source, self.options.pair_columns, problems)
        if len(pairs) < _FEWEST_PAIRS and len(problems) == before:
            problems.add(
                f"{source} must have at least {_FEWEST_PAIRS} pairs of texts, got {len(pairs)}"
            )
        return pairs

    def _repeats_of(
        self, rows: Rows[Row], pairs: Mapping[SplitName, Sequence[TextPair]]
    ) -> dict[str, Any]:
        """Find repeated texts; one that occurs in several pairs of a split is none."""
        everything = {}
        for split in SPLITS:
            seen = {self.digest(row) for row in rows[split]}
            added = []
            for pair in pairs[split]:
                for text in (pair.first, pair.second):
                    row = Row(pair.place, text, "")
                    if self.digest(row) not in seen:
                        seen.add(self.digest(row))
                        added.append(row)
            everything[split] = [*rows[split], *added]
        found = self.repeats(everything, {s: [""] * len(everything[s]) for s in SPLITS})
        return dict(found)


def _targets(n_texts: int, n_pairs: int, first_row: int, first_pair: int) -> NDArray[np.int64]:
    """Targets of the texts of a split, then of the two texts of each of its pairs."""
    targets_N3 = np.full((n_texts + 2 * n_pairs, N_TARGETS), NO_PAIR, dtype=np.int64)
    targets_N3[:, 0] = first_row + np.arange(len(targets_N3))
    targets_N3[n_texts:, 1] = first_pair + np.arange(2 * n_pairs) // 2
    targets_N3[n_texts:, 2] = np.arange(2 * n_pairs) % 2
    return targets_N3
