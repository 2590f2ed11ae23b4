"""Our predictor beside the usual ones where a table has a few numbers for each model.

``python -m experiments.benchmarks.prediction.model_level readings.csv.gz``

The table of each GPU is made of NVML readings (``tables.nvml_gpt``): batch size, length, FLOPs and
bytes of a forward, and its joules; nothing of the layers. Rows are random, or a whole family (a
width) is held out and rows of the other families are training. A Gaussian process on logarithms
is among the usual models.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.benchmarks.prediction.predictor_tables import (
    Cell,
    mean_scores,
    run_cell,
    scores_of,
    shown,
)
from experiments.benchmarks.tables.nvml_gpt import NvmlRows
from experiments.benchmarks.tables.plain import plain_table
from experiments.benchmarks.tables.table import Table
from experiments.fit_gpu_prior import read_shape_rows
from experiments.results.sheet import Sheet, add_keep_option
from predictors.energy.regressor import LEAST_ROWS
from search_spaces.cost.counting import count_batch
from search_spaces.space.batch import ArchitectureBatch

# Fewer families, or smaller ones, say nothing of one that is not among them.
_LEAST_FAMILIES, _LEAST_OF_FAMILY = 3, 50


def model_table(rows: NvmlRows) -> Table:
    """The model-level table of a GPU; a family is a width."""
    batch = ArchitectureBatch.of(rows.architectures)
    counts, size = count_batch(batch, rows.workload, "cuda"), rows.workload.batch_size
    data = pd.DataFrame(
        {
            "batch": size,
            "length": rows.workload.input_shape[0],
            "flops": 2 * size * counts.total("macs"),
            "bytes": size * counts.total("activation_bytes") + counts.total("read_bytes"),
            "energy_j": size * rows.energy_j,
            "family": batch.d_model,
        }
    )
    features = data[["batch", "length", "flops", "bytes"]]
    return plain_table(data, features, Path(rows.gpu), "energy_j", flops="flops", group="family")


def unseen_families(table: Table, n: int, seeds: int, *, baselines: bool) -> Cell | None:
    """Scores on families of which no row is training, or ``None`` where there are too few."""
    families, sizes = np.unique(table.groups, return_counts=True)
    families = families[sizes >= _LEAST_OF_FAMILY]
    if len(families) < _LEAST_FAMILIES:
        return None
    found = []
    for seed in range(seeds):
        for family in families:
            others = np.flatnonzero(table.groups != family)
            train = np.random.default_rng(seed).permutation(others)[:n]
            test = np.flatnonzero(table.groups == family)
            found.append(scores_of(table, train, test, seed, baselines=baselines))
    return Cell(f"{table.name}, unseen family", n, seeds, mean_scores(found))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.prediction.model_level", description=__doc__
    )
    parser.add_argument("readings", type=Path, help="readings.csv.gz of nvml_gpt")
    parser.add_argument("--rows", type=int, nargs="+", default=[50])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ours-only", action="store_true", help="leave the usual models out")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "model-level")
    cells: list[Cell] = []
    try:
        if min(arguments.rows) < LEAST_ROWS:
            raise ValueError(f"--rows must be >= {LEAST_ROWS}, got {min(arguments.rows)}")
        if arguments.seeds < 1:
            raise ValueError(f"--seeds must be >= 1, got {arguments.seeds}")
        for gpu, rows in read_shape_rows(arguments.readings)[0].items():
            print(f"{gpu} ...", file=sys.stderr)
            table, baselines = model_table(rows), not arguments.ours_only
            for n in arguments.rows:
                cells.append(run_cell(table, n, arguments.seeds, baselines=baselines))
                unseen = unseen_families(table, n, arguments.seeds, baselines=baselines)
                cells += [] if unseen is None else [unseen]
    except (ValueError, OSError) as error:
        print(f"model_level: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    sheet.show(*shown(cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
