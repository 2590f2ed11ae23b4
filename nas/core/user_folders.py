"""Folders of this user: private caches, and one folder that all users share.

Caches contain what later runs as code or is read as data (compiled kernels, arrays, the named
plug-ins). A cache folder is therefore closed to others (0700), and used only if it belongs to this
user and is not a link. Without a place for one, as in a container without a home, a process makes
a temporary one, which its children share and which is removed when it ends.
"""

from __future__ import annotations

import atexit
import os
import shutil
import stat
import sys
import tempfile
from importlib import metadata
from pathlib import Path

# The temporary cache folder, for child processes.
_VARIABLE = "JOULENAS_CACHE"
_NAME = "joulenas"


class ForeignFolderError(OSError):
    """A folder belongs to another user, or others may write to it."""


def cache_folder(*parts: str) -> Path:
    """Return ``$XDG_CACHE_HOME/joulenas`` or a folder below it, private and made if absent."""
    folder = _base()
    for part in parts:
        folder = private_folder(folder / part)
    return folder


def private_folder(path: Path) -> Path:
    """Make ``path`` a folder that only this user can read and write, and return it.

    Raises:
        ForeignFolderError: it is a link, not a folder, or belongs to another user.
        OSError: it cannot be made.
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
    """Have torch's compilers keep their code in our cache, not in ``/tmp`` by the user's name.

    Each version of torch has a folder of its own: the key of compiled C++ code is its text and
    the compiler's options, which do not name the version of the library that it is linked to.
    """
    for variable, name in (
        ("TORCHINDUCTOR_CACHE_DIR", "inductor"),
        ("TRITON_CACHE_DIR", "triton"),
    ):
        value = os.environ.get(variable, "")
        # Torch sets its default itself as soon as parts of it are imported.
        if not value or value.startswith(f"{tempfile.gettempdir()}/torchinductor_"):
            os.environ[variable] = str(cache_folder(name, metadata.version("torch")))


def use_private_plot_cache() -> None:
    """Have Matplotlib cache its list of fonts in our folder where there is no home."""
    home = _home_cache()
    if home is None or not os.access(home.parent, os.W_OK):
        os.environ.setdefault("MPLCONFIGDIR", str(cache_folder("matplotlib")))


def shared_folder(path: Path) -> Path:
    """Make ``path`` a folder in which every user may make files, and return it.

    It is like ``/tmp``: open to all, with the sticky bit. Nothing may be read from it.

    Raises:
        ForeignFolderError: it is a link or not a folder.
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise ForeignFolderError(0, "must be a folder and no link", str(path)) from None
    else:
        # Whatever the umask is.
        path.chmod(0o1777)
    return path


def _base() -> Path:
    given = os.environ.get(_VARIABLE)
    places = [] if given is None else [Path(given)]
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The specification ignores relative paths.
    home = Path(xdg) if Path(xdg).is_absolute() else _home_cache()
    if home is not None:
        places.append(home / _NAME)
    for place in places:
        try:
            folder = private_folder(place)
        except ForeignFolderError as error:
            _say_once(f"note: cache {error.filename} {error.strerror}: a temporary one is used")
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
    # A forked child ends before the process that its folder belongs to.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


_said: set[str] = set()


def _say_once(line: str) -> None:
    if line not in _said:
        _said.add(line)
        print(line, file=sys.stderr)
