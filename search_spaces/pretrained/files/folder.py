"""Files of a checkpoint's folder, and JSON from untrusted ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeVar

from nas.core.names import first_line

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "vocab.txt")
PREPROCESSOR = "preprocessor_config.json"
_CARD = "README.md"
# Files beside the weights: they describe inputs and use, and no size of the network.
COMPANIONS = (
    *TOKENIZERS,
    PREPROCESSOR,
    "1_Pooling/config.json",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
    "added_tokens.json",
    "chat_template.jinja",
    "config_sentence_transformers.json",
    "generation_config.json",
    "merges.txt",
    "modules.json",
    "sentence_bert_config.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
# Greatest sizes in bytes of files that are parsed whole.
MOST_CONFIG, MOST_TOKENIZER, MOST_CARD = 2**20, 2**26, 2**20
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")


Kind = TypeVar("Kind", dict[str, Any], list[Any])


class Folder:
    """A checkpoint's folder; files outside it are never opened.

    Folders of the hub's cache hold links to the ``blobs`` beside them, which are allowed.
    """

    def __init__(self, path: Path) -> None:
        """Open a folder.

        Raises:
            ValueError: there is none, or it is a file.
        """
        if path.exists() and not path.is_dir():
            raise ValueError(f"checkpoint {str(path)!r} must be a folder or a file *.gguf")
        if not path.is_dir():
            raise ValueError(f"checkpoint folder {str(path)!r} must exist, and does not")
        self.path = path
        self._roots = [path.resolve()]
        if path.parent.name == "snapshots":
            self._roots.append(path.resolve().parent.parent / "blobs")

    def find(self, name: str) -> Path | None:
        """Return the file's path, ``None`` where there is none.

        Raises:
            ValueError: it is a link that leads out of the folder.
        """
        path = self.path / name
        if not path.is_file():
            return None
        resolved = path.resolve()
        if not any(resolved.is_relative_to(root) for root in self._roots):
            raise ValueError(f"{path} must be inside its folder, but leads to {resolved}")
        return path

    def require(self, name: str) -> Path:
        """Return the file's path.

        Raises:
            ValueError: there is none, or it leads out of the folder.
        """
        path = self.find(name)
        if path is None:
            raise ValueError(f"{self.path / name} must exist, and does not")
        return path

    def tokenizer(self) -> Path | None:
        """The tokenizer's file: ``tokenizer.json``, else ``vocab.txt``."""
        return next(filter(None, map(self.find, TOKENIZERS)), None)

    def pickle(self) -> str | None:
        """Name of a weight file of a form that is not read."""
        names = (path.name for kind in _PICKLES for path in self.path.glob(kind))
        return min(names, default=None)

    def license(self) -> str | None:
        """The licence that the card's first lines (YAML) name."""
        path = self.find(_CARD)
        if path is None:
            return None
        text = path.read_bytes()[:MOST_CARD].decode(errors="replace")
        if not text.startswith("---"):
            return None
        head = text[3:].partition("\n---")[0]
        match = re.search(r"^license:[ \t]*[\"']?([\w.+-]{1,100})[\"']?[ \t]*$", head, re.M | re.A)
        return match[1] if match else None


def read_json(path: Path, *, most: int = MOST_CONFIG) -> dict[str, Any]:
    """Return the object in a JSON file of at most ``most`` bytes.

    Raises:
        ValueError: the file is too large, or no JSON object with unique keys.
    """
    _check_size(path, most)
    return parse_json(path.read_bytes(), path)


def read_json_list(path: Path, *, most: int = MOST_CONFIG) -> list[Any]:
    """Return the list in a JSON file; otherwise as ``read_json``."""
    _check_size(path, most)
    return _parsed(path.read_bytes(), path, list)


def parse_json(data: bytes, where: object) -> dict[str, Any]:
    """Return the JSON object in ``data``; ``where`` begins messages.

    Raises:
        ValueError: it is no JSON object with unique keys.
    """
    return _parsed(data, where, dict)


def _check_size(path: Path, most: int) -> None:
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"{path} must have at most {most} bytes, got {size}")


def _parsed(data: bytes, where: object, kind: type[Kind]) -> Kind:
    try:
        value = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} must be JSON: {first_line(error)[:200]}") from None
    if not isinstance(value, kind):
        name = "object" if kind is dict else kind.__name__
        raise ValueError(f"{where} must be a JSON {name}, got a {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {double[:80]!r} stands there twice")
    return values
