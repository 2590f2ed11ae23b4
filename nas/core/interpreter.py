"""Commands that run a module of this project in a fresh interpreter."""

from __future__ import annotations

import sys
from pathlib import Path


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs ``module`` with ``arguments``, as ``python -m`` would.

    ``python -m`` also searches the working directory first: a user's ``statistics.py``, or a file
    in an untrusted folder, would run in place of Python's own. Here this project's folder is
    searched last, and the working directory only if ``PYTHONPATH`` names it.
    """
    code = (
        f"import runpy, sys; sys.path.append({str(Path(__file__).parents[2])!r}); "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    return [sys.executable, "-P", "-c", code, *arguments]
