"""Convert tokenizers inside GGUF files to ``tokenizer.json`` and ``tokenizer_config.json``.

Two models of llama.cpp are supported: ``gpt2``, byte-level BPE with merges, and ``llama``,
SentencePiece's BPE of characters with scores and a fallback to bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.pretrained.files.config import MOST_VOCABULARY, Config, shown
from search_spaces.pretrained.gguf.configuration import TOKENS
from search_spaces.pretrained.gguf.pre_tokenizers import PRE_TOKENIZERS

MODEL, PRE = "tokenizer.ggml.model", "tokenizer.ggml.pre"
TYPES, SCORES, MERGES = (f"tokenizer.ggml.{name}" for name in ("token_type", "scores", "merges"))
ADD_BEGIN, ADD_END = "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"
ADD_SPACE, CHAT_TEMPLATE = "tokenizer.ggml.add_space_prefix", "tokenizer.chat_template"
# Keys of special tokens by their names in tokenizer_config.json.
SPECIAL = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}
BYTE_PAIRS, SENTENCE_PIECE, NO_TOKENIZER = "gpt2", "llama", "none"
# SentencePiece's character for a space.
SPACE = "\u2581"
N_BYTES = 256
# Maximum length of a token: SentencePiece's merges are sought at every place in a token.
_MOST_CHARACTERS = 512
# Greatest number of pairs of SentencePiece's tokens; a vocabulary of 256,000 has half a million.
_MOST_MERGES = 2**21


class TokenType(IntEnum):
    """Kinds of tokens."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Tokens of a file by number, and the kind of each."""

    texts: Sequence[str]
    kinds: Sequence[int]

    def vocabulary(self) -> dict[str, int]:
        """Return numbers by text, without unused tokens."""
        return {
            text: number
            for number, (text, kind) in enumerate(zip(self.texts, self.kinds, strict=True))
            if kind != TokenType.UNUSED
        }

    def added(self, *, with_unknown: bool) -> list[dict[str, Any]]:
        """Return the ``added_tokens``, which texts are split at before anything else."""
        special = {TokenType.CONTROL, TokenType.UNKNOWN} if with_unknown else {TokenType.CONTROL}
        return [
            {
                "id": number,
                "content": text,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": kind in special,
            }
            for number, (text, kind) in enumerate(zip(self.texts, self.kinds, strict=True))
            if kind in special or kind == TokenType.USER_DEFINED
        ]


def tokenizer_files(
    metadata: Mapping[str, Any], path: Path, vocab_size: int, longest: int
) -> dict[str, dict[str, Any]]:
    """Return ``tokenizer.json`` and ``tokenizer_config.json`` by name, if there is a tokenizer.

    Raises:
        ValueError: the tokenizer is not valid or not supported; the message names the key.
    """
    config = Config(metadata, path)
    model = metadata.get(MODEL, NO_TOKENIZER)
    # A hostile file may have an array here, which ``==`` would compare value by value.
    if isinstance(model, str) and model == NO_TOKENIZER:
        return {}
    kind = config.choice(MODEL, {name: name for name in (BYTE_PAIRS, SENTENCE_PIECE)})
    tokens = _tokens(config, vocab_size)
    if kind == BYTE_PAIRS:
        content = _byte_pairs(config, tokens)
    else:
        content = _sentence_piece(config, tokens)
    return {
        "tokenizer.json": content,
        "tokenizer_config.json": _use(config, tokens, longest),
    }


def _tokens(config: Config, vocab_size: int) -> _Tokens:
    texts = config.take(TOKENS)
    if not isinstance(texts, list) or not 0 < len(texts) <= vocab_size:
        n_tokens = len(texts) if isinstance(texts, list) else texts
        raise config.error(TOKENS, f"1..{vocab_size} texts (the vocabulary's size)", n_tokens)
    longest = max(map(len, texts))
    if longest > _MOST_CHARACTERS:
        raise config.error(TOKENS, f"texts of at most {_MOST_CHARACTERS} characters", longest)
    kinds = [int(TokenType.NORMAL)] * len(texts)
    if config.take(TYPES) is not None:
        kinds = [int(kind) for kind in _numbers(config, TYPES, len(texts))]
    if not {*kinds} <= {*map(int, TokenType)}:
        raise config.error(TYPES, "integers in 1..6", kinds)
    tokens = _Tokens(texts, kinds)
    n_used = sum(kind != TokenType.UNUSED for kind in tokens.kinds)
    if len(tokens.vocabulary()) != n_used or "" in tokens.vocabulary():
        raise config.error(TOKENS, "texts that differ and are not empty", shown(texts))
    return tokens


