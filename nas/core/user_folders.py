"""Folders of this user: private caches, and one folder that all users share.

Caches contain code and data for later runs (compiled kernels, arrays, the named plug-ins). A cache
folder is therefore private (mode 0700), and used only if it belongs to this user and is no link.
If none can be created, as in a container without a home, the process creates a temporary one. Its
children share it, and it is removed at exit.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path

# Passes the temporary cache folder to child processes.
_VARIABLE = "JOULENAS_CACHE"
_NAME = "joulenas"


class ForeignFolderError(OSError):
    """The path belongs to another user, or is a link or of another kind."""


def cache_folder(*parts: str) -> Path:
    """Return ``$XDG_CACHE_HOME/joulenas`` or a folder below it, created as private if missing."""
    folder = _base()
    for part in parts:
        folder = private_folder(folder / part)
    return folder


def private_folder(path: Path) -> Path:
    """Create ``path`` as a folder that only this user can read and write, and return it.

    Raises:
        ForeignFolderError: ``path`` is a link, no folder, or belongs to another user.
        OSError: the folder cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise ForeignFolderError(
                0, "must be a folder of this user's and no link", str(path)
            ) from None
        if status.st_mode & 0o077:
            path.chmod(0o700)
    return path


def use_private_compiler_caches() -> None:
    """Move the caches of torch's compilers from ``/tmp`` to this user's cache folder.

    Compiled kernels are also linked by a faster linker, where there is one.

    Each version of torch has its own folder: the cache key of compiled C++ code is its text and
    the compiler's options, which do not include the version of the linked library.
    """
    for variable, name in (
        ("TORCHINDUCTOR_CACHE_DIR", "inductor"),
        ("TRITON_CACHE_DIR", "triton"),
    ):
        value = os.environ.get(variable, "")
        # Torch sets the variable to its default when some of its modules are imported.
        if not value or value.startswith(f"{tempfile.gettempdir()}/torchinductor_"):
            os.environ[variable] = str(cache_folder(name, metadata.version("torch")))
    _use_fast_linker()


def _use_fast_linker() -> None:
    """Have GCC link compiled kernels by gold, if it is installed.

    Inductor links each kernel to torch's libraries, of which the default linker reads all symbols:
    1.0 CPU seconds a kernel, 0.3 by gold. The linker changes no machine code.
    """
    gold = shutil.which("ld.gold")
    if gold is None:
        return
    before = os.environ.get("COMPILER_PATH", "").split(os.pathsep)
    folder = cache_folder("linker")
    if str(folder) not in before:
        with suppress(FileExistsError):
            (folder / "ld").symlink_to(gold)
        os.environ["COMPILER_PATH"] = os.pathsep.join(filter(None, (str(folder), *before)))


def use_private_plot_cache() -> None:
    """Move Matplotlib's font cache to this user's cache folder if the home is not writable."""
    home = _home_cache()
    if home is None or not os.access(home.parent, os.W_OK):
        os.environ.setdefault("MPLCONFIGDIR", str(cache_folder("matplotlib")))


def shared_folder(path: Path) -> Path:
    """Create ``path`` as a folder in which every user may create files, and return it.

    Like ``/tmp`` it is writable by all and has the sticky bit. Its files are untrusted.

    Raises:
        ForeignFolderError: ``path`` is a link or no folder.
        OSError: the folder cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise ForeignFolderError(0, "must be a folder and no link", str(path)) from None
    else:
        # Set explicitly: the umask limits the mode of ``mkdir``.
        path.chmod(0o1777)
    return path


def _base() -> Path:
    inherited = os.environ.get(_VARIABLE)
    candidates = [] if inherited is None else [Path(inherited)]
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The specification ignores relative paths.
    home = Path(xdg) if Path(xdg).is_absolute() else _home_cache()
    if home is not None:
        candidates.append(home / _NAME)
    for path in candidates:
        try:
            folder = private_folder(path)
        except ForeignFolderError as error:
            _warn_once(f"note: cache {error.filename} {error.strerror}: a temporary one is used")
        except OSError:
            continue
        else:
            if os.access(folder, os.W_OK | os.X_OK):
                return folder
    return _temporary()


def _home_cache() -> Path | None:
    try:
        home = Path.home()
    except RuntimeError:
        # A user id without a name, as in containers.
        return None
    return home / ".cache" if home.is_absolute() else None


def _temporary() -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"{_NAME}-cache-"))
    os.environ[_VARIABLE] = str(folder)
    atexit.register(_remove, folder, os.getpid())
    return folder


def _remove(folder: Path, owner: int) -> None:
    # A forked child must not remove its parent's folder.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


_printed: set[str] = set()


def _warn_once(line: str) -> None:
    if line not in _printed:
        _printed.add(line)
        print(line, file=sys.stderr)
