"""What a task is: named splits of arrays, the workload of its models, and how they are judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from nas.core.files import Place
from nas.tasks.base.metric import ACCURACY, Metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from search_spaces.workload import Workload

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
# In targets of pixels: neither trained on nor evaluated.
IGNORED = -1


@dataclass(frozen=True, slots=True)
class Split:
    """Inputs and targets of one split, aligned on the first axis.

    ``inputs`` is ``(N, channels, height, width)`` float32 for images, ``(N, T)`` int64 for
    tokens. ``targets`` is ``(N,)`` int64 for classes; other objectives have further axes, such as
    ``(N, T)`` next tokens. ``sizes``, ``(N,)``, is the weight of each sample where the metric
    needs one: its bytes of text.
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


class Task(ABC):
    """A problem whose test split never reaches anything that chooses.

    Subclasses set ``name`` and implement ``workload`` and ``split``; every other member has a
    default.
    """

    name: str
    #: The kind as task files name it; ``None`` accepts the recipes of the workload's kind.
    kind: str | None = None
    #: Unit of the quality that a search maximises.
    metric: Metric = ACCURACY

    @abstractmethod
    def workload(self, batch_size: int) -> Workload:
        """Return the forward pass that a model of this task runs."""

    @abstractmethod
    def split(self, name: SplitName) -> Split:
        """Return one of ``train``, ``validation``, ``test``.

        Raises:
            ValueError: there is no split of that name.
        """

    @cached_property
    def objective(self) -> Any:
        """``nas.training.objective.Objective``; ``None`` means that of the workload's kind."""
        return None

    def measured_inputs(self, batch_size: int) -> NDArray[Any]:
        """Return a batch of real training inputs; constant ones would change the power."""
        import numpy as np

        inputs = self.split("train").inputs
        # A training split smaller than the batch is repeated to fill it.
        return np.resize(inputs, (batch_size, *inputs.shape[1:]))

    def about(self) -> Mapping[str, Any]:
        """Return plain data about the samples; ``nas.tasks.base.checks`` lists the keys.

        Raises:
            DataError: the data are invalid; it contains all problems.
        """
        return {}

    def warnings(self) -> Sequence[str]:
        """Lines about data that are allowed but seldom intended."""
        return ()

    def notes(self) -> Sequence[str]:
        """Lines about data that are not read, or not read as one may expect."""
        return ()

    def save_examples(self, call: Callable[[Any], Any], device: str, folder: Place) -> None:
        """Write validation samples with a network's outputs to ``folder``, if reports show such.

        ``call`` maps a batch of inputs on ``device`` to outputs.
        """
        return

    def artifact_files(self) -> Mapping[str, str]:
        """Texts by file name that an artifact needs for raw inputs; see ``artifact_files``."""
        return {}


def check_split_name(name: str) -> None:
    """Raise ``ValueError`` unless ``name`` is a split."""
    if name not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {name!r}")
