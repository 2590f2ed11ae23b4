"""One file per verb of ``nas``."""
