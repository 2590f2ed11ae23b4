"""Registry of runtimes."""

from __future__ import annotations

from collections.abc import Iterable

from nas.core.names import TORCH
from nas.core.nearest import did_you_mean
from search_spaces.runtimes.base import Converter, Runtime
from search_spaces.runtimes.executorch_runtime import ExecuTorch
from search_spaces.runtimes.litert_runtime import LiteRt
from search_spaces.runtimes.onnxruntime_runtime import OnnxRuntime
from search_spaces.runtimes.openvino_runtime import OpenVino
from search_spaces.runtimes.torch_runtime import EagerTorchRuntime, TorchRuntime

__all__ = ["CONVERTERS", "RUNTIMES", "TORCH", "get_runtime", "parse_runtimes"]

RUNTIMES: dict[str, Runtime] = {
    each.name: each
    for each in (
        TorchRuntime(),
        EagerTorchRuntime(),
        OnnxRuntime(),
        OpenVino(),
        LiteRt(),
        ExecuTorch(),
    )
}
CONVERTERS: dict[str, Converter] = {
    name: each for name, each in RUNTIMES.items() if isinstance(each, Converter)
}


def get_runtime(name: str) -> Runtime:
    """Return the runtime called ``name``.

    Raises:
        ValueError: there is none; the message lists all.
    """
    if name not in RUNTIMES:
        hint = did_you_mean(name, tuple(RUNTIMES))
        raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}, got {name!r}{hint}")
    return RUNTIMES[name]


def parse_runtimes(names: Iterable[str]) -> tuple[Runtime, ...]:
    """Return the runtimes called ``names``, each once.

    Raises:
        ValueError: there is no such runtime, or its packages are not installed; the message has
            the command that installs them.
    """
    runtimes = tuple(map(get_runtime, dict.fromkeys(names)))
    missing = next((text for each in runtimes if (text := each.missing()) is not None), None)
    if missing is not None:
        raise ValueError(missing)
    return runtimes
