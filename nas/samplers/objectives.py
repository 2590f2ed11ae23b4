"""Convert a study's values to losses, which are minimised, on the scale of the hypervolume."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.samplers.history import Variances

Array = NDArray[np.float64]
# Words of a metric's name: more of the first is better, less of the others, which count more.
_MAXIMISED = frozenset(
    ("accuracy", "acc", "auc", "auroc", "f1", "bleu", "chrf", "recall", "iou", "miou", "score")
    + ("psnr", "ssim", "throughput", "fps")
)
_MINIMISED = frozenset(
    ("error", "err", "loss", "drop", "gap", "regret", "perplexity", "ppl", "wer", "mae", "rmse")
    + ("energy", "joules", "joule", "mj", "uj", "wh", "power", "watts", "latency", "runtime")
    + ("params", "parameters", "flops", "macs", "memory", "bytes", "carbon", "co2")
)


@dataclass(frozen=True, slots=True)
class Objective:
    """Conversion of one objective's values to losses.

    Args:
        maximize: Whether higher values are better.
        best_possible: Bound on the values, such as 1 for a quality. The loss is then the
            distance to the bound, which is positive.
        log: Whether hypervolume is computed on the logarithm, so that halving the joules is the
            same improvement anywhere on the front.
    """

    maximize: bool = False
    best_possible: float | None = None
    log: bool = False

    def losses(self, values_N: Array) -> Array:
        """Return the losses of values; NaN stays NaN.

        Raises:
            ValueError: ``log`` is set and a value is not positive.
        """
        missing = self._missing(values_N)
        if not self.log:
            return -missing if self._is_mirrored else missing
        if np.any(missing <= 0):
            least = np.nanmin(missing)
            raise ValueError(f"values of a logarithmic objective must be > 0, got {least}")
        logarithm = np.log(missing)
        return -logarithm if self._is_mirrored else logarithm

    def variances(self, values_N: Array, variances_N: Array) -> Array:
        """Return the variances of the losses, to first order."""
        return variances_N / self._missing(values_N) ** 2 if self.log else variances_N

    @property
    def _is_mirrored(self) -> bool:
        return self.maximize and self.best_possible is None

    def _missing(self, values_N: Array) -> Array:
        if self.best_possible is None:
            return values_N
        return (self.best_possible - values_N) * (1 if self.maximize else -1)


@dataclass(frozen=True, slots=True)
class ObjectiveOptions:
    """Options of the conversion of a study's values to losses.

    Args:
        reference_point: Reference point of the hypervolume in the study's units; by default it
            lies a tenth of the front's extent beyond the front's worst values.
        log: For each objective, whether hypervolume is computed on its logarithm.
        best_possible: For each objective, a bound on its values (1 for a quality), or ``None``.
        variances: Returns the variance of each value of a complete trial; by default the noise
            is estimated from the values.
        deterministic: Whether each candidate has values of its own, the same ones each time, as in
            a full table. What the surrogates do not explain is then no noise: the front consists
            of the values themselves, and a candidate may be better or worse than predicted by as
            much. Leave it out for a sparse table, whose nearest row answers.
    """

    reference_point: Sequence[float] | None = None
    log: Sequence[bool] | None = None
    best_possible: Sequence[float | None] | None = None
    variances: Variances | None = None
    deterministic: bool = False

    def objectives(self, maximize: Sequence[bool]) -> list[Objective]:
        """Return the conversion of each objective.

        Raises:
            ValueError: the length of a field is not the number of objectives.
        """
        n = len(maximize)
        for name in ("log", "best_possible", "reference_point"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise ValueError(
                    f"{name} must have {n} values, one for each objective, got {values}"
                )
        best, log = self.best_possible or (None,) * n, self.log or (False,) * n
        return [Objective(*each) for each in zip(maximize, best, map(bool, log), strict=True)]


def usual_direction(name: str) -> str | None:
    """Return the usual direction of an objective by the words of its name, if they have one."""
    words = set(re.findall(r"[A-Z]?[a-z]+\d*|[A-Z]+\d*", name.replace("_", " ")))
    lower = {word.lower() for word in words}
    # An accuracy drop is minimised.
    if lower & _MINIMISED:
        return "min"
    return "max" if lower & _MAXIMISED else None


def doubt(name: str, *, maximize: bool) -> str | None:
    """Return a question if the usual direction of an objective of this name is the other one."""
    usual = usual_direction(name)
    if usual is None or (usual == "max") == maximize:
        return None
    return f"is {name!r} to be {'maximised' if maximize else 'minimised'}? {usual} is usual for it"
