"""A checkpoint's configuration: typed access by key, and which keys were read."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from nas.core.names import printable
from search_spaces.pretrained.files.keys import HARMLESS, UNSUPPORTED

Value = TypeVar("Value")

# Greatest sizes that are read. They bound the memory that a description takes, and keep products
# of sizes within 64 bits; the largest public models are far below.
MOST_LAYERS, MOST_HEADS, MOST_HEAD_SIZE = 1_000, 2**12, 2**14
MOST_WIDTH, MOST_VOCABULARY = 2**20, 2**24
# Rotary positions have no table.
MOST_TABLE, MOST_POSITIONS = 2**24, 2**30


def shown(value: object) -> str:
    """Return a value of an untrusted file as one short line."""
    # Arrays have several lines.
    text = " ".join(repr(value).split("\n"))
    return text if len(text) <= 80 else f"{text[:77]}..."


class Config:
    """Values of ``config.json``, or of one object in it, by key."""

    def __init__(self, values: Mapping[str, Any], path: Path, prefix: str = "") -> None:
        """``prefix`` is that of the keys in messages."""
        self.values, self.path, self._prefix = values, path, prefix
        self._read: set[str] = set()

    def __contains__(self, key: str) -> bool:
        """Whether there is a value that is not null."""
        return self.values.get(key) is not None

    def error(self, key: str, allowed: str, value: object) -> ValueError:
        """Make the error of a value, which says what is allowed."""
        name = printable(f"{self._prefix}{key}"[:80])
        return ValueError(f"{self.path}: {name} must be {allowed}, got {shown(value)}")

    def take(self, key: str) -> Any:
        """Return the value as it is, ``None`` where it is absent."""
        self._read.add(key)
        return self.values.get(key)

    def integer(
        self, key: str, default: int | None = None, *, least: int = 1, most: int = MOST_WIDTH
    ) -> int:
        """Return an integer in ``least..most``; required without a ``default``."""
        value = self.take(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.error(key, f"an integer in {least}..{most}", value)
        return value

    def number(self, key: str, default: float | None = None, *, above: float = 0.0) -> float:
        """Return a finite number above ``above``; required without a ``default``."""
        value = self.take(key)
        if value is None and default is not None:
            return default
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # Integers of JSON have any size.
        if not is_number or not abs(value) < 1e300 or not math.isfinite(value) or value <= above:
            raise self.error(key, f"a finite number above {above:g}", value)
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(key, "true or false", value)
        return value

    def choice(self, key: str, allowed: Mapping[str, Value]) -> Value:
        """Return what ``allowed`` has for the text under ``key``."""
        value = self.take(key)
        if not isinstance(value, str) or value not in allowed:
            raise self.error(key, f"one of {', '.join(allowed)}", value)
        return allowed[value]

    def require(self, key: str, values: Collection[object]) -> None:
        """Raise ``ValueError`` unless the value is absent, null or one of ``values``."""
        value = self.take(key)
        # By identity of types too: 1 is no flag.
        if value is None or any(type(value) is type(x) and value == x for x in values):
            return
        allowed = ", ".join(["null", *(repr(x).lower() for x in values)])
        raise self.error(key, f"{allowed} or left out (others are not supported)", value)

    def section(self, key: str) -> Config | None:
        """Return the object under ``key``, ``None`` where it is null or absent."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(key, "an object", value)
        return Config(value, self.path, f"{self._prefix}{key}.")

    def check_supported(self) -> None:
        """Raise ``ValueError`` naming a key that is on and that no family supports."""
        for key, what in UNSUPPORTED.items():
            value = self.take(key)
            if value not in (None, False, 0, {}, []):
                raise self.error(key, f"null or left out ({what}: not supported)", value)

    def unread(self, harmless: Collection[str] = ()) -> tuple[str, ...]:
        """Keys that were neither read nor are harmless, sorted."""
        return tuple(sorted(self.values.keys() - self._read - HARMLESS - set(harmless)))
