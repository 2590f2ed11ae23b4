"""What a trial's process pays for its task's data: kept arrays that are mapped, or files again.

``python -m experiments.benchmarks.runtime.kept_arrays --workers 4``

Some reviews as a CSV file and some pictures as PNG files are made up. Processes start at the same
time; each has the task's training split, reads all of it once, and waits until all have. *mapped*
finds arrays that were kept before, as every trial but a node's first does. *files* has an empty
cache of its own, so that it reads, checks and converts the files itself (and writes the arrays,
which is a small part of it) by libraries that only reading needs, and then holds the split in
memory of its own.

Seconds are by the clock, from before the task is named until its split was read; CPU seconds of
the process and its threads. Memory is what the process took on meanwhile, while all hold their
split: resident counts shared pages for everyone who has them, proportional (Linux's PSS) divides
them by how many do, private are those of nobody else. The last column is the sum over processes of
what is proportional: what the node needs.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml

from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.tasks.registry import get_task

Way = Literal["mapped", "files"]
WAYS: tuple[Way, ...] = get_args(Way)
_ROLLUP = Path("/proc/self/smaps_rollup")
_WORDS, _LENGTH = 20_000, 20
_SIDE = 32
_WAIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Paid:
    """What one process paid; memory in megabytes."""

    wall_s: float
    cpu_s: float
    resident_mb: float
    proportional_mb: float
    private_mb: float


def write_texts(folder: Path, n: int) -> Path:
    """A task of ``n`` texts of some twenty words, frequent ones more often; its file."""
    rng = np.random.default_rng(0)
    numbers = (_WORDS * rng.random((n, _LENGTH)) ** 3).astype(int)
    with (folder / "texts.csv").open("w", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle)
        rows.writerow(["text", "label"])
        rows.writerows(
            [" ".join(f"word{i}" for i in row), ("neg", "pos")[int(row[0]) % 2]] for row in numbers
        )
    return _task(folder / "texts.yaml", name="texts", data="texts.csv", max_vocabulary=_WORDS)


def write_pictures(folder: Path, n: int) -> Path:
    """A task of ``n`` noisy pictures of 32 pixels a side in colours; its file."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for kind in range(2):
        (folder / "pictures" / str(kind)).mkdir(parents=True)
        for index in range(n // 2):
            noise = rng.integers(0, 128, (_SIDE, _SIDE, 3), dtype=np.uint8) + np.uint8(100 * kind)
            Image.fromarray(noise).save(folder / "pictures" / str(kind) / f"{index}.png")
    return _task(folder / "pictures.yaml", name="pictures", kind="images", data="pictures")


def _task(path: Path, **options: Any) -> Path:
    path.write_text(yaml.safe_dump(options), encoding="utf-8")
    return path


def _memory_mb() -> tuple[float, float, float]:
    """Resident, proportional and private megabytes of this process."""
    found: dict[str, int] = {}
    for line in _ROLLUP.read_text().splitlines()[1:]:
        name, value = line.split(":")
        found[name] = int(value.split()[0])
    private = found["Private_Clean"] + found["Private_Dirty"]
    return found["Rss"] / 1024, found["Pss"] / 1024, private / 1024


def _work(task: str, cache: str, own: bool, barrier: Any, results: Any) -> None:
    """One process: have the training split, read it, and say what that took."""
    os.environ["XDG_CACHE_HOME"] = cache
    barrier.wait(_WAIT_S)
    before, wall, cpu = _memory_mb(), time.perf_counter(), time.process_time()
    split = get_task(task).split("train")
    inputs = np.array(split.inputs) if own else split.inputs
    # All of it, so that every page is there.
    checksum = float(np.asarray(inputs).sum())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if own:
        del split
    barrier.wait(_WAIT_S)
    after = _memory_mb()
    barrier.wait(_WAIT_S)
    more = [b - a for a, b in zip(before, after, strict=True)]
    results.put((checksum, Paid(wall, cpu, *more)))


def paid(task: Path, way: Way, workers: int, folder: Path) -> list[Paid]:
    """What each of ``workers`` processes at a time pays for the training split of ``task``.

    Raises:
        RuntimeError: a process ended early, or processes do not agree on the data.
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers), context.Queue()
    caches = [folder / ("mapped" if way == "mapped" else f"files-{i}") for i in range(workers)]
    processes = [
        context.Process(
            target=_work, args=(str(task), str(cache), way == "files", barrier, results)
        )
        for cache in caches
    ]
    for process in processes:
        process.start()
    try:
        found = [results.get(timeout=_WAIT_S) for _ in processes]
    finally:
        for process in processes:
            process.join(_WAIT_S)
    if len({checksum for checksum, _ in found}) != 1:
        raise RuntimeError("processes must read the same data, and do not")
    return [one for _, one in found]


def row_of(task: str, way: Way, found: Sequence[Paid]) -> dict[str, Any]:
    """Medians over processes, and what the node needs for all."""
    medians = {
        name: statistics.median(asdict(one)[name] for one in found)
        for name in Paid.__dataclass_fields__
    }
    node = sum(one.proportional_mb for one in found)
    return {"task": task, "way": way, "workers": len(found), **medians, "node_mb": node}


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """A row for each task, way and number of processes."""
    columns = {
        "task": "{task}",
        "way": "{way}",
        "processes": "{workers}",
        "s": "{wall_s:.2f}",
        "CPU s": "{cpu_s:.2f}",
        "resident MB": "{resident_mb:.1f}",
        "proportional MB": "{proportional_mb:.1f}",
        "private MB": "{private_mb:.1f}",
        "node MB": "{node_mb:.1f}",
    }
    return Table.of("processes", columns, rows, "medians over processes; node: sum over them")


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.runtime.kept_arrays", description=__doc__
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4], help="processes")
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--pictures", type=int, default=10_000)
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    if min(*arguments.workers, arguments.texts, arguments.pictures) < 1:
        parser.error("workers, texts and pictures must be >= 1")
    if not _ROLLUP.is_file():
        parser.error(f"memory must be read from {_ROLLUP}, which is not there")
    sheet = Sheet(parser, arguments, "kept-arrays")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        makers = {"texts": write_texts, "pictures": write_pictures}
        for name, make in makers.items():
            task = make(root, getattr(arguments, name))
            # Kept once for all, as by the first trial of a node.
            paid(task, "mapped", 1, root)
            for workers in arguments.workers:
                for way in WAYS:
                    place = root / f"{name}-{way}-{workers}" if way == "files" else root
                    rows.append(row_of(name, way, paid(task, way, workers, place)))
    sheet.show(table_of(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
