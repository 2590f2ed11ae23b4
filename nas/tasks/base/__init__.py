"""What a task is: named splits of arrays, and the workload a model of it runs.

A task may say what it is judged by in an attribute ``metric`` (``nas.tasks.base.metric``; quality
where it does not), and what its networks are trained for in ``objective``
(``nas.training.objective``; that of its workload's kind where it does not).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from search_spaces.workload import Workload

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)


@dataclass(frozen=True, slots=True)
class Split:
    """Inputs and targets of one split, aligned on the first axis.

    ``inputs`` is ``(N, channels, height, width)`` float32 for images, ``(N, T)`` int64 for
    tokens; ``targets`` is ``(N,)`` int64 for classes, of more axes where the objective has it so:
    ``(N, T)`` next tokens. ``sizes``, ``(N,)``, is what the metric counts samples by, where it
    does: the bytes of text of each.
    """

    inputs: NDArray[np.float32] | NDArray[np.int64]
    targets: NDArray[np.int64]
    sizes: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Refuse splits that are empty or whose arrays do not line up."""
        if len(self.inputs) != len(self.targets) or len(self.targets) == 0:
            raise ValueError(
                f"inputs and targets must have one equal length > 0, got "
                f"{len(self.inputs)} and {len(self.targets)}"
            )
        if self.sizes is not None and self.sizes.shape != (len(self.targets),):
            raise ValueError(
                f"sizes must be of shape ({len(self.targets)},), got {self.sizes.shape}"
            )

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.targets)


class Task(Protocol):
    """A problem whose test split is never used to choose anything."""

    @property
    def name(self) -> str:
        """How a user names it."""
        ...

    def workload(self, batch_size: int) -> Workload:
        """The forward pass that a model of this task runs."""
        ...

    def split(self, name: SplitName) -> Split:
        """One of ``train``, ``validation``, ``test``.

        Raises:
            ValueError: there is no split of that name.
        """
        ...


def check_split_name(name: str) -> None:
    """Raise ``ValueError`` unless ``name`` is a split."""
    if name not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {name!r}")
