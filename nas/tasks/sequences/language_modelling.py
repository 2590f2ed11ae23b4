"""Language modelling: the next token of a user's texts, by decoders, in bits per byte.

A split that is not named is held out of ``train`` (or ``data``) in blocks
(``nas.tasks.sequences.passages``). A sample is ``context_length`` tokens and for each the one
after it; samples follow on each other and share no target. The end of a passage that fills no
sample is not used. Targets are counted in bytes of text, so that tokenizers compare. See
``docs/language-modelling.md``.

Shape legend: N samples, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nas.tasks.base import SPLITS, Split, SplitName, check_split_name
from nas.tasks.base.artifact_files import TOKENIZER
from nas.tasks.base.file_task import Rows
from nas.tasks.base.metric import BITS_PER_BYTE
from nas.tasks.base.problems import Problems
from nas.tasks.base.splits import check_not_empty
from nas.tasks.base.task_file import check_whole_numbers
from nas.tasks.sequences.passages import SUFFIXES, Passage, read_passages, text_files
from nas.tasks.sequences.windows import Windows, cut_windows, fitting_context, repeats_of
from nas.tasks.text.token_task import TokenTask
from nas.tasks.text.tokenize import (
    TextEncoder,
    Tokens,
    check_numbers_kept,
    check_tokens_fit,
    learn_tokenizer,
    least_vocabulary,
    read_tokenizer,
)
from search_spaces.workload import PHASES, Phase, Workload

_TOKENS: tuple[Tokens, ...] = ("byte", "bpe")
# Warn of fewer held-out samples, and of a larger share of tokens that fill no sample.
_FEW, _MANY_LEFT = 30, 0.1


@dataclass(frozen=True, slots=True)
class LanguageOptions:
    """Options of samples in a task file.

    A network reads ``context_length`` tokens at most. ``block_length``, in characters, is the
    length of held-out blocks. ``phase`` selects joules per generated token (``generate``) or per
    token of a prompt (``prefill``); without one they are of a whole context. ``vocab_size`` is
    that of a pretrained network's embedding, by default the tokenizer's.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    context_length: int = 128
    tokens: Tokens = "byte"
    max_vocabulary: int = 1000
    tokenizer: Path | None = None
    block_length: int = 4096
    phase: Phase | None = None
    vocab_size: int | None = None

    def __post_init__(self) -> None:
        if self.tokens not in _TOKENS:
            raise ValueError(f"tokens must be one of {', '.join(_TOKENS)}, got {self.tokens!r}")
        least = {
            "context_length": 2,
            "max_vocabulary": least_vocabulary(self.tokens),
            "block_length": 64,
        }
        check_whole_numbers(self, least)
        check_numbers_kept(self)
        if self.phase is not None and self.phase not in PHASES:
            raise ValueError(
                f"phase must be one of {', '.join(PHASES)} or left out, got {self.phase!r}"
            )

    def encoder(self, texts: Sequence[str]) -> TextEncoder:
        """Learn an encoder from ``texts`` of the training split, or read the user's."""
        if self.tokenizer is not None:
            # There is no padding, so that no number needs to be free for it.
            encoder = read_tokenizer(self.tokenizer, self.context_length, shift=0)
            check_tokens_fit(encoder, self.vocab_size, self.tokenizer)
            return encoder
        return learn_tokenizer(
            self.tokens,
            texts,
            self.context_length,
            max_vocabulary=self.max_vocabulary,
            lowercase=False,
        )


