"""The ``nas`` command: ``main`` plus one file per verb."""
