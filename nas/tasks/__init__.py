"""Tasks by name, and by the kind that a task file states."""
