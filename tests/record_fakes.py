"""Records of a made-up device: closed-form joules, sessions that are off, windows with noise."""

import numpy as np

from predictors.measurement.protocol import get_protocol
from predictors.measurement.records import EnergyRecord
from predictors.meters.base import EnergyReading
from search_spaces.cost.counting import count
from search_spaces.space.presets import PRESETS
from search_spaces.space.sampling import sample
from search_spaces.workload import Workload

DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 128)
SPACE = PRESETS["digits-tiny"].restrict(precisions=("fp32", "bf16"), sparsities=("dense",))


def true_j(architecture, workload=DIGITS):
    """bf16 products cost half, every layer and every byte have a cost of their own."""
    counts = count(architecture, workload)
    macs = sum(b.macs * (0.5 if b.precision == "bf16" else 1.0) for b in counts.blocks)
    moved = counts.activation_bytes + counts.weight_bytes / workload.batch_size
    return 1e-10 * macs + 1e-10 * moved + 2e-6 * architecture.depth + 1e-6


def made_record(
    architecture,
    workload,
    energy_j,
    *,
    repeats_j=None,
    session="s0",
    order=0,
    device="Fake",
    source="fake",
    latency_s=None,
    protocol=None,
    flags=(),
    n_rejected=0,
    converged=True,
    host="fake-host",
    board=None,
    **others,
):
    """A record whose label is ``energy_j``."""
    repeats_j = (energy_j,) * 6 if repeats_j is None else tuple(repeats_j)
    protocol = protocol or get_protocol("quick")
    reading = EnergyReading(
        energy_j=energy_j,
        low_j=energy_j * 0.98,
        high_j=energy_j * 1.02,
        n_repeats=len(repeats_j),
        converged=converged,
        meter="fake",
        source=source,
        is_estimate=False,
        device=device,
        workload=workload.key,
        batch_size=workload.batch_size,
        latency_s=latency_s or energy_j * workload.batch_size / 5.0,
        power_w=5.0,
        duration_s=1.0,
        protocol_hash=protocol.hash,
        flags=flags,
        n_rejected=n_rejected,
        host=host,
        board=board,
    )
    return EnergyRecord(
        architecture=architecture,
        workload=workload,
        reading=reading,
        repeats_j=repeats_j,
        job=f"{session}-{order}",
        mode="compile",
        date=f"2026-11-24T00:{order // 60 % 60:02d}:{order % 60:02d}.000+00:00",
        versions={},
        protocol=protocol.to_dict(),
        spent_energy_j=1.0,
        session=session,
        order=order,
        **others,
    )


class FormulaMeasure:
    """Stands for a search's measuring, which compiles for many times as long as it trains here."""

    def __init__(self, *_, **__):
        pass

    def __call__(self, architecture, workload, weights, inputs, runtime=None):
        return made_record(architecture, workload, true_j(architecture, workload))


def made_records(n, *, seed=0, n_sessions=4, session_sd=0.03, noise=0.01, n_repeated=0):
    """``n`` architectures dealt to sessions, each of which is off by a factor of its own."""
    rng = np.random.default_rng(seed)
    found = {}
    while len(found) < n:
        architecture = sample(SPACE, rng)
        found.setdefault(architecture.hash, architecture)
    offsets = np.exp(rng.normal(0, session_sd, n_sessions))
    architectures = list(found.values())
    asked = [(a, i % n_sessions) for i, a in enumerate(architectures)]
    asked += [(a, (i + 1) % n_sessions) for i, a in enumerate(architectures[:n_repeated])]
    records = []
    for order, (architecture, session) in enumerate(asked):
        level_j = true_j(architecture) * offsets[session]
        repeats_j = level_j * np.exp(rng.normal(0, noise * 2, 6))
        records.append(
            made_record(
                architecture,
                DIGITS,
                float(np.median(repeats_j)),
                repeats_j=[float(j) for j in repeats_j],
                session=f"s{session}",
                order=order,
                latency_s=float(level_j * 128 / 5.0 * np.exp(rng.normal(0, 0.2))),
            )
        )
    return records
