"""Pretrained checkpoints in Hugging Face's format as our networks: one file a family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search_spaces.pretrained.checkpoint import Checkpoint
    from search_spaces.pretrained.load import load_checkpoint

__all__ = ["Checkpoint", "load_checkpoint"]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used: describing families needs none."""
    if name == "Checkpoint":
        from search_spaces.pretrained.checkpoint import Checkpoint

        return Checkpoint
    if name == "load_checkpoint":
        from search_spaces.pretrained.load import load_checkpoint

        return load_checkpoint
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
