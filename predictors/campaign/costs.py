"""Expected seconds of a measurement: start of the process, compilation and windows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from predictors.campaign.plan import PlanItem
from predictors.measurement.protocol import Protocol
from search_spaces.architecture.layer_kinds import PLAIN, compressed_layer_kinds

# Seconds of work before the first temperature reading, and between two readings.
_WARM_READ_S = 1.0
# Steps of the counter whose median is its period.
_N_TICKS = 6


@dataclass(frozen=True, slots=True)
class ItemCosts:
    """Seconds of each step of one measurement.

    ``process_s`` starts a fresh process and builds the network. ``compile_s`` compiles one kind
    of compressed layer; ``by_precision`` contains measured values, which take precedence. The
    windows hold the device for ``windows_s``.
    """

    process_s: float = 5.0
    compile_s: float = 40.0
    windows_s: float = 12.0
    by_precision: Mapping[str, float] = field(default_factory=dict)

    def seconds(self, item: PlanItem) -> float:
        """Return the expected seconds of ``item``, from the start of its process to its record."""
        kinds = compressed_layer_kinds(item.architecture)
        precisions = {b.compression.precision for b in item.architecture.blocks} - set(PLAIN)
        each_s = max((self.by_precision.get(p, self.compile_s) for p in precisions), default=0.0)
        return self.process_s + kinds * each_s + self.windows_s


def held_s(protocol: Protocol, tick_s: float = 0.0) -> float:
    """Return the least seconds that ``protocol`` holds a device.

    The energy counter steps every ``tick_s``, and a window waits for a step at both ends. Rest,
    idle power and warm-up are included.
    """
    read_s = _WARM_READ_S + 2 * tick_s
    n_reads = 1 + math.ceil((protocol.warmup_span_s - read_s / 2) / read_s)
    warm_s = max(protocol.warmup_s, _WARM_READ_S + _N_TICKS * tick_s + n_reads * read_s)
    rest_s = protocol.cooldown_s + (protocol.idle_s and protocol.idle_s + tick_s)
    return rest_s + warm_s + protocol.min_repeats * (protocol.window_s + 2 * tick_s)
