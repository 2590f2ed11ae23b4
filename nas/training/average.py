"""Weight averaging: the mean of a network's weights over the last steps of its training.

At a constant learning rate the iterates surround a flat minimum, whose centre generalises better
than any of them. Sources: averaged iterates, Polyak & Juditsky 1992; for networks, at a constant
rate, Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_swa_multi_avg_fn

# One kernel for all parameters: for small models a loop costs as much as a forward pass.
_average_ = get_swa_multi_avg_fn()  # type: ignore[no-untyped-call]


class Average(nn.Module):
    """Running mean of ``model``'s parameters; a module, so that checkpoints include it.

    Buffers are not averaged: they contain counts and tables.
    """

    steps: Tensor

    def __init__(self, model: nn.Module) -> None:
        """Start at zero steps."""
        super().__init__()
        self._parameters_of_model: list[Tensor] = list(model.parameters())
        for index, parameter in enumerate(self._parameters_of_model):
            self.register_buffer(f"mean_{index}", torch.zeros_like(parameter))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        # A copy on the host: reading the buffer would synchronise with a GPU at each step.
        self._n_steps = 0

    def update(self) -> None:
        """Add the parameters after a step to the mean."""
        _average_(self._means(), self._parameters_of_model, self._n_steps)
        self.steps += 1
        self._n_steps += 1

    def restored(self) -> None:
        """Update internal state after a checkpoint was loaded."""
        self._n_steps = int(self.steps)

    def exchange(self) -> None:
        """Swap the model's parameters and the means; a second call undoes this.

        Before the first averaged step this is a no-op.
        """
        if self._n_steps == 0:
            return
        with torch.no_grad():
            for mean, parameter in zip(self._means(), self._parameters_of_model, strict=True):
                current = parameter.detach().clone()
                parameter.copy_(mean)
                mean.copy_(current)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Swap the means into the model within the context."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def _means(self) -> list[Tensor]:
        return [getattr(self, f"mean_{i}") for i in range(len(self._parameters_of_model))]
