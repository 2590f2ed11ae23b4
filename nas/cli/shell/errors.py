"""Which errors are the user's to mend (exit code 2) and which are ours (1)."""

from __future__ import annotations

# By name, because importing their modules would import optuna, ray or torch at start-up.
_BAD_INPUT = frozenset(
    {"StorageError", "RunBusyError", "ClusterError", "MeterError", "RemoteError"}
)


def is_bad_input(error: BaseException) -> bool:
    """Whether the user can mend ``error`` by asking for something else."""
    return isinstance(error, ValueError | OSError) or type(error).__name__ in _BAD_INPUT