def _byte_pairs(config: Config, tokens: _Tokens) -> dict[str, Any]:
    rules, vocabulary = config.choice(PRE, PRE_TOKENIZERS), tokens.vocabulary()
    merges = []
    for number, text in enumerate(_texts(config, MERGES)):
        pair = text.split(" ")
        if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
            allowed = "two tokens that join to a third, with a space between"
            raise config.error(f"{MERGES}[{number}]", allowed, text)
        merges.append(pair)
    model = {"ignore_merges": rules.ignores_merges, "byte_fallback": False, "fuse_unk": False}
    return _tokenizer(
        added=tokens.added(with_unknown=False),
        normalizer={"type": "NFC"} if rules.is_composed else None,
        pre_tokenizer=rules.to_json(),
        post_processor=_template(config, tokens, adds_begin=rules.adds_begin),
        decoder={
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        model=_model(vocabulary, merges) | model,
    )


def _sentence_piece(config: Config, tokens: _Tokens) -> dict[str, Any]:
    scores = _numbers(config, SCORES, len(tokens.texts))
    n_bytes = sum(kind == TokenType.BYTE for kind in tokens.kinds)
    if n_bytes not in (0, N_BYTES):
        raise config.error(TYPES, f"0 or {N_BYTES} tokens of bytes", n_bytes)
    unknown = _special(config, tokens, "unk_token", default=0)
    has_prefix = config.flag(ADD_SPACE, True)
    prefix = [{"type": "Prepend", "prepend": SPACE}] if has_prefix else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if has_prefix else []
    model = {
        "unk_token": unknown,
        "ignore_merges": False,
        "byte_fallback": n_bytes > 0,
        "fuse_unk": True,
    }
    return _tokenizer(
        added=tokens.added(with_unknown=True),
        normalizer={
            "type": "Sequence",
            "normalizers": [
                *prefix,
                {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
            ],
        },
        pre_tokenizer=None,
        post_processor=_template(config, tokens, adds_begin=True),
        decoder={
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *strip,
            ],
        },
        model=_model(tokens.vocabulary(), _merges_by_score(config, tokens, scores)) | model,
    )


def _merges_by_score(config: Config, tokens: _Tokens, scores: Sequence[float]) -> list[list[str]]:
    """Return pairs of tokens that join to a third, in decreasing order of its score.

    SentencePiece has scores of tokens rather than merges: it first joins the neighbours in a text
    whose joint token has the highest score. Of equal scores it takes the first in the text, an
    order that merges cannot express.
    """
    numbers = {
        text: number
        for number, (text, kind) in enumerate(zip(tokens.texts, tokens.kinds, strict=True))
        if kind == TokenType.NORMAL
    }
    merges: list[list[str]] = []
    seen: dict[float, str] = {}
    for text, _ in sorted(numbers.items(), key=lambda item: (-float(scores[item[1]]), item[1])):
        cuts = ((text[:at], text[at:]) for at in range(1, len(text)))
        pairs = [pair for pair in cuts if pair[0] in numbers and pair[1] in numbers]
        score = float(scores[numbers[text]])
        if pairs and seen.setdefault(score, text) != text:
            raise config.error(
                SCORES, "numbers that differ between tokens of several pieces", (score, text)
            )
        pairs.sort(key=lambda pair: (numbers[pair[0]], numbers[pair[1]]))
        # The vocabulary's own texts, since slices of them are copies.
        merges += [[tokens.texts[numbers[part]] for part in pair] for pair in pairs]
        if len(merges) > _MOST_MERGES:
            raise config.error(
                TOKENS, f"texts that are joined of at most {_MOST_MERGES} pairs", shown(text)
            )
    return merges


def _numbers(config: Config, key: str, count: int) -> list[float]:
    values: Any = config.take(key)
    is_array = isinstance(values, np.ndarray) and len(values) == count
    if not is_array or not np.isfinite(values).all():
        raise config.error(key, f"{count} numbers, one for each token", values)
    numbers: list[float] = values.tolist()
    return numbers


def _texts(config: Config, key: str) -> list[str]:
    values: Any = config.take(key)
    if not isinstance(values, list):
        raise config.error(key, "an array of texts", values)
    return values


def _special(config: Config, tokens: _Tokens, name: str, default: int | None = None) -> str | None:
    """Return the text of a special token, ``None`` if the file names none."""
    key = SPECIAL[name]
    if config.take(key) is None:
        return None if default is None else tokens.texts[default]
    number = config.integer(key, least=0, most=MOST_VOCABULARY)
    if number >= len(tokens.texts):
        raise config.error(key, f"a token below {len(tokens.texts)}", number)
    return tokens.texts[number]


def _template(config: Config, tokens: _Tokens, *, adds_begin: bool) -> dict[str, Any] | None:
    """Return the ``post_processor`` that adds tokens around a text, ``None`` without any."""
    first = _special(config, tokens, "bos_token") if config.flag(ADD_BEGIN, adds_begin) else None
    last = _special(config, tokens, "eos_token") if config.flag(ADD_END, False) else None
    if first is None and last is None:
        return None
    numbers = {text: number for number, text in enumerate(tokens.texts)}

    def around(name: str, number: int) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = [{"Sequence": {"id": name, "type_id": number}}]
        if first is not None:
            parts.insert(0, {"SpecialToken": {"id": first, "type_id": number}})
        if last is not None:
            parts.append({"SpecialToken": {"id": last, "type_id": number}})
        return parts

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": [*around("A", 0), *around("B", 1)],
        "special_tokens": {
            text: {"id": text, "ids": [numbers[text]], "tokens": [text]}
            for text in (first, last)
            if text is not None
        },
    }


def _model(vocabulary: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "vocab": vocabulary,
        "merges": merges,
    }


def _tokenizer(*, added: list[dict[str, Any]], **parts: Any) -> dict[str, Any]:
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    return head | parts


def _use(config: Config, tokens: _Tokens, longest: int) -> dict[str, Any]:
    """Return the values of ``tokenizer_config.json``."""
    values: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": longest,
    }
    for name in SPECIAL:
        text = _special(config, tokens, name)
        if text is not None:
            values[name] = text
    template = config.take(CHAT_TEMPLATE)
    if template is not None:
        if not isinstance(template, str):
            raise config.error(CHAT_TEMPLATE, "a text", template)
        values["chat_template"] = template
    return values
