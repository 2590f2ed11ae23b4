"""``--storage``: a database for the study, a place for files, or one of each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def add_storage(parser: Any, help_text: str) -> None:
    """``--storage``, of verbs that search."""
    parser.add_argument("--storage", action="append", metavar="URL", help=help_text)


def storage_of(given: Sequence[str] | None) -> dict[str, str]:
    """The fields of a ``SearchConfig`` that ``given`` sets: ``storage``, ``files_at`` or both.

    What names a folder or an object store is a place for files, all else a database.

    Raises:
        ValueError: there are two of a kind, or a place has a credential in it.
    """
    from nas.files import is_place, place_at
    from nas.searching.storage_url import shown

    found: dict[str, str] = {}
    for text in given or ():
        kind, value = "storage", text
        if is_place(text):
            kind = "files_at"
            # Whole, so that workers and a resumed search find a folder from anywhere.
            value = text if "://" in text else str(Path(text).expanduser().resolve())
            place_at(value)
        if kind in found:
            both = (found[kind], value)
            what, (first, second) = "a place for files", both
            if kind == "storage":
                what, (first, second) = "a database for the study", map(shown, both)
            raise ValueError(f"storage may name {what} once, got {first} and {second}")
        found[kind] = value
    return found
