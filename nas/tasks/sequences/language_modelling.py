"""Language modelling: the next token of a user's texts, by decoders, in bits per byte.

A task is a YAML file::

    name: plays
    kind: language_modelling
    data: plays.txt          # a text file or a folder of such; or train, validation and test
    context_length: 128      # in tokens: what a network reads at most
    tokens: byte             # or bpe, learnt from the training split
    max_vocabulary: 1000     # of bpe
    phase: generate          # joules per generated token; or prefill: per token of a prompt

Without a ``phase`` joules are per sample: a whole context read, with a guess after each token.
``tokenizer: tokenizer.json`` brings a tokenizer of your own instead of ``tokens``. A split that is
not named is held out of ``train`` (or ``data``) in blocks of about ``block_length`` characters by
a hash of each (``validation_share``, ``test_share``; ``nas.tasks.sequences.passages``).

A sample is ``context_length`` tokens and for each the one after it; samples follow on each other
and share no token that is guessed. What is left at the end of a passage is not used. What is
guessed is counted in bytes of text, so that figures of different tokenizers compare.

Shape legend: N samples, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nas.tasks.base import SPLITS, Split, SplitName, check_split_name
from nas.tasks.base.carried import TOKENIZER
from nas.tasks.base.kept import Kept, keep, key_of
from nas.tasks.base.metric import BITS_PER_BYTE, Metric
from nas.tasks.base.prepared import check_name
from nas.tasks.base.problems import Problems
from nas.tasks.base.samples import SOURCE_KEYS, Sources
from nas.tasks.base.task_file import TaskFile, check_whole_numbers
from nas.tasks.sequences.passages import SUFFIXES, read_passages, text_files
from nas.tasks.sequences.windows import Windows, cut_windows, fitting_context, repeats_of
from nas.tasks.text.tokenize import (
    TextEncoder,
    Tokens,
    learn_tokenizer,
    least_vocabulary,
    read_carried_tokenizer,
)
from search_spaces.workload import PHASES, Phase, Workload

_TOKENS: tuple[Tokens, ...] = ("byte", "bpe")
# Of what is kept: another number where the same files would give other arrays.
_FORM = 2
# Of held-out samples, and of tokens that fill no sample: worth a warning.
_FEW, _MANY_LEFT = 30, 0.1


@dataclass(frozen=True, slots=True)
class LanguageOptions:
    """How texts become samples; see the module's description.

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    context_length: int = 128
    tokens: Tokens = "byte"
    max_vocabulary: int = 1000
    tokenizer: Path | None = None
    block_length: int = 4096

    def __post_init__(self) -> None:
        """Validate every field."""
        if self.tokens not in _TOKENS:
            raise ValueError(f"tokens must be one of {', '.join(_TOKENS)}, got {self.tokens!r}")
        least = {
            "context_length": 2,
            "max_vocabulary": least_vocabulary(self.tokens),
            "block_length": 64,
        }
        check_whole_numbers(self, least)

    @classmethod
    def from_file(cls, file: TaskFile) -> LanguageOptions:
        """Those that a task file names; its other keys are passed over.

        Raises:
            ValueError: a value is not allowed, or a tokenizer and how to learn one are both there.
        """
        return cls(**file.given_with_tokenizer(OPTION_KEYS, learnt=("tokens", "max_vocabulary")))

    def encoder(self, texts: Sequence[str]) -> TextEncoder:
        """What cuts texts, learnt from ``texts`` of the training split or the user's own."""
        if self.tokenizer is not None:
            # Nothing is filled up here, so no number has to be kept for that.
            return read_carried_tokenizer(self.tokenizer, self.context_length, shift=0)
        return learn_tokenizer(
            self.tokens,
            texts,
            self.context_length,
            max_vocabulary=self.max_vocabulary,
            lowercase=False,
        )


OPTION_KEYS = tuple(field.name for field in fields(LanguageOptions))


