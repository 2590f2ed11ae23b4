"""Measured records on disk: one JSON object a line, appended whole, schema checked on read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from predictors.meters.base import EnergyReading
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

SCHEMA_VERSION = 4
Role = Literal["candidate", "reference"]
# Most bytes of a file: ten times the records of the largest planned campaign.
_MAX_BYTES = 1 << 30
# Every line begins so, by the order of the fields.
_BEGINNING = '{"architecture": {'
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class EnergyRecord:
    """One measurement with all data to assess or repeat it.

    ``repeats_j`` are raw joules per unit (sample or token) of each accepted window, in order;
    drift is corrected on reading (``measurement.drift``). ``job`` names the process that measured.
    Its host, its board with all settings, the driver's version and the flags are in ``reading``.
    ``mode`` is how the model ran (eager, compiled, graph). ``spent_energy_j`` is the cost of the
    measurement itself. ``dram_energy_j`` is per unit, of memory with its own sensor. The record
    has the highest temperature, the median clock, all throttle reasons (a bit mask) and the
    largest difference of the counter from integrated power over its windows. ``seed`` generated
    the weights, and the inputs unless ``has_real_inputs``. ``compile_s`` is 0 without compilation.

    In a campaign, ``item`` names the planned item, ``role`` is candidate or fixed reference,
    ``session`` is one run of the command, and ``order`` counts within it. ``reference`` is the
    ``job`` of the last reference before it in its session, empty if there is none. ``drift``
    contains flags of ``measurement.drift``, empty on disk. ``origin`` says which checkpoint the
    architecture and its weights came from, empty for random or trained weights of our own.
    """

    architecture: Architecture
    workload: Workload
    reading: EnergyReading
    repeats_j: tuple[float, ...]
    job: str
    mode: str
    date: str
    versions: dict[str, str]
    protocol: dict[str, Any]
    spent_energy_j: float
    temperature_c: float | None = None
    sm_clock_mhz: float | None = None
    throttle_reasons: int | None = None
    idle_power_w: float | None = None
    tick_s: float | None = None
    cross_check: float | None = None
    dram_energy_j: float | None = None
    seed: int = 0
    has_real_inputs: bool = False
    compile_s: float = 0.0
    item: str = ""
    role: Role = "candidate"
    session: str = ""
    order: int = 0
    reference: str = ""
    drift: tuple[str, ...] = ()
    origin: str = ""

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of the reading, then those of its correction for drift."""
        return (*self.reading.flags, *self.drift)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; ``from_dict`` reads it."""
        data = {f.name: getattr(self, f.name) for f in fields(self)}
        # Left out where empty, so that records without a checkpoint stay as they are.
        if not self.origin:
            del data["origin"]
        return data | {
            "schema": SCHEMA_VERSION,
            "architecture": self.architecture.to_dict(),
            "workload": self.workload.to_dict(),
            "reading": self.reading.to_dict(),
            "repeats_j": list(self.repeats_j),
            "flags": list(self.flags),
            "drift": list(self.drift),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EnergyRecord:
        """Read the result of ``to_dict``.

        Raises:
            ValueError: another schema, a missing or unknown key, or a value not allowed.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"energy record must be an object, got {data!r}")
        if data.get("schema") != SCHEMA_VERSION:
            raise ValueError(
                f"energy record must have schema {SCHEMA_VERSION}, got {data.get('schema')!r}"
            )
        # ``flags`` repeats the reading's flags for human readers of the file.
        values = {key: value for key, value in data.items() if key not in ("schema", "flags")}
        names = {f.name for f in fields(cls)}
        if values.keys() | {"origin"} != names:
            odd = ", ".join(sorted(map(str, (values.keys() | {"origin"}) ^ names)))
            raise ValueError(f"energy record has missing or unknown keys: {odd}")
        values["architecture"] = Architecture.from_dict(values["architecture"])
        values["workload"] = Workload.from_dict(values["workload"])
        values["reading"] = EnergyReading.from_dict(values["reading"])
        values["repeats_j"] = tuple(values["repeats_j"])
        values["drift"] = tuple(values["drift"])
        if values["role"] not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}, got {values['role']!r}")
        return cls(**values)


@dataclass(frozen=True, slots=True)
class RecordFile:
    """Records of a file; ``cut_off`` is true if a half-written line was omitted."""

    records: tuple[EnergyRecord, ...]
    cut_off: bool


def append_records(path: Path, records: Iterable[EnergyRecord]) -> None:
    """Append records, each on disk before the next; end a cut-off last line first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for record in records:
        append_line(path, record.to_dict())


def append_line(path: Path, data: Mapping[str, Any]) -> None:
    """Append ``data`` as a line of JSON and flush it to disk; end a cut-off line first.

    Raises:
        OSError: it could not be written whole, for example on a full disk; has the file's name.
    """
    line = json.dumps(data, allow_nan=False) + "\n"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line
            left = line.encode()
            # A nearly full disk accepts a part of the line; only the next call raises.
            while left:
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def read_records(path: Path) -> RecordFile:
    """Read a file of records without half-written lines.

    Raises:
        ValueError: the file is missing, or a line is neither a record nor the beginning of one.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"records {path} must be a file")
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"records {path} must be at most {_MAX_BYTES} bytes")
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise ValueError(f"records {path} must be a readable text file: {error}") from None
    records: list[EnergyRecord] = []
    cut_off = False
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except json.JSONDecodeError as error:
            # A kill during a write leaves the beginning of a record.
            if line.startswith(_BEGINNING) or _BEGINNING.startswith(line):
                cut_off = True
                continue
            raise ValueError(f"records {path} line {number}: no record, {error}") from None
        except RecursionError:
            raise ValueError(f"records {path} line {number}: nested too deeply") from None
        try:
            records.append(EnergyRecord.from_dict(data))
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
            raise ValueError(f"records {path} line {number}: {error}") from None
    return RecordFile(tuple(records), cut_off)
