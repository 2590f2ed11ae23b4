"""How fast the predictor is, beside scikit-learn's.

``python -m experiments.benchmarks.prediction.predictor_speed``

Fits made-up labels of a space's members and predicts a large batch, features included, on one
thread. Seconds are of the CPU, which other jobs on the machine disturb less than the clock; both
are printed. Beside it, in the same run, scikit-learn's Gaussian process and gradient boosting on
the same features, which leaves computing these to us.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from predictors.energy.features import counted
from predictors.energy.models import CostPredictor, Observation
from search_spaces.cost.counting import count_batch
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import from_vector
from search_spaces.space.presets import get_space
from search_spaces.space.sampling import sample_positions
from search_spaces.workload import Workload

WORKLOADS = {
    "digits-tiny": Workload("digits", "image_classification", (1, 8, 8), 10, 128),
    "encoder-base": Workload("text", "text_classification", (128,), 2, 32, vocab_size=8000),
    "decoder-base": Workload("lm", "language_modelling", (256,), 8000, 8, vocab_size=8000),
}

_PIECE = 4096


def timed(call: Callable[[], object]) -> tuple[float, float, object]:
    """CPU seconds, seconds by the clock, and what ``call`` gave."""
    cpu, clock = time.process_time(), time.perf_counter()
    found = call()
    return time.process_time() - cpu, time.perf_counter() - clock, found


def made_up(batch: ArchitectureBatch, workload: Workload, seed: int) -> np.ndarray:
    """Joules of a made-up device: products, bytes and launches, and 3% of noise."""
    counts = count_batch(batch, workload)
    energy_j = 1e-10 * counts.total("macs") + 1e-9 * counts.total("activation_bytes")
    energy_j = energy_j + 1e-5 * counts.total("n_kernels") / workload.batch_size
    return energy_j * np.exp(np.random.default_rng(seed).normal(0, 0.03, len(batch)))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.prediction.predictor_speed", description=__doc__
    )
    parser.add_argument("--rows", type=int, default=1000, help="training rows (default: 1000)")
    parser.add_argument("--predict", type=int, default=200_000, help="rows to predict")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    if arguments.rows < 10 or arguments.predict < 1:
        print("predictor_speed: --rows must be >= 10 and --predict >= 1", file=sys.stderr)
        return 2
    n, found = arguments.predict, []
    sheet = Sheet(parser, arguments, "predictor-speed")
    for name, workload in WORKLOADS.items():
        space, rng = get_space(name), np.random.default_rng(0)
        train = sample_positions(space, arguments.rows, rng)
        members = [from_vector(row, space) for row in train]
        labels = made_up(ArchitectureBatch.of(members), workload, 1)
        rows = [
            Observation(a, workload, float(e), 0.03) for a, e in zip(members, labels, strict=True)
        ]
        positions = sample_positions(space, n, rng)

        def show(what: str, cpu_s: float, clock_s: float, many: int = 0, name: str = name) -> None:
            rate = many / cpu_s if many else None
            row = {"space": name, "what": what, "cpu_s": cpu_s, "clock_s": clock_s, "rate": rate}
            found.append(row)
            print(f"{name}: {what}", file=sys.stderr)

        cpu_s, clock_s, fitted = timed(lambda rows=rows: CostPredictor.fit(rows))
        show(f"ours: fit of {arguments.rows} rows", cpu_s, clock_s)
        assert isinstance(fitted, CostPredictor)

        def predict(
            fitted: CostPredictor = fitted,
            positions: np.ndarray = positions,
            space: SearchSpace = space,
            workload: Workload = workload,
        ) -> object:
            # In pieces that a cache holds, as a search over a large space would.
            return [
                fitted.predict(ArchitectureBatch.from_positions(piece, space), workload)
                for piece in np.array_split(positions, max(1, len(positions) // _PIECE))
            ]

        predict()
        show("ours: features and prediction", *timed(predict)[:2], many=n)
        _, features = counted(ArchitectureBatch.of(members), workload)
        _, unseen = counted(ArchitectureBatch.from_positions(positions, space), workload)
        scale = np.where(features.std(axis=0) > 0, features.std(axis=0), 1.0)
        features, unseen = features / scale, unseen / scale
        for what, model in (
            ("boosting", GradientBoostingRegressor(n_estimators=200, random_state=0)),
            (
                "process",
                GaussianProcessRegressor(
                    ConstantKernel() * RBF(5.0) + WhiteKernel(), normalize_y=True, random_state=0
                ),
            ),
        ):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cpu_s, clock_s, _ = timed(
                    lambda m=model, x=features, y=labels: m.fit(x, np.log(y))
                )
            show(f"scikit-learn {what}: fit", cpu_s, clock_s)
            few = min(n, 20_000)
            cpu_s, clock_s, _ = timed(lambda m=model, x=unseen[:few]: m.predict(x))
            show(f"scikit-learn {what}: {few} predicted", cpu_s, clock_s, many=few)
    columns = {
        "space": "{space}",
        "what": "{what}",
        "CPU s": "{cpu_s:.2f}",
        "clock s": "{clock_s:.2f}",
        "architectures a CPU s": "{rate:,.0f}",
    }
    sheet.show(Table.of("speed", columns, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
