"""The plan of a campaign: which items to measure, in an order that may be cut off anywhere.

Every prefix of a plan covers its spaces: samples are in farthest-point order (Gonzalez 1985) on
gene indices. Every third is drawn near the closed-form optimum (most parameters for its
operations), where searches need predictions. A share of items is repeated later in another
process, to estimate the noise between processes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.core.names import TORCH, place_of
from predictors.measurement.protocol import Protocol
from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.architecture.layer_kinds import compressed_layer_kinds
from search_spaces.architecture.simulated import simulated_choices
from search_spaces.cost.counting import count
from search_spaces.cost.kernels import kernel_fault
from search_spaces.space import SearchSpace
from search_spaces.space.encoding import to_vector
from search_spaces.space.sampling import mutate, sample
from search_spaces.workload import Workload

# Samples drawn per chosen architecture, and fewer for large parts.
_POOL_FACTOR, _POOL_FACTOR_MANY, _MANY = 8, 2, 400
_OPTIMUM_EACH = 3
_REPEAT_EACH = 10
# A repeat follows this many items later, which is in another block.
_REPEAT_AFTER = 20


@dataclass(frozen=True, slots=True)
class PlanItem:
    """One planned measurement; ``repeat`` numbers those of one network in one ``runtime``."""

    architecture: Architecture
    workload: Workload
    repeat: int = 0
    runtime: str = TORCH


@dataclass(frozen=True, slots=True)
class Plan:
    """Items in order of priority, and the fixed reference that is measured between them.

    References are twice as frequent until there are ``n_references`` of them. Each has its own
    process, so that their spread is the noise between processes.
    """

    items: tuple[PlanItem, ...]
    reference: PlanItem | None
    protocol: Protocol
    device: str
    n_references: int = 0

    def key(self, item: PlanItem) -> str:
        """Return the key of a measurement: 16 hex digits, the same in every session."""
        data = [
            item.architecture.to_dict(),
            item.workload.to_dict(),
            item.repeat,
            self.protocol.hash,
            # The device alone is torch's, as before there were other runtimes.
            place_of(self.device, item.runtime),
        ]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Part:
    """``n`` architectures of a space on one workload.

    Each has at most ``most_kinds`` kinds of layers that CUDA must compile.
    """

    space: SearchSpace
    workload: Workload
    n: int
    most_kinds: int | None = None


def plan_campaign(
    parts: Sequence[Part],
    *,
    protocol: Protocol,
    device: str,
    seed: int = 0,
    with_simulated: bool = False,
) -> Plan:
    """Plan several spaces and workloads, one item of each part in turn.

    Every block of a planned architecture has a kernel on ``device``. ``with_simulated`` includes
    blocks whose sparsity is only a mask there, which saves nothing.

    Raises:
        ValueError: a part has ``n`` below 1.
    """
    queues = [
        choose(part, device, np.random.default_rng([seed, index]), with_simulated=with_simulated)
        for index, part in enumerate(parts)
    ]
    items = [item for rank in _interleaved(queues) for item in rank]
    rng = np.random.default_rng([seed, len(parts)])
    blocks = [
        items[start : start + _REPEAT_AFTER] for start in range(0, len(items), _REPEAT_AFTER)
    ]
    ordered: list[PlanItem] = []
    due: list[PlanItem] = []
    for block in blocks:
        # Random order within a block decorrelates the sampling from drift of the device.
        both = due + block
        ordered += [both[i] for i in rng.permutation(len(both))]
        due = [PlanItem(i.architecture, i.workload, 1) for i in block[::_REPEAT_EACH]]
    return plan_items([*ordered, *due], protocol=protocol, device=device)


def plan_items(
    items: Iterable[PlanItem], *, protocol: Protocol, device: str, seed: int | None = None
) -> Plan:
    """Plan ``items`` without duplicates, in random order if there is a ``seed``.

    There is a reference if the protocol has blocks and there are two or more items.
    """
    unique = tuple(dict.fromkeys(items))
    reference = None
    if protocol.block_size and len(unique) > 1:
        workload = unique[0].workload
        reference = PlanItem(reference_architecture(workload, device), workload)
    if seed is not None:
        order = np.random.default_rng(seed).permutation(len(unique))
        unique = tuple(unique[i] for i in order)
    return Plan(unique, reference, protocol, device)


def reference_architecture(workload: Workload, device: str) -> Architecture:
    """Return the fixed model whose joules show drift: dense, fp32, plain multi-head attention.

    On a GPU it is wide enough to heat the board. On a CPU it takes milliseconds and its
    activations fit the caches: a larger one varies with other tenants' use of shared memory (18%
    within a minute), which is not drift of the device.
    """
    d_model, depth, most_tokens = (512, 4, 256) if device.startswith("cuda") else (64, 2, 16)
    n_heads = d_model // 64 if d_model >= 256 else 4
    layer = LayerSpec(
        AttentionSpec(n_heads=n_heads, n_kv_heads=n_heads, d_head=d_model // n_heads),
        FfnSpec(d_ff=4 * d_model),
    )
    patch_size = 1
    if workload.is_image:
        _, height, width = workload.input_shape
        fitting = [p for p in range(1, height + 1) if height % p == 0 and width % p == 0]
        few = [p for p in fitting if height * width // p**2 <= most_tokens]
        patch_size = min(few) if few else max(fitting)
    return Architecture(d_model=d_model, layers=(layer,) * depth, patch_size=patch_size)


def choose(
    part: Part, device: str, rng: np.random.Generator, *, with_simulated: bool = False
) -> list[PlanItem]:
    """Choose the architectures of ``part``, so that every prefix covers the space.

    Raises:
        ValueError: the part has ``n`` below 1, or no member of its space fits.
    """
    if part.n < 1:
        raise ValueError(f"n must be >= 1, got {part.n} for space {part.space.name!r}")
    pool: dict[str, Architecture] = {}
    pool_size = min(part.n * _POOL_FACTOR, part.n * _POOL_FACTOR_MANY + _MANY)
    # A small space may have fewer members than the pool would hold.
    for _ in range(pool_size * 4):
        drawn = sample(part.space, rng)
        if _fits(drawn, part, device, with_simulated):
            pool.setdefault(drawn.hash, drawn)
        if len(pool) >= pool_size:
            break
    members = list(pool.values())
    if not members:
        raise ValueError(
            f"space {part.space.name!r} must have members that fit workload "
            f"{part.workload.key!r} on {device}, found none"
        )
    spread = _farthest_first([to_vector(a, part.space) for a in members], part.n)
    efficient = _efficient(members, part.workload)
    chosen: dict[str, Architecture] = {}
    spread_members = iter([members[i] for i in spread])
    for step in range(part.n * 4):
        if len(chosen) >= part.n:
            break
        near_optimum = step % _OPTIMUM_EACH == _OPTIMUM_EACH - 1
        if near_optimum:
            parent = efficient[int(rng.integers(len(efficient)))]
            candidate = mutate(parent, part.space, rng)
        else:
            following = next(spread_members, None)
            if following is None:
                continue
            candidate = following
        if _fits(candidate, part, device, with_simulated):
            chosen.setdefault(candidate.hash, candidate)
    return [PlanItem(a, part.workload) for a in chosen.values()]


def _fits(architecture: Architecture, part: Part, device: str, with_simulated: bool) -> bool:
    try:
        part.workload.check_fits(architecture)
    except ValueError:
        return False
    kinds = compressed_layer_kinds(architecture)
    if part.most_kinds is not None and kinds > part.most_kinds:
        return False
    if simulated_choices(architecture, device) and not with_simulated:
        return False
    return kernel_fault(architecture, device) is None


def _farthest_first(vectors: Sequence[NDArray[np.int64]], n: int) -> list[int]:
    """Return ``n`` indices, each the farthest from all before it (2-approximate cover)."""
    points = np.stack(vectors).astype(float)
    span = points.max(axis=0) - points.min(axis=0)
    points = points / np.where(span > 0, span, 1.0)
    order = [0]
    distance = np.linalg.norm(points - points[0], axis=1)
    while len(order) < min(n, len(points)):
        order.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[order[-1]], axis=1))
    return order


def _efficient(members: Sequence[Architecture], workload: Workload) -> list[Architecture]:
    """Return the members with more parameters than any other of no more operations."""
    costs = sorted(
        (c.macs, -c.params, i) for i, a in enumerate(members) for c in (count(a, workload),)
    )
    best: list[Architecture] = []
    most = 0
    for _, negative_params, index in costs:
        if -negative_params > most:
            most = -negative_params
            best.append(members[index])
    return best


def _interleaved(queues: Sequence[Sequence[PlanItem]]) -> Iterable[list[PlanItem]]:
    for rank in range(max(map(len, queues), default=0)):
        yield [queue[rank] for queue in queues if rank < len(queue)]
