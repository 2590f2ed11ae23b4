"""Trained weights on disk, as safetensors: no pickle, whole or absent."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_model, save_model
from torch import nn

from nas.files import write_atomic


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the parameters of ``model``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda temporary: save_model(model, str(temporary)))


def load_weights(model: nn.Module, path: Path) -> nn.Module:
    """Fill ``model`` with what ``save_weights`` wrote.

    Raises:
        ValueError: the file is missing, corrupt, or holds another model's weights.
    """
    if not path.is_file():
        raise ValueError(f"weights {path} must exist, and do not")
    try:
        load_model(model, str(path))
    except Exception as error:
        # safetensors raises its own error type and RuntimeError for mismatched names.
        raise ValueError(
            f"weights {path} must fit the architecture: {str(error).splitlines()[0]}"
        ) from error
    return model
