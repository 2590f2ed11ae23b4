"""Validate keys and integers of records."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import fields
from typing import Any


def exact_keys(
    what: str, data: Any, record: Any, optional: Set[str] = frozenset()
) -> dict[str, Any]:
    """Return ``data`` as a dict if its keys are the fields of the dataclass ``record``.

    Raises:
        ValueError: a key is unknown, or missing and not ``optional``; the message names ``what``.
    """
    allowed = {field.name for field in fields(record)}
    if not isinstance(data, Mapping) or data.keys() | optional != allowed:
        got = ", ".join(sorted(map(str, data))) if isinstance(data, Mapping) else repr(data)
        raise ValueError(
            f"{what} must have exactly the keys {', '.join(sorted(allowed))}, got {got}"
        )
    return dict(data)


def require_int(name: str, value: object, least: int) -> None:
    """Raise ``ValueError`` that names ``name`` unless ``value`` is an integer >= ``least``."""
    if type(value) is not int or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
