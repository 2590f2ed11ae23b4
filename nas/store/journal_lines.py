"""Lines of a study's journal, checked alike by whoever reads them.

A damaged line may have held a result, and lines after it count trials from those before, so
that no reader passes one over: all of them refuse the file, naming the line and the way out.
"""

from __future__ import annotations

import datetime
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages.journal._storage import JournalOperation
from optuna.study import StudyDirection
from optuna.trial import TrialState

from nas.core.names import printable

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
# Of a trial that is made whole, as where a study is copied, what it may have besides.
_OF_WHOLE: _Types = {
    "params": dict,
    "distributions": dict,
    "user_attrs": dict,
    "system_attrs": dict,
    "intermediate_values": dict,
    "values": (list, _NONE),
    "value": (int, float, _NONE),
}
#: The user attribute that holds a trial's record.
RECORD = "joulenas"
#: States of a trial that has ended.
ENDED = frozenset(state.value for state in TrialState if state.is_finished())
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
    try:
        _check_values(entry, code)
    except (TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ValueError(
            f"it is not as Optuna writes it ({type(error).__name__}: {error})"
        ) from None
    return entry


def _check_values(entry: Entry, code: object) -> None:
    """Raise where a replay would: no reader takes what another cannot follow."""
    if "state" in entry and entry["state"] not in _STATES:
        raise ValueError(f"it is not as Optuna writes it: its state is {entry['state']!r}")
    for key in _TIMES:
        if entry.get(key) is not None:
            datetime.datetime.fromisoformat(entry[key])
    if code == JournalOperation.CREATE_TRIAL:
        _check_whole(entry)
    elif code == JournalOperation.SET_TRIAL_PARAM:
        _check_parameter(entry["distribution"], entry["param_value_internal"])
    elif code == JournalOperation.CREATE_STUDY:
        for direction in entry["directions"]:
            StudyDirection(direction)
    else:
        for key in ("user_attr", "system_attr"):
            if key in entry and len(entry[key]) != 1:
                raise ValueError(f"it is not as Optuna writes it: its {key} must have one key")
        _check_numbers(entry.get("values"))


def _check_whole(made: Entry) -> None:
    for key, kind in _OF_WHOLE.items():
        if key in made and not isinstance(made[key], kind):
            raise ValueError(f"it is not as Optuna writes it: its {key} is wrong")
    if "datetime_complete" in made and made["datetime_complete"] is None:
        raise ValueError("it is not as Optuna writes it: its datetime_complete is missing")
    if made.get("value") is not None and made.get("values") is not None:
        raise ValueError("it is not as Optuna writes it: it has value and values")
    _check_numbers(made.get("values"))
    for step in made.get("intermediate_values", ()):
        int(step)
    distributions = made.get("distributions", {})
    for text in distributions.values():
        _distribution(text)
    params = made.get("params", {})
    if params.keys() != distributions.keys():
        raise ValueError("it is not as Optuna writes it: its params and distributions differ")
    for name, value in params.items():
        _check_parameter(distributions[name], value)


def _check_numbers(values: list[Any] | None) -> None:
    for value in values or ():
        if not isinstance(value, int | float):
            raise ValueError(f"it is not as Optuna writes it: {value!r} of its values is wrong")


# A study has a few dozen distributions, each with a few values, and each trial names them all.
@lru_cache(maxsize=4096)
def _check_parameter(distribution: str, value: float) -> None:
    _distribution(distribution).to_external_repr(value)


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


class TrialsMade:
    """How many trials a journal's lines have made so far; records are of one of them.

    A journal of several studies is left to Optuna.
    """

    def __init__(self) -> None:
        """No line was read."""
        self.n_studies = self.n_trials = 0

    def take(self, entry: Entry) -> int | None:
        """Count the entry; returns the trial that it makes, if it makes one.

        Raises:
            ValueError: it is a record of a trial that no line has made, or ends one at no time.
        """
        operation = entry["op_code"]
        if operation == JournalOperation.CREATE_STUDY:
            self.n_studies += 1
        elif operation == JournalOperation.CREATE_TRIAL:
            if 0 <= entry["study_id"] < self.n_studies:
                self.n_trials += 1
                return self.n_trials - 1
        elif "trial_id" in entry and self.n_studies == 1:
            is_made = 0 <= entry["trial_id"] < self.n_trials
            if not is_made and RECORD in entry.get("user_attr", ()):
                raise ValueError(f"the line that made trial {entry['trial_id']} is gone")
            if is_made and entry.get("state") in ENDED and not entry.get("datetime_complete"):
                raise ValueError("it is not as Optuna writes it: its datetime_complete is missing")
        return None


def damaged(path: Path, start: int, why: str) -> StorageError:
    """The error of the line that begins after ``start`` bytes of the journal at ``path``."""
    with path.open("rb") as file:
        number, left = 1, start
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            number += block.count(b"\n")
            left -= len(block)
        text = file.readline(_SHOWN).decode(errors="replace").rstrip("\n")
    return StorageError(
        f"study {printable(str(path))} is damaged at line {number}: {why} (it begins {text!r}). "
        f"Nothing was changed. Keep a copy of the file, then take the line out if another program "
        f"wrote it (sed -i {number}d {path.name}), or put back a copy from before; nas resume "
        f"goes on then"
    )
