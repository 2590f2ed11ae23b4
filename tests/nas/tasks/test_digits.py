"""The digits: split once, and read without scikit-learn afterwards."""

import os
import subprocess
import sys

import numpy as np
from sklearn.datasets import load_digits

from nas.tasks.registry import get_task

READ = """
import sys
from nas.tasks.registry import get_task
split = get_task("digits").split("train")
print(split.inputs.shape, split.inputs.dtype, split.inputs.sum(), "sklearn" in sys.modules)
"""


def test_splits_are_the_images_of_scikit_learn():
    task = get_task("digits")
    images, labels = load_digits(return_X_y=True)
    splits = [task.split(name) for name in ("train", "validation", "test")]
    assert [len(split) for split in splits] == [1077, 360, 360]
    pixels = np.concatenate([split.inputs.reshape(len(split), -1) for split in splits])
    found = np.concatenate([split.targets for split in splits])
    # Standardised in order: the images, sorted, are the same up to shift and scale.
    scale = images.std() / pixels.std()
    raw = np.rint((pixels - pixels.mean()) * scale + images.mean()).astype(int)
    rows = sorted(map(tuple, np.column_stack([raw, found])))
    assert rows == sorted(map(tuple, np.column_stack([images.astype(int), labels])))


def test_later_processes_read_the_same_splits_without_scikit_learn(tmp_path):
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", READ],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    )
    assert first[:-1] == second[:-1] and (first[-1], second[-1]) == ("True", "False")
