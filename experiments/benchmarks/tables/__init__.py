"""Tables that others measured, read from a path: one adapter for each format."""
