"""Some pictures of the validation split with their found and true boxes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.tasks.base import IGNORED, Split
from nas.tasks.vision.box_score import OVERLAPS, BoxScore, as_figures
from nas.tasks.vision.boxes import UNITS, found_boxes
from nas.tasks.vision.example_boxes import ExampleBox, ExamplePicture, Examples, ExampleScore
from nas.tasks.vision.pictures import resized

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

N_PICTURES = 4
# A picture of more pixels is shown smaller.
_MOST_SIDE = 96
# Boxes of lower scores are not shown.
SHOWN_SCORE = 0.3
_BATCH = 64


def examples_of(
    split: Split,
    call: Callable[[Tensor], Tensor],
    device: str,
    *,
    labels: Sequence[str],
    scale: tuple[Sequence[float], Sequence[float]],
    max_boxes: int,
) -> Examples:
    """Return the first pictures of ``split`` that have boxes, and each metric of the whole split.

    ``call`` gives a network's outputs. ``scale`` is the mean and the deviation by which channels
    were standardised.
    """
    import torch

    found = []
    with torch.inference_mode():
        for batch in torch.split(torch.from_numpy(split.inputs), _BATCH):
            found.append(found_boxes(call(batch.to(device)).float().cpu(), max_boxes))
    found_NF6 = np.concatenate(found)
    figures_NS = as_figures(found_NF6, split.targets)
    scores = []
    for metric in OVERLAPS:
        score = BoxScore(len(labels), max_boxes, metric)
        value, error = score.value(figures_NS), score.standard_error(figures_NS)
        scores.append(ExampleScore(metric, value, error))
    mean, deviation = (np.reshape(values, (-1, 1, 1)) for values in scale)
    pictures = []
    # Pictures with boxes first, in the split's order.
    is_empty_N = (split.targets[..., 0] == IGNORED).all(axis=1)
    for index in np.argsort(is_empty_N, kind="stable")[:N_PICTURES]:
        values_CHW, found_F6, true_M5 = split.inputs[index], found_NF6[index], split.targets[index]
        pixels = _as_pixels(values_CHW * deviation + mean)
        shown = found_F6[(found_F6[:, 0] != IGNORED) & (found_F6[:, 1] >= SHOWN_SCORE)]
        true = true_M5[true_M5[:, 0] != IGNORED]
        pictures.append(
            ExamplePicture(
                pixels.shape[0],
                pixels.shape[1],
                base64.b64encode(pixels.tobytes()).decode(),
                tuple(
                    ExampleBox(labels[row[0]], None, *(row[1:] / UNITS).tolist()) for row in true
                ),
                tuple(ExampleBox(labels[int(row[0])], *row[1:].tolist()) for row in shown),
            )
        )
    return Examples(tuple(scores), tuple(pictures))


def _as_pixels(values_CHW: Floats) -> NDArray[np.uint8]:
    """Return values as 8 bits of red, green and blue ``(H, W, 3)``, small enough to be shown."""
    largest = max(values_CHW.shape[1:])
    if largest > _MOST_SIDE:
        height, width = (max(1, side * _MOST_SIDE // largest) for side in values_CHW.shape[1:])
        values_CHW = np.asarray(resized(values_CHW, (height, width)), dtype=np.float64)
    # Values of other depths than 8 bits have a scale of their own.
    low, high = float(values_CHW.min()), float(values_CHW.max())
    if low < -0.5 or high > 255.5:
        values_CHW = (values_CHW - low) * (255 / (high - low))
    pixels = np.clip(np.rint(values_CHW), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(np.broadcast_to(pixels, (pixels.shape[0], pixels.shape[1], 3)))
