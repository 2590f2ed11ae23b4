"""Adapter to Optuna: the only file that uses private names of it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import optuna


def hypervolume(losses: Any, reference: Any) -> float:
    """Return Optuna's hypervolume of ``losses`` ``(N, M)`` below ``reference`` ``(M,)``.

    Raises:
        RuntimeError: the installed Optuna has no such function.
    """
    name = "compute_hypervolume"
    try:
        return float(getattr(import_module("optuna._hypervolume"), name)(losses, reference))
    except (ImportError, AttributeError):
        raise RuntimeError(
            f"comparing hypervolumes must have optuna._hypervolume.{name}, which Optuna "
            f"{optuna.__version__} has not: install 5.0"
        ) from None
