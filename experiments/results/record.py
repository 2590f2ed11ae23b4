"""One result of a benchmark: its tables, and all that is needed to make them again."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from experiments.results.table import Table
from nas.core.files import as_written, read_json, write_json

FOLDER = Path(__file__).parent
SCHEMA_VERSION = 1
_PLAIN = frozenset({int, float, str, bool, NoneType})
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it ran: ``load_before`` and ``load_after`` are load averages over a minute."""

    device: str
    cpu: str
    cores: int
    system: str
    load_before: float | None
    load_after: float | None

    def __post_init__(self) -> None:
        """Check the types and that there are cores.

        Raises:
            ValueError: a field is wrong.
        """
        _check_plain_fields(self)
        if self.cores < 1:
            raise ValueError(f"cores must be >= 1, got {self.cores}")


@dataclass(frozen=True, slots=True)
class Result:
    """What one command found on one day, on one machine.

    ``revision`` is the commit of the code, with ``+`` behind where files differed from it, and
    ``None`` where nothing tells. Seconds are of the whole command: ``cpu_s`` of all its processes
    that ended, ``wall_s`` by the clock.
    """

    theme: str
    hardware: str
    date: str
    about: str
    command: str
    config: Mapping[str, Any]
    machine: Machine
    versions: Mapping[str, str]
    revision: str | None
    cpu_s: float | None
    wall_s: float | None
    tables: tuple[Table, ...]
    note: str = ""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: a field is wrong; the message names it, its value and what is allowed.
        """
        _check_plain_fields(self)
        for name in ("theme", "hardware"):
            if not _SLUG.fullmatch(getattr(self, name)):
                raise ValueError(
                    f"{name} must be words in small letters with '-' between them, got "
                    f"{getattr(self, name)!r}"
                )
        datetime.date.fromisoformat(self.date)
        if not self.command.startswith("python -m experiments."):
            raise ValueError(
                f"command must begin with 'python -m experiments.', got {self.command!r}"
            )
        if not self.about or not self.tables:
            raise ValueError("about and tables must not be empty")
        if len({table.name for table in self.tables}) < len(self.tables):
            raise ValueError(f"tables must have different names, got {self.tables!r}")
        for key, value in self.versions.items():
            if not isinstance(value, str):
                raise ValueError(f"versions[{key!r}] must be text, got {value!r}")

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.theme}_{self.hardware}_{self.date}.json"

    def table(self, name: str) -> Table:
        """One table.

        Raises:
            ValueError: there is none of that name.
        """
        found = {table.name: table for table in self.tables}
        if name not in found:
            raise ValueError(f"table must be one of {', '.join(found)}, got {name!r}")
        return found[name]

    def source(self) -> str:
        """One line: command, machine and date."""
        cores = f"{self.machine.cores} core{'s' if self.machine.cores > 1 else ''}"
        where = self.machine.device
        if where == self.machine.cpu:
            where = f"{where}, {cores}"
        return f"`{self.command}`, {where}, {self.date}"

    def write(self, folder: Path) -> Path:
        """Keep it under its name, whole or not at all."""
        path = folder / self.name
        data = {"schema": SCHEMA_VERSION} | {
            field.name: getattr(self, field.name) for field in fields(self)
        }
        data |= {
            "machine": asdict(self.machine),
            "config": dict(self.config),
            "versions": dict(self.versions),
            "tables": [table.to_dict() for table in self.tables],
        }
        write_json(path, data)
        return path

    @classmethod
    def read(cls, path: Path) -> Result:
        """What ``write`` kept.

        Raises:
            ValueError: the file is missing or not such a result, or its name is another's.
        """
        data = read_json(path)
        with as_written(str(path)):
            if data.pop("schema") != SCHEMA_VERSION:
                raise ValueError(f"{path} must be of schema {SCHEMA_VERSION}")
            tables = tuple(Table.from_dict(table) for table in data.pop("tables"))
            found = cls(**data | {"machine": Machine(**data["machine"]), "tables": tables})
        if found.name != path.name:
            raise ValueError(f"{path} must be named {found.name}, by what it holds")
        return found


def kept(folder: Path = FOLDER) -> list[Result]:
    """Every result of a folder, by name."""
    return [Result.read(path) for path in sorted(folder.glob("*.json"))]


def _check_plain_fields(record: object) -> None:
    """Raise ``ValueError`` for a text, number or truth value of another type than its field's."""
    for name, hint in get_type_hints(type(record)).items():
        types = frozenset(get_args(hint) if get_origin(hint) is UnionType else (hint,))
        value = getattr(record, name)
        kind = float if type(value) is int and int not in types else type(value)
        is_finite = kind is not float or math.isfinite(value)
        if types <= _PLAIN and (kind not in types or not is_finite):
            allowed = " or ".join(sorted("none" if t is NoneType else t.__name__ for t in types))
            raise ValueError(f"{name} must be {allowed}, got {value!r}")
