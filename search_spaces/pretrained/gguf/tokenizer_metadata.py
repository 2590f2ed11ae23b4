"""Convert tokenizers of checkpoints to GGUF metadata.

The metadata is converted back and every part that decides about tokens is compared, so that no
file is written that would be read as another tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.pretrained.files.config import shown
from search_spaces.pretrained.gguf.configuration import TOKENS
from search_spaces.pretrained.gguf.pre_tokenizers import PRE_TOKENIZERS
from search_spaces.pretrained.gguf.tokenizer import (
    ADD_BEGIN,
    ADD_END,
    ADD_SPACE,
    BYTE_PAIRS,
    CHAT_TEMPLATE,
    MERGES,
    MODEL,
    N_BYTES,
    NO_TOKENIZER,
    PRE,
    SCORES,
    SENTENCE_PIECE,
    SPECIAL,
    TYPES,
    TokenType,
    tokenizer_files,
)

# Score of tokens that are no result of a merge.
_NEVER = -1e6
_BYTES = "ByteLevel"


def tokenizer_metadata(
    content: Mapping[str, Any] | None,
    use: Mapping[str, Any],
    numbers: Mapping[str, Any],
    vocab_size: int,
    where: Path,
) -> dict[str, Any]:
    """Return the metadata of a ``tokenizer.json``.

    Args:
        content: The file's content; ``None`` without a tokenizer.
        use: The values of ``tokenizer_config.json``.
        numbers: The values of ``config.json``, with ``bos_token_id`` and the like.
        vocab_size: Number of tokens of the network.
        where: The file, for messages.

    Raises:
        ValueError: GGUF does not support the tokenizer; the message names the part.
    """
    if content is None:
        return {MODEL: NO_TOKENIZER}
    try:
        _check_model(content["model"], where)
        metadata = _metadata(content, use, numbers, vocab_size)
        _check_texts(metadata, where)
        again = tokenizer_files(_as_read(metadata), where, vocab_size, 1)["tokenizer.json"]
        before, after = dict(_essence(content)), dict(_essence(again))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        cause = error if isinstance(error, TypeError) else repr(error)
        raise ValueError(f"{where} must be a tokenizer.json of byte pairs: {cause}") from None
    for part, value in before.items():
        if value != after[part]:
            raise ValueError(
                f"{where}: {part} is not supported in GGUF, whose tokenizers are byte-level BPE "
                f"with the rules {', '.join(PRE_TOKENIZERS)}, or SentencePiece"
            )
    return metadata


def _check_model(model: Mapping[str, Any], where: Path) -> None:
    if model["type"] != "BPE":
        raise ValueError(f"{where}: the model must be BPE for GGUF, got {shown(model['type'])}")
    if not model["merges"]:
        raise ValueError(f"{where}: the model must have merges for GGUF, and has none")


def _check_texts(metadata: Mapping[str, Any], where: Path) -> None:
    """Raise ``ValueError`` for half a character, which JSON may have by its number."""
    for key, value in metadata.items():
        for text in value if isinstance(value, list) else (value,):
            try:
                str(text).encode()
            except UnicodeEncodeError:
                raise ValueError(
                    f"{where}: {key} must be text that UTF-8 can encode for GGUF, got "
                    f"{shown(text)}"
                ) from None


def _metadata(
    content: Mapping[str, Any],
    use: Mapping[str, Any],
    numbers: Mapping[str, Any],
    vocab_size: int,
) -> dict[str, Any]:
    model = content["model"]
    texts = _texts(content, vocab_size)
    kinds = _kinds(content, texts)
    merges = [_pair(merge) for merge in model["merges"]]
    prefix, suffix = _around(content.get("post_processor"))
    metadata: dict[str, Any] = {TOKENS: texts, TYPES: kinds}
    if model.get("byte_fallback"):
        steps = list(_steps(content.get("normalizer"), "normalizers"))
        metadata |= {
            MODEL: SENTENCE_PIECE,
            PRE: "default",
            SCORES: _scores(texts, merges),
            ADD_SPACE: any(step["type"] == "Prepend" for step in steps),
        }
    else:
        joined = [" ".join(pair) for pair in merges]
        metadata |= {MODEL: BYTE_PAIRS, PRE: _rules_of(content), ADD_SPACE: False, MERGES: joined}
    metadata |= {ADD_BEGIN: bool(prefix), ADD_END: bool(suffix)}
    metadata |= _special(use, numbers, texts, prefix, suffix)
    if isinstance(use.get("chat_template"), str):
        metadata[CHAT_TEMPLATE] = use["chat_template"]
    return metadata


def _as_read(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata in the types that ``read_gguf_header`` returns."""
    arrays = {key: np.asarray(metadata[key]) for key in (TYPES, SCORES) if key in metadata}
    return {**metadata, **arrays}


def _texts(content: Mapping[str, Any], vocab_size: int) -> list[str]:
    """Return tokens by number, with placeholders for numbers without a token."""
    texts = [f"[PAD{number}]" for number in range(vocab_size)]
    for text, number in _vocabulary(content).items():
        texts[number] = text
    return texts


