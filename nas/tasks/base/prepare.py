"""From samples to standardised arrays of each split: read once, checked, kept on disk.

Shape legend: N samples; what follows is the shape of one.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.tasks.base import SPLITS, SplitName
from nas.tasks.base.labels import similar
from nas.tasks.base.problems import Problems
from nas.tasks.base.samples import Sample, Sources, classes_of
from nas.tasks.base.splits import repeats

_AT_A_TIME = 1024
# A deviation below this share of the mean is that of rounding.
_CONSTANT = 1e-7
_BYTES = np.dtype(np.float32).itemsize


@dataclass(frozen=True, slots=True)
class Pool:
    """Values of samples that were read, in a file of their own, with their labels and hashes.

    ``digests`` are of all values, ``inputs`` and ``targets`` of their planes apart.
    """

    samples: Sequence[Sample]
    values: NDArray[Any]
    digests: Sequence[bytes]
    inputs: Sequence[bytes]
    targets: Sequence[bytes]


def prepare(
    found: Mapping[SplitName, Sequence[Sample]],
    sources: Sources,
    folder: Path,
    problems: Problems,
    *,
    axis: int,
    what: str,
    n_target_planes: int = 0,
) -> dict[str, Any]:
    """Read ``found`` and write ``SPLIT.inputs.npy`` and ``SPLIT.targets.npy`` into ``folder``.

    Inputs are standardised by the mean and deviation of the training split at each index of
    ``axis`` (of a sample's own axes). ``what`` names samples in messages, in the plural. Targets
    are positions of labels among the classes; or, with ``n_target_planes``, the last of each
    sample's planes as they are, and labels say nothing.

    Returns:
        Plain data: classes, shape, mean and deviation at each index of ``axis``, numbers of
        samples and of classes' samples in each split, and how many samples of validation and test
        stand in the training split as well.

    Raises:
        DataError: anything of it is wrong; all that is wrong is in it.
    """
    shape: tuple[int, ...] | None = None
    pools: dict[SplitName, Pool] = {}
    for name, samples in found.items():
        pool = _read(
            samples, folder / f"{name}.values.npy", shape, problems, what, n_target_planes
        )
        if pool is not None:
            pools[name], shape = pool, pool.values.shape[1:]
    if shape is None and not problems:
        problems.add(f"the data must have {what}, and have none")
    problems.check()
    assert shape is not None
    if n_target_planes:
        shape = (shape[0] - n_target_planes, *shape[1:])
    chosen = _assigned(pools, sources, problems, what)
    labels = {
        split: [pools[name].samples[row].label for name, row in rows]
        for split, rows in chosen.items()
    }
    # Before anything can raise: contradictory labels are worth a word where splits fail, too.
    repeated = _repeats(pools, chosen, labels, has_planes=n_target_planes > 0)
    classes = [] if n_target_planes else classes_of(labels["train"], sources.training, problems)
    position = {label: index for index, label in enumerate(classes)}
    for split in SPLITS:
        for (name, row), label in zip(chosen[split], labels[split], strict=True):
            if label not in position and classes:
                allowed = ", ".join(map(str, classes[:20])) + (
                    ", ..." if len(classes) > 20 else ""
                )
                problems.add(
                    f"{pools[name].samples[row].where} must have a class of the training split "
                    f"({allowed}), got {label!r}{similar(label, classes)}"
                )
    problems.check()
    n_planes = shape[0]
    scale = _scale(pools, chosen["train"], axis, n_planes)
    for split in SPLITS:
        inputs_N = np.lib.format.open_memmap(
            folder / f"{split}.inputs.npy", "w+", np.float32, (len(chosen[split]), *shape)
        )
        planes: list[NDArray[np.int64]] = []
        for start, values in _chunks(pools, chosen[split]):
            inputs_N[start : start + len(values)] = (values[:, :n_planes] - scale[0]) / scale[1]
            planes.append(values[:, n_planes:].astype(np.int64))
        inputs_N.flush()
        if n_target_planes:
            targets = np.concatenate(planes)[:, 0 if n_target_planes == 1 else slice(None)]
        else:
            targets = np.array([position[label] for label in labels[split]], dtype=np.int64)
        np.save(folder / f"{split}.targets.npy", targets)
    for name in pools:
        (folder / f"{name}.values.npy").unlink()
    return {
        "classes": classes,
        "shape": list(shape),
        "mean": scale[0].flatten().tolist(),
        "deviation": scale[1].flatten().tolist(),
        "samples": {split: len(chosen[split]) for split in SPLITS},
        "of_classes": {
            split: [Counter(labels[split])[label] for label in classes] for split in SPLITS
        },
        "also_in_train": repeated["also_in_train"],
        "repeats": repeated,
    }


def _read(
    samples: Sequence[Sample],
    path: Path,
    shape: tuple[int, ...] | None,
    problems: Problems,
    what: str,
    n_target_planes: int,
) -> Pool | None:
    """Values of all samples; ``None`` where none can be read."""
    values_N: NDArray[Any] | None = None
    digests, inputs, targets = [], [], []
    with ThreadPoolExecutor(max(1, min(4, os.cpu_count() or 1))) as threads:
        for start in range(0, len(samples), _AT_A_TIME):
            part = samples[start : start + _AT_A_TIME]
            for row, (sample, read) in enumerate(
                zip(part, threads.map(_tried, part), strict=True), start
            ):
                if isinstance(read, str):
                    problems.add(f"{sample.where} {read}")
                    continue
                if shape is None:
                    shape = read.shape
                if read.shape != shape:
                    problems.add(
                        f"{sample.where} must have the shape {shape} of the other {what} (the "
                        f"task file may say to which size they are brought), got {read.shape}"
                    )
                    continue
                if values_N is None:
                    _check_room(len(samples), shape, path.parent, what)
                    values_N = np.lib.format.open_memmap(
                        path, "w+", read.dtype, (len(samples), *shape)
                    )
                values_N = _holding(values_N, read.dtype, path)
                values_N[row] = read
                n_inputs = len(read) - n_target_planes
                digests.append(_digest(read))
                inputs.append(_digest(read[:n_inputs]) if n_target_planes else digests[-1])
                targets.append(_digest(read[n_inputs:]))
    return None if values_N is None else Pool(samples, values_N, digests, inputs, targets)


def _digest(values: NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()


def _holding(values_N: NDArray[Any], dtype: np.dtype[Any], path: Path) -> NDArray[Any]:
    """``values_N``, in a type that holds its own values and those of ``dtype``.

    Pictures of 8 and of 16 bits may stand in one folder.
    """
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
    """Refuse what does not fit on the disk, values as they are read and standardised."""
    needed = 2 * n * math.prod(shape) * _BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{n} {what} of shape {shape} need {needed / 1e9:.1f} GB below {folder.parent}, "
            f"where {free / 1e9:.1f} GB are free: XDG_CACHE_HOME may name another place"
        )


def _assigned(
    pools: Mapping[SplitName, Pool], sources: Sources, problems: Problems, what: str
) -> dict[SplitName, list[tuple[SplitName, int]]]:
    """Which rows of which pools each split consists of."""
    chosen: dict[SplitName, list[tuple[SplitName, int]]] = {split: [] for split in SPLITS}
    for name, pool in pools.items():
        for row, (sample, digest) in enumerate(zip(pool.samples, pool.digests, strict=True)):
            chosen[sources.split_of(name, sample, digest)].append((name, row))
    every = [digest for pool in pools.values() for digest in pool.digests]
    if len(every) > 1 and len(set(every)) == 1:
        problems.add(
            f"the data must have {what} that differ, and all {len(every):,} are read as the same "
            f"values, {_range_of(pools)}"
        )
        # What else would be said of splits and classes follows from this alone.
        problems.check()
    for split, rows in chosen.items():
        if not rows:
            held_out = "" if split == "train" else f": raise {split}_share, or name its data"
            problems.add(f"the {split} split must have {what}, and has none{held_out}")
    return chosen


def _range_of(pools: Mapping[SplitName, Pool]) -> str:
    """The range of values that are all alike, for people."""
    first = next(iter(pools.values())).values[0]
    low, high = float(first.min()), float(first.max())
    return f"{low:g} everywhere" if low == high else f"from {low:g} to {high:g}"


def _chunks(
    pools: Mapping[SplitName, Pool], rows: Sequence[tuple[SplitName, int]]
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Values of ``rows``, some at a time, after the position of their first."""
    for start in range(0, len(rows), _AT_A_TIME):
        part = rows[start : start + _AT_A_TIME]
        yield start, np.stack([pools[n].values[row] for n, row in part]).astype(np.float64)


def _scale(
    pools: Mapping[SplitName, Pool],
    rows: Sequence[tuple[SplitName, int]],
    axis: int,
    n_planes: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation of the training split along all axes but ``axis``."""
    sums: list[NDArray[np.float64]] = []
    for power in (1, 2):
        total: Any = 0.0
        for _, whole in _chunks(pools, rows):
            values = whole[:, :n_planes]
            others = tuple(i for i in range(values.ndim) if i != axis + 1)
            centred = values if power == 1 else (values - sums[0]) ** 2
            total = total + centred.sum(axis=others, keepdims=True)
            size = values[0].size // values.shape[axis + 1]
        sums.append(total[0] / (len(rows) * size))
    deviation = np.sqrt(sums[1])
    # What never changes says nothing; it must not divide by zero. Small numbers do change.
    changes = deviation > _CONSTANT * np.abs(sums[0])
    return sums[0], np.where(changes, deviation, 1.0)


def _repeats(
    pools: Mapping[SplitName, Pool],
    chosen: Mapping[SplitName, Sequence[tuple[SplitName, int]]],
    labels: Mapping[SplitName, Sequence[Any]],
    *,
    has_planes: bool,
) -> dict[str, Any]:
    """Which samples stand in two places; see ``splits.repeats``."""

    def of_all(read: Callable[[Pool, int], Any]) -> dict[SplitName, list[Any]]:
        return {s: [read(pools[name], row) for name, row in rows] for s, rows in chosen.items()}

    targets = of_all(lambda pool, row: pool.targets[row]) if has_planes else labels
    return repeats(
        of_all(lambda pool, row: pool.inputs[row]),
        targets,
        of_all(lambda pool, row: pool.samples[row].where),
    )
