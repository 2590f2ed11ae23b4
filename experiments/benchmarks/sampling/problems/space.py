"""Parameters of a search problem, for samplers that walk through them and for those that cannot.

A parameter may be conditional on one before it. Samplers of flat vectors propose all of them and
what is not active is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Config = dict[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One parameter: ``values`` to choose from, or numbers from ``low`` to ``high``.

    ``above`` is a parameter and an integer: this one is active where that one's value is larger.
    """

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    is_whole: bool = False
    above: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        """Refuse what has no two values."""
        if not self.values and not self.low < self.high:
            raise ValueError(
                f"parameter {self.name!r} must have values, or low < high, "
                f"got [{self.low}, {self.high}]"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"parameter {self.name!r} must have low > 0 to be in logs")

    def is_active(self, config: Mapping[str, Any]) -> bool:
        """Whether ``config``, which holds the parameters before, has this one."""
        return self.above is None or config[self.above[0]] > self.above[1]

    @property
    def is_ordered(self) -> bool:
        """Whether values are numbers, from the least to the largest."""
        numbers = all(isinstance(v, (int, float)) for v in self.values)
        return numbers and list(self.values) == sorted(self.values)


def choice(name: str, *values: Any, above: tuple[str, int] | None = None) -> Parameter:
    """A categorical parameter."""
    return Parameter(name, values=values, above=above)


def walk(parameters: tuple[Parameter, ...], ask: Callable[[Parameter], Any]) -> Config:
    """What is active, each asked for in its turn."""
    config: Config = {}
    for parameter in parameters:
        if parameter.is_active(config):
            config[parameter.name] = ask(parameter)
    return config


def columns_of(parameters: Sequence[Parameter], configs: Sequence[Config]) -> dict[str, Any]:
    """Configurations as columns; what is not active has any value."""
    return {
        p.name: np.array([c.get(p.name, p.values[0] if p.values else p.low) for c in configs])
        for p in parameters
    }
