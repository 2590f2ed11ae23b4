"""Convert Optuna's distributions to numeric columns and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from nas.samplers.parameters import Parameter, Parameters, numeric_scale

Array = NDArray[np.float64]

# Numeric parameters with more steps than this are sampled as continuous and rounded.
_MOST_STEPS = 200


@dataclass(frozen=True)
class Column:
    """One Optuna distribution and its values in order (``None`` if continuous)."""

    name: str
    distribution: BaseDistribution
    choices: tuple[Any, ...] | None

    @classmethod
    def of(cls, name: str, distribution: BaseDistribution) -> Column:
        """Return the column of ``distribution``.

        Raises:
            ValueError: the distribution is not categorical, integer or float.
        """
        if isinstance(distribution, CategoricalDistribution):
            return cls(name, distribution, tuple(distribution.choices))
        if not isinstance(distribution, IntDistribution | FloatDistribution):
            raise ValueError(f"distribution of {name} must be one of Optuna's, got {distribution}")
        step = distribution.step
        if step is None or (distribution.high - distribution.low) / step >= _MOST_STEPS:
            return cls(name, distribution, None)
        n = int(round((distribution.high - distribution.low) / step)) + 1
        kind = int if isinstance(distribution, IntDistribution) else float
        return cls(name, distribution, tuple(kind(distribution.low + i * step) for i in range(n)))

    def holds(self, value: Any) -> bool:
        """Return whether the distribution contains ``value``."""
        try:
            return bool(self.distribution._contains(self.distribution.to_internal_repr(value)))
        except (TypeError, ValueError):
            return False

    def parameter(self) -> Parameter:
        """Return this column as a ``Parameter``, which does not need Optuna."""
        if self.choices is None:
            return Parameter(self.name, None)
        return Parameter(self.name, len(self.choices), numeric_scale(self.choices))

    def position(self, value: Any) -> float:
        """Return the position of ``value``: an index into the choices, or a number in [0, 1]."""
        if isinstance(self.distribution, CategoricalDistribution):
            # Optuna's own comparison, in which NaN equals NaN.
            return self.distribution.to_internal_repr(value)
        if self.choices is not None:
            return float(np.abs(np.array(self.choices) - value).argmin())
        low, high = self._bounds
        at = np.log(value) if self._is_log else value
        return float((at - low) / (high - low)) if high > low else 0.5

    def value(self, position: float) -> Any:
        """Return the value at ``position``."""
        if self.choices is not None:
            return self.choices[int(position)]
        distribution = self.distribution
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        low, high = self._bounds
        value = low + position * (high - low)
        value = float(np.exp(value)) if self._is_log else value
        if distribution.step is not None:
            steps = round((value - distribution.low) / distribution.step)
            value = distribution.low + steps * distribution.step
        value = min(max(value, distribution.low), distribution.high)
        return round(value) if isinstance(distribution, IntDistribution) else value

    @property
    def _is_log(self) -> bool:
        return bool(getattr(self.distribution, "log", False))

    @property
    def _bounds(self) -> tuple[float, float]:
        low, high = self.distribution.low, self.distribution.high  # type: ignore[attr-defined]
        return (np.log(low), np.log(high)) if self._is_log else (float(low), float(high))


class Columns:
    """Columns of an Optuna search space."""

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        """Create columns in the order of ``space``."""
        self._columns = [Column.of(name, distribution) for name, distribution in space.items()]
        self.parameters = Parameters(tuple(column.parameter() for column in self._columns))

    def row(self, params: Mapping[str, Any]) -> Array:
        """Return the row of ``params``, shape ``(P,)``, with NaN for absent parameters."""
        return np.array(
            [c.position(params[c.name]) if c.name in params else np.nan for c in self._columns],
            # Positions of choices alone would make it an array of integers, without a NaN.
            dtype=float,
        )

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Return whether each of ``params`` has a column that contains its value."""
        by_name = {column.name: column for column in self._columns}
        return all(
            name in by_name and by_name[name].holds(value) for name, value in params.items()
        )

    def params(self, row_P: Array) -> dict[str, Any]:
        """Return the parameters of a row, except those that are NaN."""
        return {
            column.name: column.value(position)
            for column, position in zip(self._columns, row_P, strict=True)
            if not np.isnan(position)
        }
