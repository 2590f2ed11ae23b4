"""Whether the plain fields of a record that was read hold values of their types."""

from __future__ import annotations

import math
from functools import lru_cache
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

_PLAIN = frozenset({int, float, str, bool, NoneType})


def check_plain_fields(record: object) -> None:
    """Check the fields of a dataclass whose types are of text, numbers, truth values and ``None``.

    A whole number is a ``float`` too; one that is not finite is none.

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
