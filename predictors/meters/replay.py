"""Replay recorded windows: run everything above a meter with no sensor, as tests and demos do.

The log is JSON lines, each the fields of a ``Window``; the first line is
``{"replay": 1, "source": ..., "device": ..., "is_estimate": ...}``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

from predictors.meters.base import Meter, MeterError, Window, Work

_VERSION = 1


class ReplayMeter:
    """``Meter`` that returns the windows of a log in order."""

    name = "replay"

    def __init__(self, log: Path) -> None:
        """Read the log.

        Raises:
            MeterError: the file is not a log of windows; one line that says where.
        """
        try:
            lines = log.read_text(encoding="utf-8").splitlines()
            head = json.loads(lines[0])
            if head.get("replay") != _VERSION:
                raise ValueError(f"version must be {_VERSION}, got {head.get('replay')!r}")
            self.source = f"replay of {head['source']}"
            self.device = str(head["device"])
            self.is_estimate = bool(head["is_estimate"])
            self._windows = [_window(line) for line in lines[1:]]
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise MeterError(f"replay log {log} must be recorded windows: {error}") from None
        self._next = 0
        self._is_open = False

    def begin(self, work: Work) -> None:
        """See ``Meter.begin``."""
        if self._is_open:
            raise MeterError("a window is already open")
        self._is_open = True

    def end(self, work: Work) -> Window:
        """See ``Meter.end``.

        Raises:
            MeterError: no window is open, or the log has no more.
        """
        if not self._is_open:
            raise MeterError("no window is open")
        self._is_open = False
        if self._next == len(self._windows):
            raise MeterError(f"the replay log ends after {self._next} windows")
        self._next += 1
        return self._windows[self._next - 1]

    def close(self) -> None:
        """See ``Meter.close``."""
        self._is_open = False


class RecordingMeter:
    """Passes every call to ``meter`` and writes its windows to a log for ``ReplayMeter``."""

    def __init__(self, meter: Meter, log: Path) -> None:
        """Start the log."""
        self.name, self.source = meter.name, meter.source
        self.device, self.is_estimate = meter.device, meter.is_estimate
        self._meter, self._log = meter, log
        head = {
            "replay": _VERSION,
            "source": meter.source,
            "device": meter.device,
            "is_estimate": meter.is_estimate,
        }
        log.write_text(json.dumps(head) + "\n", encoding="utf-8")

    def begin(self, work: Work) -> None:
        """See ``Meter.begin``."""
        self._meter.begin(work)

    def end(self, work: Work) -> Window:
        """See ``Meter.end``."""
        window = self._meter.end(work)
        with self._log.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(asdict(window)) + "\n")
        return window

    def close(self) -> None:
        """See ``Meter.close``."""
        self._meter.close()


def _window(line: str) -> Window:
    data = json.loads(line)
    unknown = data.keys() - {f.name for f in fields(Window)}
    if unknown:
        raise ValueError(f"a window has unknown key {', '.join(sorted(unknown))}")
    return Window(**data | {"flags": tuple(data.get("flags", ()))})