@dataclass(frozen=True)
class LanguageModelling:
    """A ``Task``: the token after each token of a text."""

    name: str
    sources: Sources
    options: LanguageOptions
    phase: Phase | None = None
    metric: Metric = BITS_PER_BYTE

    def __post_init__(self) -> None:
        """Validate the fields that are the user's."""
        check_name(self.name)
        if self.phase is not None and self.phase not in PHASES:
            raise ValueError(
                f"phase must be one of {', '.join(PHASES)} or left out, got {self.phase!r}"
            )

    @classmethod
    def from_file(cls, file: TaskFile) -> LanguageModelling:
        """The task that a user's file describes.

        Raises:
            ValueError: a key is missing, unknown, or its value not allowed.
        """
        allowed = ("name", *SOURCE_KEYS, *OPTION_KEYS, "phase")
        file.check_keys(allowed=allowed, required=("name",))
        file.check_paths(("data", *SPLITS))
        return cls(
            file.options["name"],
            Sources.from_file(file, files=SUFFIXES),
            LanguageOptions.from_file(file),
            file.options.get("phase"),
        )

    def workload(self, batch_size: int) -> Workload:
        """Contexts of tokens into a guess after each, or the phase of a decoder's use."""
        vocab_size = self.about()["vocab_size"]
        return Workload(
            self.name,
            "language_modelling",
            (self.options.context_length,),
            vocab_size,
            batch_size,
            vocab_size=vocab_size,
            phase=self.phase,
        )

    def split(self, name: SplitName) -> Split:
        """One split, mapped from disk; ``sizes`` are the bytes that targets stand for."""
        check_split_name(name)
        rows = self._kept.array(f"{name}.tokens")
        # Views of one array: a token is an input and, one place on, a target.
        return Split(rows[:, :-1], rows[:, 1:], self._kept.array(f"{name}.bytes"))

    def about(self) -> Mapping[str, Any]:
        """What was found in the data; see ``nas.tasks.base.checks`` for the keys.

        Raises:
            DataError: the data are not what they must be; all that is wrong is in it.
        """
        return self._kept.about

    def warnings(self) -> list[str]:
        """What is allowed but seldom meant; see ``nas.tasks.base.checks``."""
        about, found = self.about(), []
        edges = {split: n for split, n in about["edges"].items() if split != "train" and n}
        if edges:
            shown = " and ".join(f"{split} has {n} ends" for split, n in edges.items())
            found.append(
                f"neighbours: held-out blocks are passages of the texts that are trained on, "
                f"{shown} that touch another split: figures are of these texts; name files of "
                f"other texts to judge by"
            )
        for split in ("validation", "test"):
            n = about["samples"][split]
            if n < _FEW:
                found.append(f"few: {n} {split} samples of {self.options.context_length} tokens")
        for split in SPLITS:
            share = about["left_over"][split]
            if share > _MANY_LEFT:
                found.append(
                    f"left over: {share:.0%} of the {split} tokens are at ends of passages and "
                    f"fill no context of {self.options.context_length}: "
                    f"context_length: {about['fitting']} fits most passages"
                )
        return found

    def notes(self) -> list[str]:
        """See ``nas.tasks.base.checks``."""
        problems = Problems()
        for path in self.sources.given.values():
            text_files(path, problems)
        return [*self.sources.notes, *problems.skipped.lines()]

    def carried(self) -> dict[str, str]:
        """The tokenizer; see ``nas.tasks.base.carried``."""
        return {TOKENIZER: (self._kept.folder / TOKENIZER).read_text(encoding="utf-8")}

    @cached_property
    def _kept(self) -> Kept:
        problems = Problems()
        files = [
            (split, file)
            for split, path in self.sources.given.items()
            for file in text_files(path, problems)
        ]
        problems.check()
        shares = [self.sources.validation_share, self.sources.test_share]
        # Problems and leaks are named by paths; which split a file is of follows from its place.
        named = [[split, str(path)] for split, path in files]
        what = {"form": _FORM, "lm": True, **asdict(self.options), "files": named} | {
            "shares": shares
        }
        own = [] if self.options.tokenizer is None else [self.options.tokenizer]
        try:
            key = key_of(what, [*(path for _, path in files), *own], by_content=True)
        except ValueError:
            # A file is gone: all that are shall be said, with what is wrong in the others.
            read_passages(files, self.sources, self.options.block_length, problems)
            problems.check()
            raise
        return keep(key, lambda folder: self._make(folder, files))

    def _make(self, folder: Path, files: Sequence[tuple[SplitName, Path]]) -> Mapping[str, Any]:
        problems = Problems()
        passages = read_passages(files, self.sources, self.options.block_length, problems)
        for split in SPLITS:
            if not passages[split] and not problems:
                held_out = "" if split == "train" else f": raise {split}_share, or name its data"
                problems.add(f"the {split} split must have text, and has none{held_out}")
        problems.check()
        encoder = self.options.encoder([passage.text for passage in passages["train"]])
        about: dict[str, Any] = {
            "vocab_size": encoder.vocab_size,
            "edges": {split: sum(p.n_edges for p in passages[split]) for split in SPLITS},
            "samples": {},
            "bytes": {},
            "left_over": {},
        }
        windows: dict[SplitName, Windows] = {}
        fitting = fitting_context(passages["train"], encoder, self.options.context_length)
        about["fitting"] = fitting
        for split in SPLITS:
            try:
                found = cut_windows(passages[split], encoder, self.options.context_length)
            except ValueError as error:
                problems.add(f"{error}: context_length: {fitting} fits most passages")
                continue
            windows[split] = found
            np.save(folder / f"{split}.tokens.npy", found.tokens)
            np.save(folder / f"{split}.bytes.npy", found.ends - found.starts)
            about["samples"][split] = len(found.tokens)
            about["bytes"][split] = sum(len(passage.text.encode()) for passage in passages[split])
            used = len(found.tokens) * self.options.context_length
            about["left_over"][split] = 1 - used / found.n_tokens
        problems.check()
        (folder / TOKENIZER).write_text(encoder.to_json(), encoding="utf-8")
        return about | {"repeats": repeats_of(passages, windows)}
