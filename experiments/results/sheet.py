"""What a benchmark prints at its end, and keeps where ``--keep`` was given."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.results.record import FOLDER, Machine, Result
from experiments.results.table import Table
from nas.core.printing import print_anything
from nas.core.versions import versions
from predictors.meters.estimate import cpu_name

ROOT = Path(__file__).parents[2]
_OPTION = "keep"


def add_keep_option(parser: argparse.ArgumentParser) -> None:
    """The option that all benchmarks have."""
    parser.add_argument(
        f"--{_OPTION}",
        nargs="?",
        type=Path,
        const=FOLDER,
        metavar="FOLDER",
        help="keep the result there as THEME_HARDWARE_DATE.json (default: experiments/results)",
    )


class Sheet:
    """The result of one command: begun before its work, shown after it.

    Raises:
        SystemExit: with code 2 and one line, where the place of the result is another command's:
            better before hours of work than after them.
    """

    def __init__(
        self,
        parser: argparse.ArgumentParser,
        arguments: argparse.Namespace,
        theme: str,
        device: str = "cpu",
    ) -> None:
        """Begin to count seconds; ``theme`` is the first part of the file's name."""
        print_anything()
        self._arguments, self._theme, self._device = arguments, theme, device
        self._command = command_of(parser, arguments)
        self._about = (parser.description or "").strip().splitlines()[0]
        self._date = datetime.datetime.now(datetime.UTC).date().isoformat()
        self._began = (time.perf_counter(), _cpu_s(), _load())
        if self._folder is not None:
            path = self._folder / f"{theme}_{self._hardware()}_{self._date}.json"
            if path.exists() and (other := Result.read(path).command) != self._command:
                parser.error(f"{path.name} must be of the same command, and is of: {other}")

    def show(self, *tables: Table, note: str = "", keep: bool = True) -> None:
        """Print the tables, and keep them where that was asked for, and they are whole."""
        print("\n\n".join([table.text() for table in tables] + ([note] if note else [])))
        if keep and (path := self.keep(*tables, note=note)):
            print(f"kept: {path}", file=sys.stderr)

    def keep(self, *tables: Table, note: str = "") -> Path | None:
        """Keep the tables where that was asked for, in place of what was kept before."""
        if self._folder is None:
            return None
        wall_s, cpu_s, load = self._began
        result = Result(
            theme=self._theme,
            hardware=self._hardware(),
            date=self._date,
            about=self._about,
            command=self._command,
            config=config_of(self._arguments),
            machine=Machine(
                device=self._device_name(),
                cpu=cpu_name(),
                cores=_cores(),
                system=f"{platform.system()} {platform.machine()}",
                load_before=load,
                load_after=_load(),
            ),
            versions=versions(),
            revision=revision(),
            cpu_s=round(_cpu_s() - cpu_s, 1),
            wall_s=round(time.perf_counter() - wall_s, 1),
            tables=tables,
            note=note,
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        return result.write(self._folder)

    @property
    def _folder(self) -> Path | None:
        found: Path | None = getattr(self._arguments, _OPTION)
        return found

    def _device_name(self) -> str:
        if not self._device.startswith("cuda"):
            return cpu_name()
        import torch

        return str(torch.cuda.get_device_name(self._device))

    def _hardware(self) -> str:
        name = re.sub(r"\((?:r|tm)\)", "", self._device_name().lower())
        name = re.sub(r"[^a-z0-9]+", "-", name).strip("-")
        return name if self._device.startswith("cuda") else f"{name}-{_cores()}-cores"


def command_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    """The command line that gives ``arguments``, options at their defaults left out.

    Of paths only the last part stays: where data lie on somebody's machine is nobody's business.
    """
    words = ["python", "-m", parser.prog.removeprefix("python -m ")]
    for action in parser._actions:
        value = getattr(arguments, action.dest, None)
        if action.dest in (_OPTION, "help") or value == action.default or value is None:
            continue
        if not action.option_strings:
            words += map(str, _as_list(_without_folder(value)))
        elif action.nargs == 0:
            words.append(action.option_strings[-1])
        elif isinstance(action, argparse._AppendAction):
            for one in value:
                words += [action.option_strings[-1], str(_without_folder(one))]
        else:
            words += [action.option_strings[-1], *map(str, _as_list(_without_folder(value)))]
    return shlex.join(words)


def config_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every argument as plain JSON, paths by their last part."""
    return {
        name: _without_folder(value)
        for name, value in sorted(vars(arguments).items())
        if name != _OPTION
    }


def revision() -> str | None:
    """The commit of this code, with ``+`` where tracked files differ from it."""
    with suppress(OSError, subprocess.SubprocessError):
        top, commit, changes = (
            subprocess.run(
                ["git", "-C", str(ROOT), *words],
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            ).stdout.strip()
            for words in _GIT
        )
        # An installed copy may lie within another project's repository.
        if Path(top).resolve() == ROOT.resolve():
            return commit + ("+" if changes else "")
    return None


_GIT = (
    ("rev-parse", "--show-toplevel"),
    ("rev-parse", "--short=12", "HEAD"),
    # Results that were kept meanwhile are no change of the code.
    ("status", "--porcelain", "--untracked-files=no", "--", ".", ":!experiments/results/*.json"),
)


def _without_folder(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_without_folder(one) for one in value]
    if isinstance(value, Path):
        return value.name
    return value.rsplit("/", 1)[-1] if isinstance(value, str) else value


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _cpu_s() -> float:
    usages: Iterator[resource.struct_rusage] = map(
        resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _load() -> float:
    return round(os.getloadavg()[0], 2)


def _cores() -> int:
    return len(os.sched_getaffinity(0))
