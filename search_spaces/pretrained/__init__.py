"""Pretrained checkpoints in Hugging Face's format as our networks: one file a family."""

from search_spaces.pretrained.checkpoint import Checkpoint
from search_spaces.pretrained.load import load_checkpoint

__all__ = ["Checkpoint", "load_checkpoint"]
