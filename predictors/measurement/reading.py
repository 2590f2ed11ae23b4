"""Turn the windows of one measurement into a reading: joules per unit of a workload."""

from __future__ import annotations

import platform
from dataclasses import replace
from statistics import median

from nas.core.estimate import Estimate
from nas.core.names import TORCH
from predictors.measurement.protocol import Protocol
from predictors.measurement.windows import Measurement
from predictors.meters.base import EnergyReading, Meter
from predictors.meters.board import Board
from search_spaces.workload import Workload


def energies_per_unit(measurement: Measurement, workload: Workload) -> tuple[float, ...]:
    """Return the joules of each window per unit of ``workload``."""
    return tuple(energy_j / workload.n_units for energy_j in measurement.energies_j)


def make_reading(
    measurement: Measurement,
    workload: Workload,
    meter: Meter,
    protocol: Protocol,
    *,
    flags: tuple[str, ...] = (),
    runtime: str = TORCH,
) -> EnergyReading:
    """Return the reading: the median over windows with its 95% interval, meter and board.

    The model's ``flags`` follow those of the measurement; ``runtime`` ran it.
    """
    per_unit_j = energies_per_unit(measurement, workload)
    energy = Estimate.of_median(per_unit_j)
    measured_s = sum(window.duration_s for window in measurement.windows)
    latency_s = measured_s / sum(measurement.batches)
    idle_w = measurement.idle_power_w
    return EnergyReading(
        energy_j=energy.mean,
        low_j=energy.low,
        high_j=energy.high,
        n_repeats=len(per_unit_j),
        converged=measurement.converged,
        meter=meter.name,
        source=meter.source,
        is_estimate=meter.is_estimate,
        device=meter.device,
        workload=workload.key,
        batch_size=workload.batch_size,
        latency_s=latency_s,
        power_w=sum(window.energy_j for window in measurement.windows) / measured_s,
        duration_s=measured_s,
        protocol_hash=protocol.hash,
        net_energy_j=None
        if idle_w is None
        else energy.mean - idle_w * latency_s / workload.n_units,
        unit=workload.unit,
        driver=meter.driver_version,
        flags=(*measurement.flags, *flags),
        n_rejected=measurement.n_rejected,
        host=platform.node() or None,
        board=_board(meter, measurement),
        runtime=runtime,
    )


def _board(meter: Meter, measurement: Measurement) -> Board | None:
    """Return the meter's board, with the memory clock of windows under load."""
    board = meter.read_board()
    clocks_mhz = [w.memory_clock_mhz for w in measurement.windows if w.memory_clock_mhz]
    if board is None or not clocks_mhz:
        return board
    return replace(board, memory_clock_mhz=median(clocks_mhz))
