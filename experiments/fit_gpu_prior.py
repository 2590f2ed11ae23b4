"""Fit the shape of joules on GPUs that the package ships.

``python -m experiments.fit_gpu_prior readings.csv.gz``

Reads NVML readings of HW-GPT-Bench (``tables.nvml_gpt``), leaves out rows whose watts cannot be
trusted and GPUs with fewer than a hundred others, and writes the shape, without any level.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.benchmarks.tables.nvml_gpt import NvmlRows, read_nvml_gpt
from predictors.energy.features import ROOFLINES, counted, terms
from predictors.energy.shape import SHIPPED, Shape, save_shape
from predictors.energy.shape_fit import ShapeRows, fit_shape
from search_spaces.space.batch import ArchitectureBatch

SOURCE = "NVML readings of HW-GPT-Bench"
_LEAST_ROWS = 100


def shape_rows(rows: NvmlRows) -> ShapeRows:
    """The rows of a GPU with their terms and features."""
    batch = ArchitectureBatch.of(rows.architectures)
    counts, features = counted(batch, rows.workload, "cuda")
    return ShapeRows(
        rows.gpu,
        tuple(terms(counts, rows.workload, roofline) for roofline in ROOFLINES),
        features,
        rows.energy_j,
        np.unique(rows.session, return_inverse=True)[1],
    )


def read_shape_rows(path: Path) -> tuple[dict[str, NvmlRows], dict[str, ShapeRows]]:
    """Trusted rows by GPU, of those GPUs that have enough of them.

    Raises:
        ValueError: the file is not of that form.
    """
    trusted = {gpu: rows.trusted for gpu, rows in read_nvml_gpt(path).items()}
    enough = {gpu: rows for gpu, rows in trusted.items() if len(rows) >= _LEAST_ROWS}
    return enough, {gpu: shape_rows(rows) for gpu, rows in enough.items()}


def shape_of(rows: Mapping[str, ShapeRows], *, without: str | None = None) -> Shape:
    """The shape of all GPUs but one.

    Raises:
        ValueError: too few GPUs are left.
    """
    return fit_shape([part for gpu, part in rows.items() if gpu != without], SOURCE)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the shape."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.fit_gpu_prior", description=__doc__
    )
    parser.add_argument("readings", type=Path, help="readings.csv.gz of nvml_gpt")
    parser.add_argument("--to", type=Path, default=SHIPPED, help="JSON (default: the package's)")
    arguments = parser.parse_args(argv)
    try:
        _, rows = read_shape_rows(arguments.readings)
        shape = shape_of(rows)
        save_shape(shape, arguments.to)
    except (ValueError, OSError) as error:
        print(f"fit_gpu_prior: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    print(f"{arguments.to}: {shape.describe()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
