"""The mean of a network's weights over the last steps of its training.

At a rate that stays high the steps wander about a flat place, whose middle generalises better
than where any of them is. Sources: averaged iterates, Polyak & Juditsky 1992; of networks, at a
constant rate, Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average(nn.Module):
    """The mean of ``model``'s parameters over steps, a module so that a loop's state holds it.

    Buffers are not averaged: they are counts and tables, of which a mean says nothing.
    """

    steps: Tensor

    def __init__(self, model: nn.Module) -> None:
        """Make one of no steps yet."""
        super().__init__()
        self._parameters_of_model: list[Tensor] = list(model.parameters())
        for index, parameter in enumerate(self._parameters_of_model):
            self.register_buffer(f"mean_{index}", torch.zeros_like(parameter))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        # Kept here too: the one on a GPU would have to be waited for at each step.
        self._n_steps = 0

    def update(self) -> None:
        """Take in the parameters as they are after a step."""
        self.steps += 1
        self._n_steps += 1
        with torch.no_grad():
            torch._foreach_lerp_(self._means(), self._parameters_of_model, 1 / self._n_steps)

    def restored(self) -> None:
        """Go on from the state that was loaded."""
        self._n_steps = int(self.steps)

    def exchange(self) -> None:
        """Give the model the means, and keep its parameters in their place; twice is nothing.

        Without a step so far the model stays as it is.
        """
        if self._n_steps == 0:
            return
        with torch.no_grad():
            for mean, parameter in zip(self._means(), self._parameters_of_model, strict=True):
                kept = parameter.detach().clone()
                parameter.copy_(mean)
                mean.copy_(kept)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The model has the means inside, whatever ends it."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def _means(self) -> list[Tensor]:
        return [getattr(self, f"mean_{i}") for i in range(len(self._parameters_of_model))]
