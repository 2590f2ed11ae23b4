"""Build a trainable network from an architecture and a workload."""

from __future__ import annotations

import torch
from torch import nn

from search_spaces.architecture import TRANSFORMER, Architecture
from search_spaces.cost.families import get_family
from search_spaces.models.encoder_decoder import EncoderDecoder
from search_spaces.models.transformer import Transformer
from search_spaces.workload import Workload


def build_network(
    architecture: Architecture, workload: Workload, *, generator_seed: int | None = None
) -> nn.Module:
    """Build the dense fp32 network of any family; see ``build`` for the rest.

    Raises:
        ValueError: the architecture does not fit the workload, or its family is not registered.
    """
    if architecture.family != TRANSFORMER:
        make = get_family(architecture.family).build
    elif architecture.decoder is not None:
        make = EncoderDecoder
    else:
        return build(architecture, workload, generator_seed=generator_seed)
    if generator_seed is None:
        return make(architecture, workload)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_seed)
        return make(architecture, workload)


def build(
    architecture: Architecture, workload: Workload, *, generator_seed: int | None = None
) -> Transformer:
    """Build the dense fp32 network of one stack, with random weights.

    With ``generator_seed`` the weights are drawn from it, and torch's global generator is left
    unchanged.

    Raises:
        ValueError: the architecture does not fit the workload, or is of another family, or has a
            decoder.
    """
    workload.check_decoder(architecture.decoder is not None)
    if architecture.decoder is not None:
        raise ValueError("decoder must be null for this: only single stacks are supported")
    if architecture.family != TRANSFORMER:
        raise ValueError(f"family must be {TRANSFORMER} for this, got {architecture.family}")
    if generator_seed is None:
        return Transformer(architecture, workload)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator_seed)
        return Transformer(architecture, workload)
