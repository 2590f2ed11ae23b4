"""How well the shape of other GPUs predicts one that is left out, from a few of its rows.

``python -m experiments.benchmarks.prediction.gpu_prior readings.csv.gz``

For each GPU the shape is fitted to all others. Our predictor then gets 10 or 20 rows of the GPU,
random ones or those of its own design, and is judged on its other rows: rows of one measuring
session, as a search has them, or of all sessions, whose levels may differ. Beside it are the usual
models on logarithms of sizes, with our counts and without, with the same random rows; a predictor
without the prior; and what all other rows of the session determine, as a bound.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.benchmarks.prediction.predictor_tables import (
    baseline_predictions,
    errors,
)
from experiments.benchmarks.tables.nvml_gpt import NvmlRows
from experiments.benchmarks.tables.table import Table
from experiments.fit_gpu_prior import read_shape_rows, shape_of
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table as Shown
from predictors.energy.active import first_rows
from predictors.energy.costs import FLOOR_SD, Terms
from predictors.energy.features import FEATURES, ROOFLINES, stated_costs
from predictors.energy.regressor import CostRegressor, TrainingRows
from predictors.energy.shape import LINEAR, Shape
from predictors.energy.shape_fit import ShapeRows

_ROWS = (10, 20)
# The GPUs that are left out one by one; others only lend their rows.
_TESTED = ("p100", "v100", "a6000", "rtx2080")
_LEAST_OF_SESSION = 60
# A bound: as many rows of the tested session determine the model.
_SHARE_FOR_BOUND = 0.8
# Sizes that are features without our counts.
_RAW = ("log_d_model", "log_depth", "mean_log_d_ff", "bias_share")


@dataclass(frozen=True)
class Device:
    """A GPU that is left out: its rows, and terms and basis by the shape of the others."""

    gpu: str
    rows: NvmlRows
    own: ShapeRows
    shape: Shape
    terms: Terms

    @classmethod
    def of(cls, gpu: str, rows: NvmlRows, own: ShapeRows, shape: Shape) -> Device:
        """Apply the others' shape to the rows of a GPU."""
        choice = ROOFLINES.index(shape.roofline)
        return cls(gpu, rows, own, shape, shape.terms(own.terms[choice], own.features))

    def training(self, rows: NDArray[np.int64], *, has_prior: bool = True) -> TrainingRows:
        """Some rows as our predictor takes them, with or without the shape among the priors."""
        candidates = tuple(Terms(values[rows], stated_costs()) for values in self.own.terms)
        groups = self.own.session[rows]
        if has_prior:
            is_alone = self.shape.is_enough(self.own.features[rows])
            candidates = (self.terms.rows(rows), *(() if is_alone else candidates))
        return TrainingRows(
            candidates,
            self.own.features[rows],
            self.own.target[rows],
            np.maximum(self.rows.relative_sd[rows], FLOOR_SD),
            groups if len(np.unique(groups)) > 1 else np.arange(len(rows)),
        )

    def table(self) -> Table:
        """The rows as the usual models take them: logarithms of sizes, and of our counts."""
        features = self.own.features
        counts = [FEATURES.index(name) for name in LINEAR if name not in _RAW]
        return Table(
            name=self.gpu,
            raw=features[:, [FEATURES.index(name) for name in _RAW]],
            counts=features[:, counts],
            terms=self.terms.values,
            term_groups={},
            flops=np.exp(features[:, FEATURES.index("log_macs")]),
            target=self.own.target,
            relative_sd=self.rows.relative_sd,
            groups=self.own.session,
        )


def _ours(
    device: Device, train: NDArray[np.int64], test: NDArray[np.int64], *, has_prior: bool = True
) -> dict[str, float]:
    """Figures of our predictor, fitted to some rows and judged on others."""
    fitted = CostRegressor.fit(device.training(train, has_prior=has_prior))
    terms = [Terms(values) for values in device.own.terms]
    if has_prior:
        terms = [device.terms, *terms]
    predicted = fitted.predict(terms[fitted.choice].rows(test), device.own.features[test])
    truth = device.own.target[test]
    tau, mape = errors(predicted.mean, truth)
    inside = float(np.mean((predicted.low <= truth) & (truth <= predicted.high)))
    width = float(np.median(np.log(predicted.high / predicted.low))) / 2
    return {"tau": tau, "mape": mape, "coverage": inside, "half_width": width}


