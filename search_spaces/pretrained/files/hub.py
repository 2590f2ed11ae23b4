"""Checkpoints from the Hugging Face hub, by its own library."""

from __future__ import annotations

import re
from pathlib import Path

from nas.core.names import first_line
from search_spaces.pretrained.files.folder import COMPANIONS

# Weights of other forms, and code, are not downloaded.
_FILES = (
    "config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "README.md",
    *COMPANIONS,
)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.A)


def is_hub_name(source: str | Path) -> bool:
    """Whether ``source`` is a text of the form ``owner/name``."""
    return isinstance(source, str) and _NAME.fullmatch(source) is not None


def download(name: str) -> Path:
    """Return the folder of a checkpoint in the hub's cache, downloaded where it is not there.

    Raises:
        ValueError: ``huggingface_hub`` is not installed, or the hub has no such checkpoint, or
            it cannot be reached.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(
            f"{name!r} is no folder, and a name on the hub requires `pip install huggingface_hub`"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(_FILES)))
    # The library raises errors of its own, of its HTTP client and of the system.
    except Exception as error:
        raise ValueError(
            f"{name!r} is no folder, and the hub did not give it "
            f"({type(error).__name__}: {first_line(error)[:200]}); download it elsewhere and give "
            f"the folder"
        ) from None
