"""Tasks whose data are part of a dependency, so that they need no download."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from nas.tasks.base import SPLITS, Split, SplitName, Task, check_split_name
from nas.tasks.base.artifact_files import LABELS, PREPROCESSING
from nas.tasks.base.cache import cached, key_of
from search_spaces.workload import Workload

# A different split would make qualities of different runs incomparable.
_SPLIT_SEED = 20260101
_HELD_OUT = 0.2


class Digits(Task):
    """Handwritten digits, 1,797 grey images of 8x8 pixels in 10 classes.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998, as shipped with scikit-learn. Split by class into 60% train, 20%
    validation and 20% test; pixels are standardised by the training split's mean and deviation.
    """

    name = "digits"

    def workload(self, batch_size: int) -> Workload:
        """8x8 grey images into 10 classes."""
        return Workload(self.name, "image_classification", (1, 8, 8), 10, batch_size)

    def split(self, name: SplitName) -> Split:
        """One split; see ``Task.split``."""
        check_split_name(name)
        return _digits_splits()[0][name]

    def artifact_files(self) -> dict[str, str]:
        """The labels, and how images become inputs."""
        mean, deviation = _digits_splits()[1]
        preprocessing: dict[str, object] = {"mean": [mean], "deviation": [deviation], "axis": 0}
        preprocessing["of"] = {
            "what": "grey images",
            "size": [8, 8],
            "values": "0 to 16, ink is high",
        }
        labels = {"labels": [str(digit) for digit in range(10)]}
        return {LABELS: json.dumps(labels), PREPROCESSING: json.dumps(preprocessing, indent=2)}


@lru_cache(maxsize=1)
def _digits_splits() -> tuple[dict[SplitName, Split], tuple[float, float]]:
    """The splits, and the mean and deviation of the training pixels.

    They are cached on disk: importing scikit-learn takes two seconds in each process of a search.
    """
    facts = {"task": "digits", "seed": _SPLIT_SEED, "scikit-learn": version("scikit-learn")}
    kept = cached(key_of(facts, (), by_content=False), _save_splits)
    splits: dict[SplitName, Split] = {
        name: Split(kept.array(f"{name}-pixels"), kept.array(f"{name}-labels")) for name in SPLITS
    }
    return splits, (float(kept.about["mean"]), float(kept.about["deviation"]))


def _save_splits(folder: Path) -> dict[str, float]:
    """Write pixels and labels of each split into ``folder``."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    labels = labels.astype(np.int64)
    everything = np.arange(len(labels))
    rest, test = train_test_split(
        everything, test_size=_HELD_OUT, stratify=labels, random_state=_SPLIT_SEED
    )
    train, validation = train_test_split(
        rest,
        test_size=_HELD_OUT / (1 - _HELD_OUT),
        stratify=labels[rest],
        random_state=_SPLIT_SEED,
    )
    mean, deviation = images[train].mean(), images[train].std()
    pixels = ((images - mean) / deviation).astype(np.float32).reshape(-1, 1, 8, 8)
    for name, rows in zip(SPLITS, (train, validation, test), strict=True):
        np.save(folder / f"{name}-pixels.npy", pixels[rows])
        np.save(folder / f"{name}-labels.npy", labels[rows])
    return {"mean": float(mean), "deviation": float(deviation)}
