"""The shape of joules over architectures on GPUs: a prior from other GPUs, never their level.

    log joules = level + log(terms @ costs) + phi @ mean + phi @ factor @ b,   b ~ N(0, I)

``costs`` and ``mean`` are what the GPUs have in common, and ``factor`` is the root of the
covariance of what they differ in (an empirical Bayes prior, Efron & Morris 1975). ``phi`` are
standardised features and some products of them, limited to the range of the measured networks. A
dozen rows of a new GPU determine its level and ``b`` (``costs.fit_log_linear``). The level without
rows is that of the stated costs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.core.files import write_atomic
from predictors.energy.costs import Terms
from predictors.energy.features import FEATURES, TERM_GROUPS, TERMS, Roofline
from predictors.energy.regressor import Standard
from predictors.energy.transfer import transfer_terms

Array = NDArray[np.float64]

SHIPPED = Path(__file__).parent / "priors" / "nvml_gpt.json"
_SCHEMA = 1
# Part of the range of a feature.
_SLACK = 0.05
# With fewer rows, all like the measured networks, other priors are not tried: the best of many on
# so few rows is so by chance.
_LEAST_TO_CHOOSE = 30
# Features that enter ``phi``, with the products of pairs of them.
LINEAR = (
    "log_macs",
    "log_d_model",
    "log_depth",
    "mean_log_d_ff",
    "attention_share",
    "log_bytes",
    "bias_share",
)
PRODUCTS = (
    ("log_macs", "log_macs"),
    ("log_macs", "bias_share"),
    ("log_macs", "mean_log_d_ff"),
    ("log_macs", "attention_share"),
)
N_PHI = len(LINEAR) + len(PRODUCTS)
_COLUMNS = [FEATURES.index(name) for name in LINEAR]
_PAIRS = [(LINEAR.index(a), LINEAR.index(b)) for a, b in PRODUCTS]


@dataclass(frozen=True)
class Shape:
    """Shape of joules, of which ``source`` names the data and ``devices`` the measured GPUs.

    ``centre``, ``scale``, ``low`` and ``high`` are of all ``FEATURES`` of the measured networks.
    ``costs`` has the order of ``TERMS``; ``mean`` has shape ``(N_PHI,)`` and ``factor``
    ``(N_PHI, N_PHI)``.

    Raises:
        ValueError: an array has another shape, or holds no finite numbers.
    """

    source: str
    devices: tuple[str, ...]
    n_rows: int
    roofline: Roofline
    costs: Array
    centre: Array
    scale: Array
    low: Array
    high: Array
    mean: Array
    factor: Array

    def __post_init__(self) -> None:
        """Check the arrays."""
        n = len(FEATURES)
        shapes: dict[str, tuple[int, ...]]
        shapes = dict.fromkeys(("centre", "scale", "low", "high"), (n,))
        shapes |= {"costs": (len(TERMS),), "mean": (N_PHI,), "factor": (N_PHI, N_PHI)}
        for name, shape in shapes.items():
            values = np.asarray(getattr(self, name), dtype=float)
            object.__setattr__(self, name, values)
            if values.shape != shape or not np.isfinite(values).all():
                raise ValueError(f"{name} must be finite numbers of shape {shape}")
        if not (np.all(self.costs > 0) and np.all(self.scale > 0)):
            raise ValueError("costs and scale must be > 0")
        object.__setattr__(self, "devices", tuple(self.devices))

    @property
    def range(self) -> Standard:
        """Centre, scale and range of the measured networks, with a little slack."""
        # Numbers in the file are rounded, and a network just beyond the largest is not unlike it.
        slack = _SLACK * (self.high - self.low) + 1e-4 * (1 + np.abs(self.centre))
        return Standard(self.centre, self.scale, self.low - slack, self.high + slack)

    def describe(self) -> str:
        """Return what the shape was fitted to, in a few words."""
        return (
            f"the shape of {self.n_rows:,} readings of other GPUs ({', '.join(self.devices)}; "
            f"{self.source})"
        )

    def is_enough(self, features_NF: Array) -> bool:
        """Return whether rows are near, and too few to try other priors beside this one."""
        is_near = not np.any(self.range.excess(features_NF) > 0)
        return is_near and len(features_NF) < _LEAST_TO_CHOOSE

    def phi(self, features_NF: Array) -> Array:
        """Return the standardised features and their products, shape ``(N, N_PHI)``."""
        return products(self.standardised(features_NF)[:, _COLUMNS])

    def standardised(self, features_NF: Array) -> Array:
        """Standardise, after limiting each feature to the range of the measured networks."""
        result: Array = (np.clip(features_NF, self.low, self.high) - self.centre) / self.scale
        return result

    def terms(self, values_NK: Array, features_NF: Array) -> Terms:
        """Return the prior's terms and basis; ``values`` are terms under this roofline."""
        phi = self.phi(features_NF)
        predicted = (values_NK @ self.costs) * np.exp(phi @ self.mean)
        plain = transfer_terms(values_NK, self.costs, predicted, TERM_GROUPS)
        return Terms(plain.values, plain.prior, plain.pull, phi @ self.factor)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        data = asdict(self)
        for name, value in data.items():
            if isinstance(value, np.ndarray):
                data[name] = [_short(row) for row in value.tolist()]
        return data | {"schema": _SCHEMA, "features": list(FEATURES), "terms": list(TERMS)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Shape:
        """Read ``to_dict``'s form.

        Raises:
            ValueError: the data is of another schema, or of other features or terms.
        """
        for name, current in (("schema", _SCHEMA), ("features", FEATURES), ("terms", TERMS)):
            value = data[name]
            if (tuple(value) if isinstance(value, list) else value) != current:
                raise ValueError(f"{name} of a shape must be those of this version: fit it again")
        values = {field.name: data[field.name] for field in fields(cls)}
        return cls(**values | {"roofline": Roofline(**data["roofline"])})


def products(columns_NC: Array) -> Array:
    """Append the products of pairs to standardised ``LINEAR`` columns."""
    pairs = [columns_NC[:, a] * columns_NC[:, b] for a, b in _PAIRS]
    return np.column_stack([columns_NC, *pairs])


@cache
def shipped_shape() -> Shape:
    """Return the shape that comes with the package."""
    return Shape.from_dict(json.loads(SHIPPED.read_text()))


def save_shape(shape: Shape, path: Path) -> None:
    """Write a shape atomically."""
    text = json.dumps(shape.to_dict(), indent=1, allow_nan=False) + "\n"
    write_atomic(path, lambda temporary: Path(temporary).write_text(text))


def _short(value: float | Sequence[float]) -> Any:
    """Six significant digits, which no interval can tell apart."""
    if isinstance(value, list):
        return [_short(each) for each in value]
    return float(f"{value:.6g}")
