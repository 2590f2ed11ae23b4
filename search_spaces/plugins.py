"""Plug-ins: users' Python files that add tasks and families of networks.

A plug-in has one or more of three dictionaries at its top level: ``TASKS`` (from a name to a
function that makes the task), ``TASK_KINDS`` (from a task file's ``kind`` to a function that makes
a task of such a file) and ``FAMILIES`` (from a name to a family of networks; see
``search_spaces.cost.families``).

A plug-in is code, and runs only if a user named it, on the command line or in the configuration of
a program. The hashes of named files are recorded in ``$XDG_CACHE_HOME/joulenas``, so that a run
directory from elsewhere cannot have a plug-in executed. Exactly the hashed bytes are run. Child
processes find the plug-ins in the environment.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Literal

from nas.core.names import check_name
from nas.core.user_folders import cache_folder

VARIABLE = "JOULENAS_PLUGINS"
Group = Literal["TASKS", "TASK_KINDS", "FAMILIES"]
# Packages register the same entries under these groups of entry points.
GROUPS: Mapping[Group, str] = {
    "TASKS": "joulenas.tasks",
    "TASK_KINDS": "joulenas.task_kinds",
    "FAMILIES": "joulenas.families",
}
_LOADED: dict[str, tuple[Plugin, ModuleType]] = {}


@dataclass(frozen=True, slots=True)
class Plugin:
    """The absolute path and the hash of a plug-in file, as of when the user named it.

    Raises:
        ValueError: a field is malformed.
    """

    path: str
    sha256: str

    def __post_init__(self) -> None:
        """Validate the fields; the file is read when it is loaded."""
        if not isinstance(self.path, str) or not Path(self.path).is_absolute():
            raise ValueError(f"plugin path must be a whole path, got {self.path!r}")
        if not isinstance(self.sha256, str) or len(self.sha256) != 64:
            raise ValueError(f"plugin sha256 must be 64 hex digits, got {self.sha256!r}")

    def to_dict(self) -> dict[str, str]:
        """Plain data for JSON."""
        return {"path": self.path, "sha256": self.sha256}

    @classmethod
    def from_dict(cls, data: Any) -> Plugin:
        """Read ``to_dict``'s form; anything else is a ``ValueError``."""
        if not isinstance(data, Mapping) or data.keys() != {"path", "sha256"}:
            raise ValueError(f"plugin must have exactly the keys path and sha256, got {data!r}")
        return cls(data["path"], data["sha256"])


def name_plugin(path: str | Path) -> Plugin:
    """Load the plug-in at ``path`` and record its hash, so that it may run on this machine.

    Raises:
        ValueError: the file cannot be read, or is no plug-in; the message names it.
    """
    whole = Path(path).resolve()
    digest = hashlib.sha256(_read(whole)).hexdigest()
    plugin = Plugin(str(whole), digest)
    load_plugin(plugin)
    (_known_folder() / digest).touch()
    return plugin


def check_named(plugin: Plugin) -> None:
    """Raise ``ValueError`` unless the hash is recorded on this machine."""
    if not (_known_folder() / plugin.sha256).is_file():
        raise ValueError(
            f"plugin {plugin.path} must be named on this machine before it is run: look at it, "
            f"then give --plugin {plugin.path}"
        )


def load_plugin(plugin: Plugin) -> None:
    """Run the file, once in a process, if its hash has not changed.

    Raises:
        ValueError: the file is gone, has changed, or is no plug-in; or two define one name.
    """
    if plugin.sha256 in _LOADED:
        return
    raw = _read(Path(plugin.path))
    digest = hashlib.sha256(raw).hexdigest()
    if digest != plugin.sha256:
        raise ValueError(
            f"plugin {plugin.path} must be as it was when it was named (sha256 "
            f"{plugin.sha256[:12]}), and has changed ({digest[:12]})"
        )
    module = _run(plugin, raw)
    for group in GROUPS:
        for _, other in _LOADED.values():
            twice = _dictionary(module, group).keys() & _dictionary(other, group).keys()
            if twice:
                raise ValueError(
                    f"plugin {plugin.path} defines {min(twice)!r} of {group}, which another "
                    f"plug-in does, too"
                )
    _LOADED[plugin.sha256] = plugin, module
    os.environ[VARIABLE] = json.dumps([known.to_dict() for known, _ in _LOADED.values()])


def environment() -> dict[str, str]:
    """Environment variables with which another process loads the same plug-ins."""
    return {VARIABLE: os.environ[VARIABLE]} if os.environ.get(VARIABLE) else {}


def plugin_entries(group: Group) -> dict[str, Any]:
    """Entries of ``group`` from plug-ins and installed packages, by name.

    Raises:
        ValueError: a plug-in that the environment names cannot be loaded.
    """
    for data in json.loads(os.environ.get(VARIABLE, "[]")):
        load_plugin(Plugin.from_dict(data))
    entries: dict[str, Any] = {}
    for _, module in _LOADED.values():
        entries |= _dictionary(module, group)
    for entry in entry_points(group=GROUPS[group]):
        if entry.name not in entries:
            entries[entry.name] = entry.load()
    return entries


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"plugin {path} must be readable: {error.strerror}") from None


def _run(plugin: Plugin, raw: bytes) -> ModuleType:
    name = f"joulenas_plugin_{plugin.sha256[:12]}"
    spec = importlib.util.spec_from_loader(name, _Loader(plugin.path, raw), origin=plugin.path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = plugin.path
    # Dataclasses and pickling look up classes by the module's name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        if not any(_dictionary(module, group) for group in GROUPS):
            raise ValueError(f"must define one of {', '.join(GROUPS)}")
    except Exception as error:
        del sys.modules[name]
        lines = str(error).splitlines() or [type(error).__name__]
        raise ValueError(
            f"plugin {plugin.path} cannot be loaded: {type(error).__name__}: {lines[0]}"
        ) from error
    return module


def _dictionary(module: ModuleType, group: Group) -> dict[str, Any]:
    entries = getattr(module, group, {})
    if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries):
        raise ValueError(f"{group} must be a dictionary by names, got {entries!r}")
    for name in entries:
        check_name(f"a name in {group}", name)
    return entries


def _known_folder() -> Path:
    return cache_folder("plugins")


class _Loader(importlib.abc.InspectLoader):
    """Load the hashed bytes, not the file, which may have changed since."""

    def __init__(self, path: str, raw: bytes) -> None:
        self._path, self._raw = path, raw

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self._raw)

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._raw, self._path)
