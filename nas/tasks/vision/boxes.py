"""Boxes of objects: targets, and the boxes that a network's outputs stand for.

A patch predicts one object: a logit that there is one, four values of its box, and the logits of
its class. Its box has a centre within two patches of the patch's own, and a size that is a share
of the picture. Boxes that overlap a better one of their class are suppressed (Felzenszwalb et al.
2010), as several patches find one object.

Boxes are (left, top, right, bottom) in shares of the picture's width and height.

Shape legend: B batch, M boxes of a picture, R rows and C columns of patches, F found boxes, K
classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.tasks.base import IGNORED
from search_spaces.workload import BOX_OUTPUTS

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

# Targets are integers: ends of boxes in this part of the picture's side.
UNITS = 2**20
# Most objects that may be found in a picture.
MOST_BOXES = 1000
# A target has a class and four ends; a found box has a class, a score and four ends.
TARGET, FOUND = 5, 6
# A box that overlaps a better one of its class by more than this is suppressed.
MOST_OVERLAP = 0.6
# Boxes of lower scores are not evaluated.
LEAST_SCORE = 0.01
# A patch's object has its centre within this many patches of the patch's own.
_REACH = 2.0
# A box of which less is left in a shifted picture is no target.
_LEAST_LEFT = 0.25


def as_targets(boxes: Sequence[tuple[int, Sequence[float]]]) -> NDArray[np.int64]:
    """Return targets ``(M, 5)`` of classes and boxes."""
    targets = np.zeros((len(boxes), TARGET), dtype=np.int64)
    for row, (label, ends) in enumerate(boxes):
        targets[row] = [label, *(round(end * UNITS) for end in ends)]
    return targets


def decoded(outputs_BRCO: Tensor) -> Tensor:
    """Return the boxes ``(B, R, C, 4)`` that a network's outputs stand for."""
    import torch

    rows, columns = outputs_BRCO.shape[1:3]
    device = outputs_BRCO.device
    raw = outputs_BRCO[..., 1:BOX_OUTPUTS].float()
    offset = _REACH * torch.tanh(raw[..., :2] / 2)
    x = (torch.arange(columns, device=device) + 0.5 + offset[..., 0]) / columns
    y = (torch.arange(rows, device=device)[:, None] + 0.5 + offset[..., 1]) / rows
    centre, half = torch.stack([x, y], dim=-1), raw[..., 2:].sigmoid() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def found_boxes(
    outputs_BRCO: Tensor,
    most: int,
    least_score: float = LEAST_SCORE,
    most_overlap: float = MOST_OVERLAP,
) -> NDArray[np.float64]:
    """Return the best boxes ``(B, most, 6)`` of a network's outputs, by falling score.

    Each has its class, or ``IGNORED`` if fewer were found, its score and its ends. None overlaps a
    better one of its class by more than ``most_overlap``.
    """
    boxes_BP4 = decoded(outputs_BRCO).flatten(1, 2).clamp(0, 1).double().cpu().numpy()
    flat_BPO = outputs_BRCO.flatten(1, 2).float()
    classes_BPK = flat_BPO[..., BOX_OUTPUTS:].softmax(dim=-1)
    shares_BP, labels_BP = classes_BPK.max(dim=-1)
    scores_BP = (flat_BPO[..., 0].sigmoid() * shares_BP).double().cpu().numpy()
    found = np.zeros((len(boxes_BP4), most, FOUND))
    found[..., 0] = IGNORED
    for row, (boxes, scores, labels) in enumerate(
        zip(boxes_BP4, scores_BP, labels_BP.cpu().numpy(), strict=True)
    ):
        kept = _not_suppressed(boxes, scores, labels, least_score, most_overlap)[:most]
        found[row, : len(kept)] = np.column_stack([labels[kept], scores[kept], boxes[kept]])
    return found


def _not_suppressed(
    boxes: Floats,
    scores: Floats,
    labels: NDArray[np.int64],
    least_score: float,
    most_overlap: float,
) -> list[int]:
    """Return the indices of boxes that overlap no better one of their class, best first."""
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= least_score]
    is_open, kept = np.ones(len(order), dtype=bool), []
    for place, index in enumerate(order):
        if not is_open[place]:
            continue
        kept.append(int(index))
        rest = order[place + 1 :]
        overlaps = overlap(boxes[index][None], boxes[rest])[0]
        is_open[place + 1 :] &= (overlaps <= most_overlap) | (labels[rest] != labels[index])
    return kept


def overlap(ours_A4: Floats, theirs_B4: Floats) -> Floats:
    """Return the intersection over union of each pair of boxes, ``(A, B)``."""
    low = np.maximum(ours_A4[:, None, :2], theirs_B4[None, :, :2])
    high = np.minimum(ours_A4[:, None, 2:], theirs_B4[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    union = _areas(ours_A4)[:, None] + _areas(theirs_B4)[None] - shared
    shares: Floats = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return shares


def _areas(boxes: Floats) -> Floats:
    areas: Floats = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=-1)
    return areas


def moved_boxes(
    targets_BM5: Tensor, flipped_B: Tensor, shift_B2: Tensor, size: tuple[int, int]
) -> Tensor:
    """Return targets of pictures that were mirrored, then shifted by pixels (right, down).

    A box is cut at the picture's edge; it has no class if less than a quarter of it is left.
    """
    import torch

    height, width = size
    ends_BM4 = targets_BM5[..., 1:]
    left, top, right, bottom = ends_BM4.unbind(-1)
    mirrored = torch.stack([UNITS - right, top, UNITS - left, bottom], dim=-1)
    ends_BM4 = torch.where(flipped_B[:, None, None], mirrored, ends_BM4)
    scale = torch.tensor([UNITS / width, UNITS / height], device=targets_BM5.device)
    by_B2 = (shift_B2 * scale).round().long()
    shifted = ends_BM4 + by_B2.repeat(1, 2)[:, None]
    cut = shifted.clamp(0, UNITS)
    before, after = (
        (ends[..., 2:] - ends[..., :2]).double().prod(dim=-1) for ends in (shifted, cut)
    )
    is_left = after > _LEAST_LEFT * before
    labels = torch.where(is_left, targets_BM5[..., 0], IGNORED)
    return torch.cat([labels[..., None], cut], dim=-1)


@dataclass(frozen=True, slots=True)
class FoundBox:
    """An object in a picture: class, score in [0, 1], and box in the picture's pixels."""

    label: str
    score: float
    left: float
    top: float
    right: float
    bottom: float


def in_pixels(found_F6: Floats, labels: Sequence[str], size: tuple[int, int]) -> list[FoundBox]:
    """Return found boxes of a picture of ``size``, (height, width), by falling score."""
    height, width = size
    ends_F4 = found_F6[:, 2:] * np.array([width, height, width, height])
    return [
        FoundBox(labels[int(row[0])], float(row[1]), *ends.tolist())
        for row, ends in zip(found_F6, ends_F4, strict=True)
        if row[0] != IGNORED
    ]