def run(device: Device, seeds: int, *, in_session: bool, baselines: bool) -> list[dict[str, Any]]:
    """One line for each number of rows and way, means over seeds."""
    found: dict[tuple[int, str], list[dict[str, float]]] = {}
    table, sessions = device.table(), np.unique(device.own.session, return_counts=True)
    large = sessions[0][sessions[1] >= _LEAST_OF_SESSION]
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        pool = np.arange(len(device.rows))
        if in_session:
            pool = np.flatnonzero(device.own.session == rng.choice(large))
        pool = rng.permutation(pool)
        n_bound = int(_SHARE_FOR_BOUND * len(pool))
        bound = _ours(device, pool[:n_bound], pool[n_bound:])
        for n in _ROWS:
            train, test = pool[:n], pool[n:]
            chosen = _design(device, pool, n)
            scores = {
                "ours, random rows": _ours(device, train, test),
                "ours, own design": _ours(device, chosen, np.setdiff1d(pool, chosen)),
                "ours without the prior": _ours(device, train, test, has_prior=False),
                "bound: most rows": bound,
            }
            if baselines:
                for name, predicted in baseline_predictions(table, train, test).items():
                    tau, mape = errors(predicted, table.target[test])
                    scores[name] = {"tau": tau, "mape": mape}
            for name, score in scores.items():
                found.setdefault((n, name), []).append(score)
    where = "one session" if in_session else "all sessions"
    return [
        {"gpu": device.gpu, "where": where, "n": n, "way": name, **_means(scores)}
        for (n, name), scores in found.items()
    ]


def _design(device: Device, pool: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    assert device.terms.basis is not None
    choice = first_rows(device.own.features[pool], n, basis=device.terms.basis[pool])
    return pool[list(choice.rows)]


def _means(scores: Sequence[dict[str, float]]) -> dict[str, float | None]:
    names = ("tau", "mape", "coverage", "half_width")
    return {
        name: float(np.mean([s[name] for s in scores])) if name in scores[0] else None
        for name in names
    }


def shown(rows: Sequence[dict[str, Any]]) -> list[Shown]:
    """Ours for each GPU beside the best usual model, means over GPUs, and every method."""
    ours = ("ours, random rows", "ours, own design", "ours without the prior", "bound: most rows")
    lines = []
    for gpu in dict.fromkeys(row["gpu"] for row in rows):
        for where in dict.fromkeys(row["where"] for row in rows):
            for n in _ROWS:
                cell = [r for r in rows if (r["gpu"], r["where"], r["n"]) == (gpu, where, n)]
                lines += _lines(cell, ours)
    means = []
    for where in dict.fromkeys(row["where"] for row in rows):
        for n in _ROWS:
            for way in dict.fromkeys(row["way"] for row in rows):
                part = [r for r in rows if (r["where"], r["n"], r["way"]) == (where, n, way)]
                means.append({"where": where, "n": n, "way": way, **_present_means(part)})
    figures = {
        "tau": "{tau:.3f}",
        "MAPE %": "{mape:.2f}",
        "90% interval holds": "{coverage:.1%}",
        "half-width": "{half_width:.1%}",
    }
    where = {"rows of": "{where}", "own rows": "{n}", "way": "{way}"}
    return [
        Shown.of("gpus", {"left out": "{gpu}", **where, **figures}, lines),
        Shown.of("means", {**where, **figures}, means),
    ]


def _lines(cell: Sequence[dict[str, Any]], ours: Sequence[str]) -> list[dict[str, Any]]:
    """Our lines of one GPU, and the best other in either figure."""
    others = [row for row in cell if row["way"] not in ours]
    lines = [row for row in cell if row["way"] in ours]
    if others:
        by_tau = max(others, key=lambda row: row["tau"])
        by_mape = min(others, key=lambda row: row["mape"])
        name = f"best other: {by_tau['way']}, {by_mape['way']}"
        lines.append({**by_tau, "way": name, "mape": by_mape["mape"]})
    return lines


def _present_means(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    return _means([{k: v for k, v in row.items() if v is not None} for row in rows])


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.prediction.gpu_prior", description=__doc__
    )
    parser.add_argument("readings", type=Path, help="readings.csv.gz of nvml_gpt")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--ours-only", action="store_true", help="leave the usual models out")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    sheet = Sheet(parser, arguments, "gpu-prior")
    try:
        if arguments.seeds < 1:
            raise ValueError(f"--seeds must be >= 1, got {arguments.seeds}")
        measured, rows = read_shape_rows(arguments.readings)
        found: list[dict[str, Any]] = []
        for gpu in [gpu for gpu in _TESTED if gpu in rows]:
            print(f"{gpu} ...", file=sys.stderr)
            shape = shape_of(rows, without=gpu)
            device = Device.of(gpu, measured[gpu], rows[gpu], shape)
            for in_session in (True, False):
                found += run(
                    device,
                    arguments.seeds,
                    in_session=in_session,
                    baselines=not arguments.ours_only,
                )
    except (ValueError, OSError) as error:
        print(f"gpu_prior: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    if not found:
        gpus = ", ".join(_TESTED)
        print(f"gpu_prior: readings must be of one or more of {gpus}", file=sys.stderr)
        return 2
    sheet.show(*shown(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
