"""What the campaign of a device measures, and in which order.

On an NVIDIA GPU the first stage needs no compiler: fp32, bf16 and 2:4, on encoders and on both
phases of decoders. Images, mixtures and the quantised kernels follow by the coverage that they
gain a second (``predictors.campaign.coverage``), of networks whose layers are alike: each compiles
one kind of layer. Nothing is probed: a kernel that does not run fails once and is set aside.
On a CPU, small vision models on the digits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from predictors.campaign.plan import Part, Plan, PlanItem
from predictors.campaign.stages import plan_stages
from predictors.measurement.protocol import Protocol, get_protocol
from search_spaces.architecture.stacks import ENCODER
from search_spaces.space import SearchSpace
from search_spaces.space.presets import get_space
from search_spaces.workload import Workload

MEASUREMENTS = Path(__file__).parents[2] / "predictors" / "measurements"
SEED = 0
# A network compiles at most so many kinds of layer.
MOST_KINDS = 2
# Architectures of each kind and workload in the first stage.
N_GPU, N_CPU = 4, 60
# Of each workload in the second: mixtures of plain kernels, and networks of one quantised kernel.
_PLAIN_TIMES, _QUANTISED_TIMES = 3, 1.5
_QUANTISED = ("int8", "fp8", "int8wo", "int4wo")
_DECODER = Workload("decoder-256", "language_modelling", (256,), 8192, 8, 8192)
FIRST_WORKLOADS: tuple[tuple[str, Workload], ...] = (
    ("encoder-base", Workload("encoder-128", "text_classification", (128,), 2, 32, 8192)),
    ("decoder-base", _DECODER.with_phase("prefill")),
    ("decoder-base", _DECODER.with_phase("generate")),
)
LATER_WORKLOADS: tuple[tuple[str, Workload], ...] = (
    *FIRST_WORKLOADS,
    ("vision-base", Workload("vision-224", "image_classification", (3, 224, 224), 1000, 32)),
)
# The digits as the task has them, which is not imported: its data needs scikit-learn.
CPU_WORKLOAD = Workload("digits", "image_classification", (1, 8, 8), 10, 128)
_FIRST_KINDS: tuple[tuple[str, str], ...] = (("fp32", "dense"), ("bf16", "dense"), ("bf16", "2:4"))


def make_plan(
    device: str,
    protocol: Protocol,
    item_s: Callable[[PlanItem], float],
    n: int | None = None,
) -> Plan:
    """The campaign of a device; ``item_s`` returns the seconds that an item takes.

    ``n`` is the number of architectures of each kind and workload in the first stage.
    """
    if not device.startswith("cuda"):
        space = get_space("digits-tiny").restrict(precisions=("fp32", "bf16", "int8"))
        cpu = [Part(space, CPU_WORKLOAD, n or N_CPU)]
        return plan_stages(cpu, (), protocol=protocol, device=device, item_s=item_s, seed=SEED)
    each = n or N_GPU
    first = [
        _part(name, workload, {"precisions": (precision,), "sparsities": (sparsity,)}, each)
        for precision, sparsity in _FIRST_KINDS
        for name, workload in FIRST_WORKLOADS
    ]
    later = [
        _part(name, work, {"precisions": ("fp32", "bf16")}, _PLAIN_TIMES * each)
        for name, work in LATER_WORKLOADS
    ]
    later += [
        _part(
            name,
            workload,
            {"precisions": (precision,), "sparsities": ("dense",)},
            math.ceil(_QUANTISED_TIMES * each),
            is_uniform=True,
        )
        for precision in _QUANTISED
        for name, workload in LATER_WORKLOADS
    ]
    return plan_stages(first, later, protocol=protocol, device=device, item_s=item_s, seed=SEED)


def _part(
    name: str,
    workload: Workload,
    limits: Mapping[str, tuple[str, ...]],
    n: int,
    *,
    is_uniform: bool = False,
) -> Part:
    space: SearchSpace = get_space(name).restrict(**limits)
    if is_uniform:
        space = replace(space, shared=frozenset(ENCODER.layer_genes))
    return Part(space, workload, n, MOST_KINDS)


def protocol_of(device: str, name: str | None = None) -> Protocol:
    """The protocol called ``name``, or that of a device's campaign.

    Raises:
        ValueError: there is no such protocol.
    """
    return get_protocol(name or ("brief" if device.startswith("cuda") else "quick"))


def records_folder(device_name: str) -> Path:
    """Where records of a device are kept, such as ``nvidia-h200``."""
    return MEASUREMENTS / re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-")