class LanguageModelling(TokenTask[Passage]):
    """The token after each token of a text."""

    kind = "language_modelling"
    noun = "text"
    metric = BITS_PER_BYTE
    options_type = LanguageOptions
    not_cached = ("phase",)
    endings = SUFFIXES
    options: LanguageOptions

    def workload(self, batch_size: int) -> Workload:
        """Contexts of tokens into a prediction after each, or the phase of a decoder's use."""
        vocab_size = self.about()["vocab_size"]
        return Workload(
            self.name,
            "language_modelling",
            (self.options.context_length,),
            vocab_size,
            batch_size,
            vocab_size=vocab_size,
            phase=self.options.phase,
        )

    def split(self, name: SplitName) -> Split:
        """Map one split; ``sizes`` are the bytes of the targets."""
        check_split_name(name)
        rows = self.cache.array(f"{name}.tokens")
        # Views of one array: a token is an input and, one place on, a target.
        return Split(rows[:, :-1], rows[:, 1:], self.cache.array(f"{name}.bytes"))

    def warnings(self) -> list[str]:
        """Warn of neighbouring passages, few samples and tokens that fill no context."""
        about, lines = self.about(), []
        edges = {split: n for split, n in about["edges"].items() if split != "train" and n}
        if edges:
            shown = " and ".join(f"{split} has {n} ends" for split, n in edges.items())
            lines.append(
                f"neighbours: held-out blocks are passages of the texts that are trained on, "
                f"{shown} that touch another split: figures are of these texts; name files of "
                f"other texts to judge by"
            )
        length = self.options.context_length
        for split in ("validation", "test"):
            n = about["samples"][split]
            if n < _FEW:
                lines.append(f"few: {n} {split} samples of {length} tokens")
        for split in SPLITS:
            share = about["left_over"][split]
            if share > _MANY_LEFT:
                lines.append(
                    f"left over: {share:.0%} of the {split} tokens are at ends of passages and "
                    f"fill no context of {length}: "
                    f"context_length: {about['fitting']} fits most passages"
                )
        return lines

    def notes(self) -> list[str]:
        """See ``Task.notes``."""
        # Not from the cache, which does not depend on files that are not read.
        return [*self.sources.notes, *self._listed[1].skipped.lines()]

    @cached_property
    def _listed(self) -> tuple[list[tuple[SplitName, Path]], Problems]:
        """The split and path of each file."""
        problems = Problems()
        files = [
            (split, file)
            for split, path in self.sources.by_split.items()
            for file in text_files(path, problems)
        ]
        return files, problems

    def files(self) -> list[Path]:
        """See ``FileTask.files``."""
        files, problems = self._listed
        problems.check()
        return [path for _, path in files]

    def cache_fields(self) -> dict[str, Any]:
        """See ``FileTask.cache_fields``."""
        # Messages name paths, and the split of a file follows from its path.
        named = [[split, str(path)] for split, path in self._listed[0]]
        return {**super().cache_fields(), "files": named}

    def read(self, problems: Problems) -> Rows[Passage]:
        """Read the passages of each split."""
        block_length = self.options.block_length
        passages = read_passages(self._listed[0], self.sources, block_length, problems)
        check_not_empty(passages, self.noun, problems)
        return passages

    def write(self, rows: Rows[Passage], folder: Path, problems: Problems) -> dict[str, Any]:
        """See ``FileTask.write``."""
        problems.check()
        length = self.options.context_length
        encoder = self.options.encoder([passage.text for passage in rows["train"]])
        fitting = fitting_context(rows["train"], encoder, length)
        windows: dict[SplitName, Windows] = {}
        for split in SPLITS:
            try:
                windows[split] = cut_windows(rows[split], encoder, length)
            except ValueError as error:
                problems.add(f"{error}: context_length: {fitting} fits most passages")
        problems.check()
        for split, cut in windows.items():
            np.save(folder / f"{split}.tokens.npy", cut.tokens)
            np.save(folder / f"{split}.bytes.npy", cut.ends - cut.starts)
        (folder / TOKENIZER).write_text(encoder.to_json(), encoding="utf-8")
        return {
            "vocab_size": self.options.vocab_size or encoder.vocab_size,
            "edges": {split: sum(p.n_edges for p in rows[split]) for split in SPLITS},
            "fitting": fitting,
            "samples": {split: len(cut.tokens) for split, cut in windows.items()},
            "bytes": {split: sum(len(p.text.encode()) for p in rows[split]) for split in SPLITS},
            "left_over": {
                split: 1 - len(cut.tokens) * length / cut.n_tokens
                for split, cut in windows.items()
            },
            "repeats": repeats_of(rows, windows),
        }
