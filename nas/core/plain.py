"""Convert frozen records to plain data for JSON and back, checked by the types of their fields."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
# Function that converts and checks a value; the first argument is its name in error messages.
_Reader = Callable[[str, Any], Any]
_PLAIN = (int, float, str, bool, NoneType)


def to_plain(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as plain data for JSON."""
    return {field.name: plain(getattr(record, field.name)) for field in fields(record)}


def from_plain(cls: type[T], data: Any, what: str, *, is_whole: bool = False) -> T:
    """Create a ``cls`` from the result of ``to_plain``.

    Fields with a default may be absent, unless the data must be ``is_whole``.

    Raises:
        ValueError: a key is unknown or missing, or a value is not allowed; the message names
            ``what``.
    """
    reader: Any = _record_reader
    created: Any = reader(cls)(what, data)
    missing = [field.name for field in fields(created) if field.name not in data]
    if is_whole and missing:
        raise ValueError(f"{what} must have {', '.join(missing)}")
    record: T = created
    return record


def plain(value: Any) -> Any:
    """Return a field's value as plain data for JSON."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if is_dataclass(value):
        return to_plain(value)
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    # A NumPy scalar: ``json`` supports only some of them.
    return value.item() if hasattr(value, "item") else value


def require_int(name: str, value: object, least: int) -> None:
    """Raise ``ValueError`` that names ``name`` unless ``value`` is an integer >= ``least``."""
    if type(value) is not int or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")


@lru_cache(maxsize=256)
def _record_reader(cls: Any) -> _Reader:
    hints = get_type_hints(cls)
    readers = {field.name: _reader(hints[field.name]) for field in fields(cls)}
    required = {
        field.name
        for field in fields(cls)
        if field.default is MISSING and field.default_factory is MISSING
    }

    def read(name: str, data: Any, path: str = "") -> Any:
        if not isinstance(data, Mapping):
            raise ValueError(f"{name} must be a mapping, got {type(data).__name__}")
        if data.keys() - readers.keys():
            unknown = ", ".join(sorted(map(str, data.keys() - readers.keys())))
            raise ValueError(
                f"{name} has unknown key {unknown}; allowed are {', '.join(sorted(readers))}"
            )
        if required - data.keys():
            raise ValueError(f"{name} must have {', '.join(sorted(required - data.keys()))}")
        return cls(**{key: readers[key](path + key, value) for key, value in data.items()})

    return read


@lru_cache(maxsize=256)
def _reader(hint: Any) -> _Reader:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        types = [each for each in arguments if each is not NoneType]
        if all(each in _PLAIN for each in types):
            return _plain_reader(frozenset(arguments))
        read = _reader(types[0])
        return lambda name, value: None if value is None else read(name, value)
    if origin is tuple:
        read = _reader(arguments[0])
        return lambda name, value: tuple(read(name, each) for each in _checked(name, value, list))
    if origin in (Mapping, dict):
        read = _reader(arguments[1])
        return lambda name, value: {
            _text(name, key): read(name, each) for key, each in _checked(name, value, dict).items()
        }
    if origin is Literal:
        return lambda name, value: _one_of(name, value, arguments)
    if hasattr(hint, "from_dict"):
        return lambda _, value: hint.from_dict(value)
    if is_dataclass(hint):
        record: Any = _record_reader(hint)  # type: ignore[arg-type]
        return lambda name, value: record(name, value, f"{name}.")
    return _plain_reader(frozenset({hint}))


def _plain_reader(types: frozenset[type]) -> _Reader:
    def read(name: str, value: Any) -> Any:
        # An int is accepted as a float; infinities and NaN are not allowed.
        kind = float if type(value) is int and int not in types else type(value)
        if kind not in types or (kind is float and not math.isfinite(value)):
            allowed = " or ".join(sorted("none" if t is NoneType else t.__name__ for t in types))
            raise ValueError(f"{name} must be {allowed}, got {value!r}")
        return value

    return read


def _checked(name: str, value: Any, kind: type) -> Any:
    if not isinstance(value, (list, tuple) if kind is list else kind):
        raise ValueError(f"{name} must be a {kind.__name__}, got {value!r}")
    return value


def _text(name: str, key: Any) -> str:
    if not isinstance(key, str):
        raise ValueError(f"keys of {name} must be str, got {key!r}")
    return key


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value!r}")
    return value
