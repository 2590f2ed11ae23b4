"""What measuring imports, and which of it this interpreter lacks. Imports nothing else itself."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys

PYTHON = (3, 11)
# Name of the module, name of the distribution, first version, and first that is too new.
_NEEDS: tuple[tuple[str, str, tuple[int, int] | None, tuple[int, int] | None], ...] = (
    ("torch", "torch", (2, 11), None),
    ("torchao", "torchao", (0, 18), (0, 19)),
    ("numpy", "numpy", None, None),
    ("scipy", "scipy", None, None),
    ("yaml", "pyyaml", None, None),
    ("PIL", "pillow", None, None),
    ("rich", "rich", None, None),
    ("safetensors", "safetensors", None, None),
    ("pynvml", "nvidia-ml-py", None, None),
)


def missing() -> list[str]:
    """What this interpreter lacks, each with its version where that matters."""
    if sys.version_info < PYTHON:
        return [f"Python >= {PYTHON[0]}.{PYTHON[1]} (this is {sys.version.split()[0]})"]
    return [
        wanted
        for module, name, first, beyond in _NEEDS
        if (wanted := _lacking(module, name, first, beyond))
    ]


def _lacking(
    module: str, name: str, first: tuple[int, int] | None, beyond: tuple[int, int] | None
) -> str | None:
    bounds = [
        f"{sign}{version[0]}.{version[1]}"
        for sign, version in ((">=", first), ("<", beyond))
        if version is not None
    ]
    wanted = f"{name}{','.join(bounds)}"
    try:
        if importlib.util.find_spec(module) is None:
            return wanted
    except (ImportError, ValueError):
        return wanted
    try:
        text = importlib.metadata.version(name)
        found = tuple(int(part) for part in text.split("+")[0].split(".")[:2])
    except (importlib.metadata.PackageNotFoundError, ValueError):
        # A build without metadata: whether it is recent enough shows when it runs.
        return None
    if (first is not None and found < first) or (beyond is not None and found >= beyond):
        return f"{wanted} (found {text})"
    return None
