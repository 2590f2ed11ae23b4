"""Active against random choice of what to measure.

``python -m experiments.benchmarks.prediction.active_measuring --made-up --hwgpt FOLDER``
``  --hat A.csv --edgetran C.json``

Each seed holds out up to 600 rows (30% at most); both ways choose from the others, by labels that
they have paid for. Errors are on the held-out rows: over all, and over the fifth of them nearest
to the true front of size against the target (size is parameters where the table has them, else
FLOPs). "Random needs" is how many random rows bring the median error as low.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table as Shown
from predictors.energy.active import (
    FIRST_ROWS,
    Candidates,
    above_front,
    first_rows,
    next_rows,
)
from predictors.energy.features import ROOFLINES, counted, stated_costs, terms
from predictors.energy.regressor import CostRegressor, Terms, TrainingRows
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.presets import PRESETS
from search_spaces.space.sampling import sample
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from experiments.benchmarks.tables.table import Table

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

SIZES = (FIRST_ROWS, 15, 20, 40, 80)
RANDOM_SIZES = (*SIZES, 160)
MEASURES = ("MAPE", "tau", "MAPE near the front", "tau near the front")
# A batch of choices before the predictor is fitted anew.
_BATCH = 10
_MOST_TEST, _TEST_SHARE, _NEAR_SHARE = 600, 0.3, 0.2
_MADE_UP_ROWS, _LABEL_SD = 2000, 0.02


@dataclass(frozen=True)
class Labelled:
    """``label`` is what measuring gives, ``truth`` what predictions are judged by."""

    name: str
    terms: tuple[Terms, ...]
    features: Array
    label: Array
    truth: Array
    relative_sd: Array
    size: Array

    def fit(self, rows: Ints, seed: int) -> CostRegressor:
        """The predictor fitted to the labels of ``rows``."""
        chosen = tuple(Terms(t.values[rows], t.prior, t.pull) for t in self.terms)
        return CostRegressor.fit(
            TrainingRows(
                chosen,
                self.features[rows],
                self.label[rows],
                self.relative_sd[rows],
                np.arange(len(rows)),
            ),
            seed=seed,
        )


def of_table(table: Table) -> Labelled:
    """A table that others measured: its labels are all the truth there is."""
    return Labelled(
        table.name,
        (Terms(table.terms),),
        table.features,
        table.target,
        table.target,
        table.relative_sd,
        table.flops,
    )


def made_up(seed: int = 0) -> Labelled:
    """Our own space on a made-up device; labels have 2% noise, the truth has none.

    Each block takes the longest of its products (by precision), its bytes and a launch, times a
    power that rises with its load; widths that are no multiple of 32 waste a part of the device.
    """
    rng = np.random.default_rng(seed)
    space = PRESETS["digits-tiny"].restrict(sparsities=("dense",))
    workload = Workload("digits", "image_classification", (1, 8, 8), 10, 128)
    found = {a.hash: a for a in (sample(space, rng) for _ in range(_MADE_UP_ROWS))}
    batch = ArchitectureBatch.of(list(found.values()))
    counts, features = counted(batch, workload)
    speed = np.array([1.0, 1.9, 2.6, 1.0])
    energy = np.zeros(len(batch))
    for part in (counts.attention, counts.ffn, counts.outer):
        compute_s = part.macs * workload.batch_size / (4e10 * speed[part.precision])
        memory_s = (part.activation_bytes * workload.batch_size + part.weight_bytes) / 3e10
        launch_s = part.n_kernels * 4e-6
        taken_s = np.maximum(np.maximum(compute_s, memory_s), launch_s)
        busy = np.divide(compute_s, taken_s, out=np.zeros_like(taken_s), where=taken_s > 0)
        joules = taken_s * (8 + 6 * busy)
        energy += joules.sum(axis=1) if joules.ndim == 2 else joules
    energy *= np.where(batch.d_model % 32 == 0, 1.0, 1.12) / workload.batch_size
    noise = np.exp(rng.normal(0, _LABEL_SD, len(energy)))
    return Labelled(
        "made-up device",
        tuple(Terms(terms(counts, workload, r), stated_costs()) for r in ROOFLINES),
        features,
        energy * noise,
        energy,
        np.full(len(energy), _LABEL_SD),
        counts.total("params"),
    )


def scores(data: Labelled, seed: int, *, active: bool) -> dict[int, tuple[float, ...]]:
    """``MEASURES`` by number of measured rows."""
    order = np.random.default_rng(seed).permutation(len(data.truth))
    n_test = min(_MOST_TEST, int(_TEST_SHARE * len(order)))
    test, pool = order[:n_test], order[n_test:]
    above = above_front(data.size, data.truth)[test]
    near = above <= np.quantile(above, _NEAR_SHARE)
    found: dict[int, tuple[float, ...]] = {}
    ways = _active(data, pool, seed) if active else _random(data, pool, seed)
    for n, predictor in ways:
        values = data.terms[predictor.choice].values[test]
        mean = predictor.predict(values, data.features[test]).mean
        truth = data.truth[test]
        error = np.abs(mean / truth - 1)
        found[n] = (
            float(error.mean()),
            float(kendalltau(mean, truth).statistic),
            float(error[near].mean()),
            float(kendalltau(mean[near], truth[near]).statistic),
        )
    return found


def _random(data: Labelled, pool: Ints, seed: int) -> Iterator[tuple[int, CostRegressor]]:
    for n in RANDOM_SIZES:
        if n <= len(pool):
            # The pool is in random order already.
            yield n, data.fit(pool[:n], seed)


def _active(data: Labelled, pool: Ints, seed: int) -> Iterator[tuple[int, CostRegressor]]:
    chosen = list(first_rows(data.features[pool], FIRST_ROWS).rows)
    predictor = data.fit(pool[chosen], seed)
    for n in SIZES:
        while len(chosen) < n:
            values = data.terms[predictor.choice].values[pool]
            candidates = Candidates(values, data.features[pool], data.size[pool])
            predicted = predictor.predict(values, data.features[pool])
            asked = min(_BATCH, n - len(chosen))
            chosen += next_rows(candidates, predicted, asked, measured=chosen).rows
            predictor = data.fit(pool[chosen], seed)
        yield n, predictor


@dataclass(frozen=True)
class Line:
    """One measure at ``n`` active rows: quartiles of both ways, and what random needs.

    ``needed`` is ``None`` where no number of random rows that was tried reaches it.
    """

    measure: str
    n: int
    active: tuple[float, float, float]
    random: tuple[float, float, float]
    needed: float | None


def compare(data: Labelled, seeds: int) -> list[Line]:
    """Every measure at every size."""
    active = [scores(data, seed, active=True) for seed in range(seeds)]
    random = [scores(data, seed, active=False) for seed in range(seeds)]
    lines = []
    for index, measure in enumerate(MEASURES):
        sign = -1 if measure.startswith("tau") else 1

        def quartiles(
            runs: Sequence[dict[int, tuple[float, ...]]], n: int, index: int = index
        ) -> tuple[float, float, float]:
            low, middle, high = np.quantile([run[n][index] for run in runs], (0.25, 0.5, 0.75))
            return float(low), float(middle), float(high)

        tried = list(random[0])
        medians = [sign * quartiles(random, n)[1] for n in tried]
        for n in active[0]:
            found = quartiles(active, n)
            needed = rows_needed(tried, medians, sign * found[1])
            lines.append(Line(measure, n, found, quartiles(random, n), needed))
    return lines


def rows_needed(tried: Sequence[int], losses: Sequence[float], goal: float) -> float | None:
    """Rows at which the loss, interpolated in log rows, first is ``goal`` or less."""
    for i, loss in enumerate(losses):
        if loss <= goal:
            if i == 0:
                return float(tried[0])
            share = (losses[i - 1] - goal) / (losses[i - 1] - loss)
            return float(np.exp(np.interp(share, (0, 1), np.log(tried[i - 1 : i + 1]))))
    return None


def rows_of(name: str, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Quartiles in percent, tau times 100."""
    rows = []
    for line in lines:
        row: dict[str, Any] = {"table": name, "measure": line.measure, "n": line.n}
        for way in ("active", "random"):
            for part, value in zip(("low", "median", "high"), getattr(line, way), strict=True):
                row[f"{way}_{part}"] = 100 * value
        over = f"over {max(RANDOM_SIZES)}"
        row["needed"] = over if line.needed is None else f"{line.needed:.0f}"
        row["is_half"] = line.needed is None or line.needed >= 2 * line.n
        rows.append(row)
    return rows


