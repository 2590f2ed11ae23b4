"""Families of networks: how users' own models are built and counted.

Family ``"transformer"`` is built in. Another family makes any ``torch.nn.Module`` that maps the
inputs of a workload to its outputs, from the same genes (width, depth, feed-forward widths, patch
size, resolution ...) and from ``extra`` genes of its own. It runs in fp32, dense and at full rank.
Genes that it does not read must have one value in a space, so that a network has one name.
docs/plugins.md has an example.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from search_spaces.architecture import TRANSFORMER, Architecture
from search_spaces.plugins import plugin_entries
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.space.batch import ArchitectureBatch


@dataclass(frozen=True)
class FamilyCounts:
    """Closed-form counts of ``N`` networks, every field of shape ``(N,)``.

    ``macs`` (multiply-accumulates of matrix products), ``moved_values`` (read and written, weights
    left out) and ``peak_values`` (alive at once) are per sample, ``n_kernels`` launches of a
    forward pass in eager mode. Predictors and limits use them; joules and quality are measured.

    Raises:
        ValueError: a field has another length, or holds a value that is not finite and above 0.
    """

    params: NDArray[np.float64]
    macs: NDArray[np.float64]
    moved_values: NDArray[np.float64]
    peak_values: NDArray[np.float64]
    n_kernels: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Validate: predictors take the logarithm of a user's counts."""
        for field in fields(self):
            values = np.asarray(getattr(self, field.name), dtype=float)
            if values.shape != np.shape(self.params) or values.ndim != 1:
                raise ValueError(
                    f"{field.name} must have shape (N,) as params, got {values.shape}"
                )
            if not (np.isfinite(values) & (values > 0)).all():
                raise ValueError(f"{field.name} must be finite and above 0, got {values.min()}")
            object.__setattr__(self, field.name, values)


class Family(Protocol):
    """How to build and count the networks of one family."""

    def build(self, architecture: Architecture, workload: Workload) -> nn.Module:
        """Build the network with random weights; it maps a batch of inputs to outputs.

        Raises:
            ValueError: the architecture does not fit the workload.
        """

    def count(self, batch: ArchitectureBatch, workload: Workload) -> FamilyCounts:
        """Count every architecture of ``batch``, whose ``extra`` has the family's own genes."""


def get_family(name: str) -> Family:
    """Return the family ``name`` of a plug-in or an installed package.

    Raises:
        ValueError: no such family is registered.
    """
    families = plugin_entries("FAMILIES")
    if name not in families:
        allowed = ", ".join([TRANSFORMER, *sorted(families)])
        raise ValueError(
            f"family must be one of {allowed} (--plugin FILE adds those of a file), got {name!r}"
        )
    family: Family = families[name]
    return family
