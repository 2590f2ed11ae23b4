"""Standardised arrays of each split, from samples that are read once and checked.

Shape legend: N samples; what follows is the shape of one.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.tasks.base import IGNORED, SPLITS, SplitName
from nas.tasks.base.labels import Encoded, encode_labels
from nas.tasks.base.problems import Problems
from nas.tasks.base.sources import Sample, Sources
from nas.tasks.base.splits import check_not_empty, repeats

_AT_A_TIME = 1024
# A deviation below this share of the mean is that of rounding.
_CONSTANT = 1e-7
_BYTES = np.dtype(np.float32).itemsize
# Mean and deviation at each index of an axis.
Scale = tuple[Sequence[float], Sequence[float]]
# The pool and the row of each sample of a split.
_Rows = Sequence[tuple["Pool", int]]


@dataclass(slots=True)
class Pool:
    """Values of samples of one source, in a file of their own.

    ``digests`` are hashes of all values, ``inputs`` and ``targets`` of their planes apart.
    """

    samples: Sequence[Sample]
    path: Path
    values: NDArray[Any]
    digests: list[bytes] = field(default_factory=list)
    inputs: list[bytes] = field(default_factory=list)
    targets: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """How samples become arrays.

    Inputs are standardised by the mean and deviation of the training split at each index of
    ``axis`` of a sample, or by those of ``scale``. ``noun`` names samples in messages. The last
    ``n_target_planes`` planes of a sample are targets. With ``has_targets`` they are
    ``Sample.target``, filled up with ``IGNORED`` to the same number of rows. Otherwise targets are
    class numbers of labels.
    """

    axis: int
    noun: str
    n_target_planes: int = 0
    has_targets: bool = False
    scale: Scale | None = None


def prepare(
    samples: Mapping[SplitName, Sequence[Sample]],
    sources: Sources,
    folder: Path,
    problems: Problems,
    plan: Plan,
) -> dict[str, Any]:
    """Read ``samples`` and write ``SPLIT.inputs.npy`` and ``SPLIT.targets.npy`` into ``folder``.

    Returns:
        Plain data: classes, shape, mean and deviation at each index of the axis, numbers of
        samples and of classes' samples in each split, and ``splits.repeats``.

    Raises:
        DataError: the data are invalid; it contains all problems.
    """
    shape: tuple[int, ...] | None = None
    pools: dict[SplitName, Pool] = {}
    for name, listed in samples.items():
        pool = _read(listed, folder / f"{name}.values.npy", shape, problems, plan)
        if pool is not None:
            pools[name], shape = pool, pool.values.shape[1:]
    if shape is None and not problems:
        problems.add(f"the data must have {plan.noun}, and have none")
    problems.check()
    assert shape is not None
    n_planes = shape[0] - plan.n_target_planes
    rows = _assigned(pools, sources, problems, plan.noun)

    def of_all(read: Callable[[Pool, int], Any]) -> dict[SplitName, list[Any]]:
        return {split: [read(pool, row) for pool, row in rows[split]] for split in SPLITS}

    places = of_all(lambda pool, row: pool.samples[row].place)
    encoded: Encoded | None = None
    if plan.n_target_planes:
        labels = of_all(lambda pool, row: pool.targets[row])
    elif plan.has_targets:
        labels = of_all(lambda pool, row: pool.samples[row].target.tobytes())
    else:
        labels = of_all(lambda pool, row: pool.samples[row].label)
        encoded = encode_labels(labels, places, sources.training, problems)
    problems.check()
    n_rows = 1
    if plan.has_targets:
        n_rows = max(1, *(len(s.target) for pool in pools.values() for s in pool.samples))
    repeated = repeats(of_all(lambda pool, row: pool.inputs[row]), labels, places)
    if plan.scale is None:
        mean, deviation = _scale(rows["train"], plan.axis, n_planes)
    else:
        mean, deviation = _given(plan.scale, plan.axis, (n_planes, *shape[1:]))
    for split in SPLITS:
        inputs_N = np.lib.format.open_memmap(
            folder / f"{split}.inputs.npy",
            "w+",
            np.float32,
            (len(rows[split]), n_planes, *shape[1:]),
        )
        planes: list[NDArray[np.int64]] = []
        for start, values in _chunks(rows[split]):
            inputs_N[start : start + len(values)] = (values[:, :n_planes] - mean) / deviation
            planes.append(values[:, n_planes:].astype(np.int64))
        inputs_N.flush()
        if encoded is not None:
            targets = encoded.targets(split)
        elif plan.has_targets:
            targets = np.stack(
                [_filled(pool.samples[row].target, n_rows) for pool, row in rows[split]]
            )
        else:
            targets = np.concatenate(planes)
            targets = targets[:, 0] if plan.n_target_planes == 1 else targets
        np.save(folder / f"{split}.targets.npy", targets)
    for pool in pools.values():
        pool.path.unlink()
    return {
        "shape": [n_planes, *shape[1:]],
        "mean": mean.flatten().tolist(),
        "deviation": deviation.flatten().tolist(),
        "samples": {split: len(rows[split]) for split in SPLITS},
        "repeats": repeated,
        **({} if encoded is None else encoded.about()),
    }


def _read(
    samples: Sequence[Sample],
    path: Path,
    shape: tuple[int, ...] | None,
    problems: Problems,
    plan: Plan,
) -> Pool | None:
    """Read the values of all samples; ``None`` where none can be read."""
    pool: Pool | None = None
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as threads:
        for start in range(0, len(samples), _AT_A_TIME):
            part = samples[start : start + _AT_A_TIME]
            values_or_errors = zip(part, threads.map(_tried, part), strict=True)
            for row, (sample, read) in enumerate(values_or_errors, start):
                if isinstance(read, str):
                    problems.add(f"{sample.place} {read}")
                    continue
                shape = read.shape if shape is None else shape
                if read.shape != shape:
                    problems.add(
                        f"{sample.place} must have the shape {shape} of the other {plan.noun} "
                        f"(the task file may name the size that they are brought to), got "
                        f"{read.shape}"
                    )
                    continue
                if pool is None:
                    _check_room(len(samples), shape, path.parent, plan.noun)
                    values_N = np.lib.format.open_memmap(
                        path, "w+", read.dtype, (len(samples), *shape)
                    )
                    pool = Pool(samples, path, values_N)
                pool.values = _holding(pool.values, read.dtype, path)
                pool.values[row] = read
                n_inputs = len(read) - plan.n_target_planes
                pool.digests.append(_digest(read))
                pool.inputs.append(_digest(read[:n_inputs]))
                pool.targets.append(_digest(read[n_inputs:]))
    return pool


def _filled(target: NDArray[np.int64], n_rows: int) -> NDArray[np.int64]:
    """Add ignored rows to a target."""
    added = np.full((n_rows - len(target), *target.shape[1:]), IGNORED, dtype=target.dtype)
    return np.concatenate([target, added])


def _digest(values: NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()


def _holding(values_N: NDArray[Any], dtype: np.dtype[Any], path: Path) -> NDArray[Any]:
    """Widen ``values_N`` to a type that also holds ``dtype``: pictures of 8 and of 16 bits."""
    wider = np.result_type(values_N.dtype, dtype)
    if wider == values_N.dtype:
        return values_N
    beside = path.with_suffix(".wider.npy")
    wide_N = np.lib.format.open_memmap(beside, "w+", wider, values_N.shape)
    for start in range(0, len(values_N), _AT_A_TIME):
        wide_N[start : start + _AT_A_TIME] = values_N[start : start + _AT_A_TIME]
    beside.replace(path)
    return wide_N


def _tried(sample: Sample) -> NDArray[Any] | str:
    try:
        values: NDArray[Any] = sample.read()
    except ValueError as error:
        return str(error)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return "must be finite, got NaN or infinity"
    return values


def _check_room(n: int, shape: tuple[int, ...], folder: Path, what: str) -> None:
    """Check that values, as they are read and standardised, fit on the disk."""
    needed = 2 * n * math.prod(shape) * _BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{n} {what} of shape {shape} need {needed / 1e9:.1f} GB below {folder.parent}, "
            f"where {free / 1e9:.1f} GB are free: XDG_CACHE_HOME may name another place"
        )


def _assigned(
    pools: Mapping[SplitName, Pool], sources: Sources, problems: Problems, noun: str
) -> dict[SplitName, list[tuple[Pool, int]]]:
    """Divide the rows of pools into splits, by group, else by the digest of their values."""
    rows: dict[SplitName, list[tuple[Pool, int]]] = {split: [] for split in SPLITS}
    for name, pool in pools.items():
        for row, (sample, digest) in enumerate(zip(pool.samples, pool.digests, strict=True)):
            if sample.group is not None:
                digest = hashlib.sha256(sample.group.encode()).digest()
            rows[sources.place(name, digest)].append((pool, row))
    digests = [digest for pool in pools.values() for digest in pool.digests]
    if len(digests) > 1 and len(set(digests)) == 1:
        problems.add(
            f"the data must have {noun} that differ, and all {len(digests):,} are read as the "
            f"same values, {_range_of(pools)}"
        )
        # Errors in splits and classes would follow from this alone.
        problems.check()
    check_not_empty(rows, noun, problems)
    return rows


def _range_of(pools: Mapping[SplitName, Pool]) -> str:
    """Range of values that are all alike, for a message."""
    first = next(iter(pools.values())).values[0]
    low, high = float(first.min()), float(first.max())
    return f"{low:g} everywhere" if low == high else f"from {low:g} to {high:g}"


def _chunks(rows: _Rows) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield the position of the first of some rows, and their values."""
    for start in range(0, len(rows), _AT_A_TIME):
        part = rows[start : start + _AT_A_TIME]
        yield start, np.stack([pool.values[row] for pool, row in part]).astype(np.float64)


