"""Which errors are bad input (exit code 2) and which are failures of a run (1)."""

from __future__ import annotations

# Compared by name: importing their modules would import optuna, ray or torch at start-up.
_BAD_INPUT = frozenset(
    {"StorageError", "RunBusyError", "ClusterError", "MeterError", "RemoteError"}
)


def is_bad_input(error: BaseException) -> bool:
    """Return whether other input would avoid ``error``."""
    return isinstance(error, ValueError | OSError) or type(error).__name__ in _BAD_INPUT
