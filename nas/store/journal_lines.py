"""Lines of a study's journal, checked alike by whoever reads them.

A damaged line may have held a result, and lines after it count trials from those before, so
that no reader passes one over: all of them refuse the file, naming the line and the way out.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState

Entry = dict[str, Any]
# A record of 256 layers takes a hundredth of it; untrusted input must not fill memory.
MOST_BYTES_IN_LINE = 16 * 1024 * 1024
_SHOWN = 40
_DECODER = json.JSONDecoder()
_Types = dict[str, type | tuple[type, ...]]
_OF_TRIAL: _Types = {"trial_id": int}
_OF_STUDY: _Types = {"study_id": int}
_NONE = type(None)
# By operation, the keys that Optuna's replay needs, and what they hold.
_NEEDED: dict[str, _Types] = {
    "CREATE_STUDY": {"study_name": str, "directions": list},
    "DELETE_STUDY": _OF_STUDY,
    "SET_STUDY_USER_ATTR": _OF_STUDY | {"user_attr": dict},
    "SET_STUDY_SYSTEM_ATTR": _OF_STUDY | {"system_attr": dict},
    "CREATE_TRIAL": _OF_STUDY | {"datetime_start": (str, _NONE)},
    "SET_TRIAL_PARAM": _OF_TRIAL
    | {"param_name": str, "param_value_internal": (int, float), "distribution": str},
    "SET_TRIAL_STATE_VALUES": _OF_TRIAL | {"state": int, "values": (list, _NONE)},
    "SET_TRIAL_INTERMEDIATE_VALUE": _OF_TRIAL | {"step": int, "intermediate_value": (int, float)},
    "SET_TRIAL_USER_ATTR": _OF_TRIAL | {"user_attr": dict},
    "SET_TRIAL_SYSTEM_ATTR": _OF_TRIAL | {"system_attr": dict},
}
_STATES = frozenset(int(state) for state in TrialState)
_TIMES = ("datetime_start", "datetime_complete")
_BY_CODE = {
    int(operation): list(_NEEDED.get(operation.name, {}).items()) for operation in JournalOperation
}


class StorageError(RuntimeError):
    """The study cannot be opened or read; the message says why in one line."""


def parse_line(line: bytes) -> Entry:
    """The operation that ``line`` holds.

    Raises:
        ValueError: it holds none; the message says why.
    """
    if len(line) > MOST_BYTES_IN_LINE:
        raise ValueError(f"it is longer than {MOST_BYTES_IN_LINE} bytes")
    try:
        entry = _DECODER.decode(line.decode())
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    if not isinstance(entry, dict):
        raise ValueError("it is no operation of Optuna's")
    code = entry.get("op_code")
    needed = _BY_CODE.get(code) if type(code) is int else None
    if needed is None or not isinstance(entry.get("worker_id"), str):
        raise ValueError("it is no operation of Optuna's")
    for key, kind in needed:
        if key not in entry or not isinstance(entry[key], kind):
            raise ValueError(f"it is not as Optuna writes it: its {key} is missing or wrong")
    if "state" in entry and entry["state"] not in _STATES:
        raise ValueError(f"it is not as Optuna writes it: its state is {entry['state']!r}")
    for key in _TIMES:
        if entry.get(key) is not None:
            datetime.datetime.fromisoformat(entry[key])
    return entry


def damaged(path: Path, start: int, why: str) -> StorageError:
    """The error of the line that begins after ``start`` bytes of the journal at ``path``."""
    with path.open("rb") as file:
        number, left = 1, start
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            number += block.count(b"\n")
            left -= len(block)
        text = file.readline(_SHOWN).decode(errors="replace").rstrip("\n")
    return StorageError(
        f"study {path} is damaged at line {number}: {why} (it begins {text!r}). Nothing was "
        f"changed. Keep a copy of the file, then take the line out if another program wrote it "
        f"(sed -i {number}d {path.name}), or put back a copy from before; nas resume goes on then"
    )