def _vocabulary(content: Mapping[str, Any]) -> dict[str, int]:
    added = {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
    return {**content["model"]["vocab"], **added}


def _kinds(content: Mapping[str, Any], texts: list[str]) -> list[int]:
    used, has_bytes = set(_vocabulary(content).values()), content["model"].get("byte_fallback")
    kinds = [
        TokenType.NORMAL if number in used else TokenType.UNUSED for number in range(len(texts))
    ]
    if has_bytes:
        for byte in range(N_BYTES):
            kinds[content["model"]["vocab"][f"<0x{byte:02X}>"]] = TokenType.BYTE
    for token in content.get("added_tokens") or ():
        is_special = token.get("special", False)
        kinds[token["id"]] = TokenType.CONTROL if is_special else TokenType.USER_DEFINED
    unknown = content["model"].get("unk_token")
    if has_bytes and unknown is not None:
        kinds[_vocabulary(content)[unknown]] = TokenType.UNKNOWN
    return [int(kind) for kind in kinds]


def _pair(merge: Any) -> tuple[str, str]:
    """Return a merge, which is a list since tokenizers 0.20 and a text before."""
    pair = merge.split(" ") if isinstance(merge, str) else merge
    if len(pair) != 2:
        raise TypeError(f"merges must be pairs, got {shown(merge)}")
    return pair[0], pair[1]


def _scores(texts: list[str], merges: list[tuple[str, str]]) -> list[float]:
    """Return scores of tokens that give the order of ``merges``."""
    ranks: dict[str, int] = {}
    for first, second in merges:
        ranks.setdefault(first + second, len(ranks))
    return [float(-ranks[text]) if text in ranks else _NEVER for text in texts]


def _rules_of(content: Mapping[str, Any]) -> str:
    """Return the name of the rules that split texts, the first name if none are equal."""
    part = list(_cutting(content))
    for name, rules in PRE_TOKENIZERS.items():
        ours = {
            "pre_tokenizer": rules.to_json(),
            "normalizer": {"type": "NFC"} if rules.is_composed else None,
            "model": {"ignore_merges": rules.ignores_merges},
        }
        if list(_cutting(ours)) == part:
            return name
    return next(iter(PRE_TOKENIZERS))


def _special(
    use: Mapping[str, Any],
    numbers: Mapping[str, Any],
    texts: list[str],
    prefix: list[str],
    suffix: list[str],
) -> dict[str, int]:
    """Return numbers of special tokens: those added around a text, else those of the files."""
    around = {"bos_token": prefix, "eos_token": suffix}
    found = {}
    for name, key in SPECIAL.items():
        text = use.get(name)
        text = text.get("content") if isinstance(text, dict) else text
        text = around[name][0] if around.get(name) else text
        number = numbers.get(f"{name}_id")
        if isinstance(number, list) and number:
            number = number[0]
        if text in texts:
            found[key] = texts.index(text)
        elif type(number) is int and 0 <= number < len(texts):
            found[key] = number
    return found


def _around(step: Any) -> tuple[list[str], list[str]]:
    """Return the tokens that a ``post_processor`` adds before and after a text."""
    before: list[str] = []
    after: list[str] = []
    for each in _steps(step, "processors"):
        if each["type"] == "TemplateProcessing":
            side = before
            for part in each["single"]:
                if "Sequence" in part:
                    side = after
                else:
                    side.append(part["SpecialToken"]["id"])
        elif each["type"] != _BYTES:
            # Not supported: the comparison with the metadata fails on it.
            before.append(str(each))
    return before, after


def _byte_characters() -> set[str]:
    """Return byte-level BPE's characters of bytes: printable Latin-1, others from 256 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    n_others = N_BYTES - len(plain)
    return {chr(code) for code in (*plain, *range(N_BYTES, N_BYTES + n_others))}


def _steps(step: Any, key: str) -> Iterator[dict[str, Any]]:
    """Yield the steps of a part in their order, with nested sequences flattened."""
    if step is None:
        return
    if step["type"] == "Sequence":
        for each in step[key]:
            yield from _steps(each, key)
    else:
        yield step


def _cutting(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the parts that decide how a text is split before pairs are joined."""
    yield "normalizer", list(_steps(content.get("normalizer"), "normalizers"))
    # Tokens do not depend on trim_offsets. Older files lack use_regex, which then is true.
    without, by_default = {"trim_offsets"}, {"use_regex": True}
    yield (
        "pre_tokenizer",
        [
            {
                key: value
                for key, value in (by_default | step if step["type"] == _BYTES else step).items()
                if key not in without
            }
            for step in _steps(content.get("pre_tokenizer"), "pretokenizers")
        ],
    )
    yield "model.ignore_merges", bool(content["model"].get("ignore_merges"))


def _essence(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield all parts that decide about tokens, each with its name."""
    yield from _cutting(content)
    model, has_bytes = content["model"], bool(content["model"].get("byte_fallback"))
    yield "model.vocab", _vocabulary(content)
    yield "model.merges", [_pair(merge) for merge in model["merges"]]
    yield "model.dropout", model.get("dropout") or None
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        yield f"model.{key}", model.get(key) or None
    yield "model.byte_fallback", has_bytes
    # Where every byte is a token, none is unknown.
    if has_bytes or not _byte_characters() <= model["vocab"].keys():
        for key in ("unk_token", "fuse_unk"):
            yield f"model.{key}", model.get(key) or None
    yield "post_processor", _around(content.get("post_processor"))
    has_normalizer = content.get("normalizer") is not None
    yield (
        "added_tokens",
        {
            token["id"]: (
                token["content"],
                bool(token.get("special")),
                *(bool(token.get(key)) for key in ("single_word", "lstrip", "rstrip")),
                has_normalizer and bool(token.get("normalized")),
            )
            for token in content.get("added_tokens") or ()
        },
    )
    yield "decoder", [step["type"] for step in _steps(content.get("decoder"), "decoders")]
