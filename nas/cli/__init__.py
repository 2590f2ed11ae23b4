"""The ``nas`` command: ``main`` parses and calls one verb."""
