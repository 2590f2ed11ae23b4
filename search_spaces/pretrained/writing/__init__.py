"""Networks written back in their checkpoint's format, for stock classes to load, or as GGUF."""

from search_spaces.pretrained.writing.folder import copy_files, write_checkpoint
from search_spaces.pretrained.writing.loadable import check_loadable, refusals

__all__ = ["check_loadable", "copy_files", "refusals", "write_checkpoint"]
