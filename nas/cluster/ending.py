"""The end of a Ray Tune experiment by an error of its searcher's, which Tune itself would swallow.

Ray Tune turns an error that a searcher raises into a failure of the trial, or into another error
that contains the first as text only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Self, TypeVar

# First: it sets what Ray reads when it is imported.

# isort: split
from ray import tune

F = TypeVar("F", bound=Callable[..., Any])


class Ending(tune.Stopper):
    """Stops all trials once there is an error, or ``is_over`` is set."""

    def __init__(self) -> None:
        """There is none yet."""
        self.error: Exception | None = None
        self.is_over = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped by itself."""
        return False

    def stop_all(self) -> bool:
        """Whether no trial is to go on."""
        return self.is_over or self.error is not None

    def check(self) -> None:
        """Raise the error, if there is one."""
        if self.error is not None:
            raise self.error

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself: Tune copies what it is given, and must see the searcher's errors."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Empty: Tune pickles it for a restore that is never used here."""
        return type(self), ()


def or_end(otherwise: Any) -> Callable[[F], F]:
    """A searcher's method that never raises: its error goes to ``self.ending``.

    Once there is one the method does nothing more, and returns ``otherwise``.
    """

    def wrap(method: F) -> F:
        @functools.wraps(method)
        def run(self: Any, *arguments: Any, **named: Any) -> Any:
            if self.ending.error is not None:
                return otherwise
            try:
                return method(self, *arguments, **named)
            except Exception as error:
                self.ending.error = error
                return otherwise

        return run  # type: ignore[return-value]

    return wrap
