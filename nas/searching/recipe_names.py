"""Names of the recipes that installed packages register, found without importing them."""

from __future__ import annotations

GROUP = "joulenas.recipes"


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    # It imports a dozen modules, which other commands need not.
    from importlib.metadata import entry_points

    return sorted(entry.name for entry in entry_points(group=GROUP))
