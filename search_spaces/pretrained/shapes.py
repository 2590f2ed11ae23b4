"""Networks without values: their shapes alone, or memory for values to come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from search_spaces.architecture import Architecture
from search_spaces.models.build import build
from search_spaces.models.transformer import Transformer
from search_spaces.workload import Workload


class _WithoutValues(TorchFunctionMode):
    """Make tensors of one type on one device, and neither draw nor scale values.

    On ``meta`` torch first imports packages for these, which takes seconds.
    """

    def __init__(self, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.device, self.dtype = device, dtype

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        values = dict(kwargs or {})
        if func in (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_):
            return args[0] if args else values["tensor"]
        if func in (torch.Tensor.mul, torch.Tensor.__mul__):
            return args[0]
        if func in (torch.empty, torch.ones, torch.randn, torch.zeros):
            values |= {"device": self.device, "dtype": self.dtype}
            func = torch.empty if func is torch.randn else func
        return func(*args, **values)


def empty_network(
    architecture: Architecture,
    workload: Workload,
    *,
    device: str = "meta",
    dtype: torch.dtype = torch.float32,
) -> Transformer:
    """Build a network without values: on ``meta`` shapes alone, on ``cpu`` memory not yet used.

    Raises:
        ValueError: the architecture does not fit the workload.
    """
    with _WithoutValues(device, dtype):
        return build(architecture, workload)
