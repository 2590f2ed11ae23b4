"""Which settings of a ``SearchConfig`` go together, by runtimes and with a supernet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.core.names import TORCH
from search_spaces.runtimes.base import Converter
from search_spaces.runtimes.registry import get_runtime

if TYPE_CHECKING:
    from nas.records.config import SearchConfig


def check_runtimes(config: SearchConfig) -> None:
    """Raise ``ValueError`` unless the runtimes can hold members of the space on the device."""
    further = {each.device or config.device for each in config.measure_on}
    for runtime in map(get_runtime, config.runtimes):
        if not isinstance(runtime, Converter):
            continue
        if {config.device, *further} != {"cpu"}:
            raise ValueError(f"runtime {runtime.name} runs on the CPU: device must be cpu")
        if config.space.has_decoder:
            raise ValueError(
                f"runtime must be {TORCH} in a space with decoder_depth: {runtime.name} holds no "
                f"encoder-decoders"
            )
    if len(config.runtimes) > 1 and config.measure_on:
        raise ValueError(
            f"measure_on must be empty with several runtimes, got "
            f"{', '.join(device.name for device in config.measure_on)} with "
            f"{', '.join(config.runtimes)}: search once for each device, or in one runtime"
        )
    unknown = sorted(config.runtime_choices.keys() - set(config.runtimes))
    if unknown:
        raise ValueError(
            f"runtime_choices must be of runtimes of the search, "
            f"{', '.join(config.runtimes)}, got {', '.join(unknown)}"
        )


def check_goes_with_supernet(config: SearchConfig) -> None:
    """Raise ``ValueError`` for settings that a search with a supernet does not support."""
    if config.halving is not None:
        raise ValueError("halving must be None with a supernet, whose sub-networks do not train")
    if config.training.recovery.inherit_share is not None:
        raise ValueError("inherit_share must be None with a supernet, which finalists start from")
    if config.goals.needs_latency:
        raise ValueError(
            "max_latency_s and the objective latency must be left out with a supernet: few of its "
            "sub-networks are measured"
        )
    if config.refine:
        raise ValueError(f"refine must be 0 with a supernet, got {config.refine}")
    if config.warm_start:
        raise ValueError(
            "warm_start must be empty with a supernet: qualities of other runs do not compare "
            f"with inherited ones, got {', '.join(config.warm_start)}"
        )
