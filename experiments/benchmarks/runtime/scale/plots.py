"""What a search's driver costs against its trials, on logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from experiments.benchmarks.runtime.scale.growth import SERIES, exponent
from experiments.benchmarks.runtime.scale.simulate import Point


def draw(points: Sequence[Point], path: Path, title: str) -> None:
    """One panel for each figure, with its growth over the last decade."""
    figure, panels = plt.subplots(2, 3, figsize=(11, 6), layout="constrained")
    trials = [point.trials for point in points]
    for panel, (label, value) in zip(panels.flat, SERIES.items(), strict=True):
        values = [value(point) for point in points]
        panel.loglog(trials, values, marker="o", color="#1f5fa8")
        panel.set_title(f"{label}: growth {exponent(points, value):.2f}", fontsize=10)
        panel.set_xlabel("complete trials")
        panel.grid(alpha=0.3, which="both")
    figure.suptitle(title)
    figure.savefig(path, dpi=130)
    plt.close(figure)