def _given(
    scale: Scale, axis: int, shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shape a scale's mean and deviation for samples of ``shape``."""
    along = [1] * len(shape)
    along[axis] = shape[axis]
    for name, values in zip(("mean", "deviation"), scale, strict=True):
        if len(values) != shape[axis]:
            raise ValueError(f"{name} must have {shape[axis]} numbers, got {len(values)}")
    mean, deviation = (np.array(values, np.float64).reshape(along) for values in scale)
    return mean, deviation


def _scale(
    rows: _Rows, axis: int, n_planes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation along all axes but ``axis``."""
    sums: list[NDArray[np.float64]] = []
    for power in (1, 2):
        total: Any = 0.0
        for _, whole in _chunks(rows):
            values = whole[:, :n_planes]
            others = tuple(i for i in range(values.ndim) if i != axis + 1)
            centred = values if power == 1 else (values - sums[0]) ** 2
            total = total + centred.sum(axis=others, keepdims=True)
            size = values[0].size // values.shape[axis + 1]
        sums.append(total[0] / (len(rows) * size))
    deviation = np.sqrt(sums[1])
    # A constant must not divide by zero. Small numbers do change.
    changes = deviation > _CONSTANT * np.abs(sums[0])
    return sums[0], np.where(changes, deviation, 1.0)
