"""Start or resume a search: its preparation, its recipes, its energy account."""
