"""Read architectures from JSON, JSON lines, records, a front, or an artifact."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.core.files import MAX_JSON_BYTES, parse_json, read_json
from predictors.measurement.protocol import Protocol
from predictors.measurement.records import EnergyRecord, read_records
from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

# The file's name in ``nas.training.weights``, whose import would import torch.
_ARTIFACT_FILE = "architecture.json"


@dataclass(frozen=True, slots=True)
class Named:
    """An architecture; from a record also its workload and protocol."""

    architecture: Architecture
    workload: Workload | None = None
    protocol: Protocol | None = None


def read_named(path: Path) -> list[Named]:
    """Read the architectures in a .json file, a .jsonl file or the folder of an artifact.

    A .json file holds one, a list, or the output of ``nas front --json``, whose members are read.
    A .jsonl file holds one per line, or records, whose reference measurements are left out.

    Raises:
        ValueError: the file is missing or holds something else; the message names the file.
    """
    try:
        if path.is_dir():
            named = _from_json(read_json(path / _ARTIFACT_FILE))
        else:
            named = _from_lines(path) if path.suffix == ".jsonl" else _from_json(read_json(path))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"architectures {path}: {error}") from None
    if not named:
        raise ValueError(f"architectures {path}: must hold one or more, got none")
    return named


def _from_json(data: Any) -> list[Named]:
    if isinstance(data, dict) and isinstance(data.get("members"), list):
        data = data["members"]
    many = data if isinstance(data, list) else [data]
    # A record and the card of an artifact contain an architecture.
    inner = [one.get("architecture", one) if isinstance(one, dict) else one for one in many]
    return [Named(Architecture.from_dict(one)) for one in inner]


def _from_lines(path: Path) -> list[Named]:
    if not path.is_file():
        raise ValueError("must be a file that exists")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"must be at most {MAX_JSON_BYTES} bytes")
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    # A record begins with its architecture.
    if not lines or not lines[0].startswith('{"architecture"'):
        return [Named(Architecture.from_dict(parse_json(line, "a line"))) for line in lines]
    return [
        Named(record.architecture, record.workload, Protocol.from_dict(record.protocol))
        for record in read_complete_records(path)
        if record.role == "candidate"
    ]


def read_complete_records(path: Path) -> tuple[EnergyRecord, ...]:
    """Read records; a truncated last line is left out and reported on stderr.

    Raises:
        ValueError: the file is missing or contains something else.
    """
    file = read_records(path)
    if file.cut_off:
        print(f"{path}: skipped a truncated line", file=sys.stderr)
    return file.records
