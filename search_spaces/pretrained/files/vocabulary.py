"""Check that a tokenizer's tokens are in a network's vocabulary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search_spaces.pretrained.files.config import shown
from search_spaces.pretrained.files.folder import MOST_TOKENIZER, read_json


def check_vocabulary(path: Path, vocab_size: int) -> None:
    """Raise ``ValueError`` unless every token of a tokenizer's file is below ``vocab_size``."""
    if path.suffix == ".txt":
        if path.stat().st_size > MOST_TOKENIZER:
            raise ValueError(f"{path} must have at most {MOST_TOKENIZER} bytes")
        n_lines = len(path.read_bytes().splitlines())
        if n_lines > vocab_size:
            raise ValueError(
                f"{path} must have at most the {vocab_size} tokens of config.json's vocab_size, "
                f"got {n_lines}"
            )
        return
    largest = -1
    for where, number in _numbers(path):
        if type(number) is not int or not 0 <= number < vocab_size:
            raise ValueError(
                f"{path}: {where} must have tokens below the vocab_size of config.json, "
                f"{vocab_size}, got {shown(number)}"
            )
        largest = max(largest, number)
    if largest < 0:
        raise ValueError(f"{path}: model.vocab must hold tokens, got none")


def _numbers(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the numbers of all tokens, each with its place in the file."""
    data = read_json(path, most=MOST_TOKENIZER)
    model = data.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        yield from (("model.vocab", number) for number in vocabulary.values())
    elif isinstance(vocabulary, list):
        yield from (("model.vocab", number) for number in range(len(vocabulary)))
    else:
        raise ValueError(f"{path}: model.vocab must be an object or a list of tokens")
    added = data.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(token, dict) for token in added):
        raise ValueError(f"{path}: added_tokens must be a list of objects")
    yield from (("added_tokens", token.get("id")) for token in added)
