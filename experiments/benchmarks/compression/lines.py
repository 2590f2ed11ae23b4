"""Results of the compression benchmark, one line for each choice and shape, in a file."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from search_spaces.compression.probing import device_name, versions

# On CUDA quantised variants are compiled and plain ones are not: these tell how much of a gain is
# the compiler's, and quantised variants are compared with the faster of both. On CPUs all are
# compiled.
COMPILED = ("fp32 compiled", "bf16 compiled")
# The same network once more: how far apart equals lie says how far a ratio can be trusted.
CONTROL = "bf16 again"
EAGER = "fp32 eager"
# Precisions and masks whose products read bf16 are compared with it.
_AGAINST_BF16 = ("fp8", "int8wo", "int4wo", "2:4")
_PAYS = 0.97


@dataclass(frozen=True, slots=True)
class Line:
    """One choice at one shape; ratios below 1 are a gain, ``None`` is what was not measured."""

    d_model: int
    batch_size: int
    choice: str
    status: str
    time_s: float | None = None
    time_to_eager: float | None = None
    time_to_fp32: float | None = None
    time_to_bf16: float | None = None
    size_bytes: int | None = None
    size_ratio: float | None = None
    output_error: float | None = None
    joules_per_sample: float | None = None
    joules_to_bf16: float | None = None
    mode: str | None = None
    kernel: str | None = None

    @property
    def verdict(self) -> str:
        """Whether the choice pays at this shape; fp32 is what it is compared with."""
        if self.choice in ("fp32", EAGER, *COMPILED, CONTROL):
            return ""
        if self.time_to_fp32 is None or self.status == "simulated":
            return self.status
        ratio = self.time_to_fp32
        if self.choice in _AGAINST_BF16 and self.time_to_bf16 is not None:
            ratio = self.joules_to_bf16 or self.time_to_bf16
        return "does not pay" if ratio > _PAYS else "pays"


def read_lines(path: Path, device: str) -> list[Line]:
    """Lines of this device and these versions; others in the file are left out."""
    if not path.exists():
        return []
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    here = _identity(device)
    return [Line(**r["line"]) for r in records if {k: r[k] for k in here} == here]


def _identity(device: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "device": device_name(device),
        "versions": versions(device) | {"python": platform.python_version()},
        "threads": torch.get_num_threads() if device == "cpu" else None,
    }


def append_lines(path: Path, lines: Sequence[Line], device: str) -> None:
    """Append ``lines`` with the identity of the device and the date."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    text = "".join(
        json.dumps(_identity(device) | {"date": now, "line": asdict(line)}, allow_nan=False) + "\n"
        for line in lines
    )
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
