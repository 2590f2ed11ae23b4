"""Check the keys of records that were read, and the types of their plain fields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import fields
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_PLAIN = frozenset({int, float, str, bool, NoneType})


def exact_keys(
    what: str, data: Any, record: Any, optional: Set[str] = frozenset()
) -> dict[str, Any]:
    """Return ``data`` as a dict if its keys are the fields of the dataclass ``record``.

    Raises:
        ValueError: a key is unknown, or missing and not ``optional``; names ``what``.
    """
    allowed = {field.name for field in fields(record)}
    if not isinstance(data, Mapping) or data.keys() | optional != allowed:
        got = ", ".join(sorted(map(str, data))) if isinstance(data, Mapping) else repr(data)
        raise ValueError(
            f"{what} must have exactly the keys {', '.join(sorted(allowed))}, got {got}"
        )
    return dict(data)


def check_plain_fields(record: object) -> None:
    """Check the fields of a dataclass that are texts, numbers, truth values or ``None``.

    An ``int`` is allowed as a ``float``; NaN and infinities are not.

    Raises:
        ValueError: a field is of another type; the message names field, value and types.
    """
    for name, types in _plain_fields(type(record)).items():  # type: ignore[arg-type]
        value = getattr(record, name)
        kind = float if type(value) is int and int not in types else type(value)
        if kind not in types or (kind is float and not math.isfinite(value)):
            allowed = " or ".join(sorted("none" if t is NoneType else t.__name__ for t in types))
            raise ValueError(f"{name} must be {allowed}, got {value!r}")


@lru_cache(maxsize=64)
def _plain_fields(cls: type[object]) -> dict[str, frozenset[type]]:
    found = {}
    for name, hint in get_type_hints(cls).items():
        is_union = get_origin(hint) in (Union, UnionType)
        types = frozenset(get_args(hint) if is_union else (hint,))
        if types <= _PLAIN:
            found[name] = types
    return found
