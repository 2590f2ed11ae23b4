"""Folders of this user's: caches that nobody else can write to, and the one that all share.

Caches hold what later runs as code or is taken as data (compiled kernels, arrays, which plug-ins
were named). A cache folder is therefore closed to others (0700), and used only where it belongs
to this user and is no link. Where there is no such place, as in a container without a home, a
process has a new private folder, which its children share and which goes with it.
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

# Where a process without a home keeps its caches, for the processes that it starts.
_VARIABLE = "JOULENAS_CACHE"
_NAME = "joulenas"


class ForeignFolderError(OSError):
    """A folder belongs to somebody else, or others may write to it."""


def cache_folder(*parts: str) -> Path:
    """A private folder for caches: ``$XDG_CACHE_HOME/joulenas`` or one below it, which is made."""
    folder = _base()
    for part in parts:
        folder = private_folder(folder / part)
    return folder


def private_folder(path: Path) -> Path:
    """``path`` as a folder that only this user can read and write, made where it is absent.

    Raises:
        ForeignFolderError: it is a link or no folder, or belongs to somebody else.
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
    """Have Matplotlib keep its list of fonts in our cache where there is no home to keep it in."""
    home = _home_cache()
    if home is None or not os.access(home.parent, os.W_OK):
        os.environ.setdefault("MPLCONFIGDIR", str(cache_folder("matplotlib")))


def shared_folder(path: Path) -> Path:
    """``path`` as a folder in which every user may make files, made where it is absent.

    It is like ``/tmp``: open to all, with the sticky bit. Nothing may be read from it.

    Raises:
        ForeignFolderError: it is a link or no folder.
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
    # The specification has relative paths ignored.
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
        # A user id without an entry among the users, as containers have.
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