def table_of(rows: Sequence[dict[str, Any]], seeds: int) -> Shown:
    """All sources below each other."""
    quartiles = "{WAY_median:.2f} [{WAY_low:.2f}, {WAY_high:.2f}]"
    columns = {
        "table": "{table}",
        "measure": "{measure}",
        "rows": "{n}",
        "active": quartiles.replace("WAY", "active"),
        "random": quartiles.replace("WAY", "random"),
        "random needs": "{needed}",
        "half?": "{is_half}",
    }
    note = f"{seeds} seeds: median [quartiles]; MAPE in %, tau x 100"
    return Shown.of("rows", columns, rows, note)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of all sources that are named."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.prediction.active_measuring", description=__doc__
    )
    parser.add_argument("--made-up", action="store_true", help="our space, a made-up device")
    parser.add_argument("--hwgpt", type=Path, help="folder of HW-GPT-Bench with oracle.py")
    parser.add_argument("--hat", type=Path, action="append", default=[], help="a CSV of HAT")
    parser.add_argument("--edgetran", type=Path, help="a JSON of EdgeTran")
    parser.add_argument("--seeds", type=int, default=10)
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "active-measuring")
    if arguments.seeds < 1:
        print(f"active_measuring: seeds must be >= 1, got {arguments.seeds}", file=sys.stderr)
        return 2
    try:
        tables = list(_tables(arguments))
    except (OSError, ValueError) as error:
        print(f"active_measuring: {error}", file=sys.stderr)
        return 2
    if not tables:
        print("active_measuring: name a table, or --made-up", file=sys.stderr)
        return 2
    rows = []
    for data in tables:
        rows += rows_of(data.name, compare(data, arguments.seeds))
        print(f"{data.name}: done", file=sys.stderr)
    sheet.show(table_of(rows, arguments.seeds))
    return 0


def _tables(arguments: argparse.Namespace) -> Iterator[Labelled]:
    if arguments.made_up:
        yield made_up()
    if arguments.hwgpt is not None:
        from experiments.benchmarks.tables.hwgpt import read_hwgpt

        yield of_table(read_hwgpt(arguments.hwgpt))
    for path in arguments.hat:
        from experiments.benchmarks.tables.hat import read_hat

        yield of_table(read_hat(path))
    if arguments.edgetran is not None:
        from experiments.benchmarks.tables.edgetran import read_edgetran

        yield of_table(read_edgetran(arguments.edgetran))


if __name__ == "__main__":
    sys.exit(main())
