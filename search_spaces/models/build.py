"""From an architecture and a workload to a trainable network."""

from __future__ import annotations

import torch

from search_spaces.architecture import Architecture
from search_spaces.models.transformer import Transformer
from search_spaces.workload import Workload


def build(
    architecture: Architecture, workload: Workload, *, generator_seed: int | None = None
) -> Transformer:
    """The fp32 dense network, not yet compressed, with random weights.

    With ``generator_seed`` the weights follow from it, and torch's global generator is left as
    it was.

    Raises:
        ValueError: the architecture does not fit the workload.
    """
    if generator_seed is None:
        return Transformer(architecture, workload)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_seed)
        return Transformer(architecture, workload)
