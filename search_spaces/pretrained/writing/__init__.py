"""Networks back into their checkpoint's format, where a stock class of the family can hold them."""

from search_spaces.pretrained.writing.folder import write_checkpoint
from search_spaces.pretrained.writing.loadable import check_loadable, refusals

__all__ = ["check_loadable", "refusals", "write_checkpoint"]
