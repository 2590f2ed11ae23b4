"""A checkpoint as the start of a search: its folder in the run, its task, its network there."""

# The folder of the checkpoint in a run directory, and the task file in it.
PARENT, TASK = "parent", "task.yaml"
