"""The loss of a detector's outputs, as those of single-stage detectors without anchors.

* A patch is positive for a box if the patch's centre is in the box and within 1.5 patches of the
  box's centre (centre sampling, Tian et al. 2019, "FCOS", arXiv 1904.01355), or if the box's
  centre is in the patch. Of several boxes the smallest is its target, as in FCOS.
* The logit of an object learns the overlap of the predicted and the true box, 0 elsewhere, by the
  quality focal loss with exponent 2 (Li et al. 2020, arXiv 2006.04388), so that scores rank boxes
  by how well they fit.
* Boxes learn by the generalised intersection over union (Rezatofighi et al. 2019,
  arXiv 1902.09630) with the weight 2 of Li et al., classes by cross-entropy.

Sums are divided by the number of positive patches of the batch.

Shape legend: B batch, M boxes of a picture, P patches, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.tasks.base import IGNORED
from nas.tasks.vision.boxes import UNITS, decoded
from search_spaces.workload import BOX_OUTPUTS

if TYPE_CHECKING:
    from torch import Tensor

_RADIUS, _BOX_WEIGHT, _EXPONENT = 1.5, 2.0, 2
# Keeps divisions by areas finite.
_TINY = 1e-9


def detection_loss(outputs_BRCO: Tensor, targets_BM5: Tensor, label_smoothing: float) -> Tensor:
    """Return the loss of a batch; see the module's description."""
    at_BP = assigned(targets_BM5, *outputs_BRCO.shape[1:3])
    return assigned_loss(outputs_BRCO, targets_BM5, at_BP, label_smoothing)


def assigned_loss(
    outputs_BRCO: Tensor, targets_BM5: Tensor, at_BP: Tensor, label_smoothing: float
) -> Tensor:
    """Return the loss of a batch where ``at_BP`` is the index of each patch's target, or -1."""
    import torch
    import torch.nn.functional as F

    flat_BPO = outputs_BRCO.flatten(1, 2).float()
    boxes_BP4 = decoded(outputs_BRCO).flatten(1, 2)
    is_positive_BP = at_BP >= 0
    n_positive = is_positive_BP.sum().clamp_min(1)
    own_BP5 = targets_BM5.gather(
        1, at_BP.clamp_min(0)[..., None].expand(-1, -1, targets_BM5.shape[-1])
    )
    true_BP4 = own_BP5[..., 1:].float() / UNITS
    shares_BP, general_BP = _overlaps(boxes_BP4, true_BP4)
    quality_BP = torch.where(is_positive_BP, shares_BP.detach(), 0.0)
    logits_BP = flat_BPO[..., 0]
    distance_BP = (logits_BP.sigmoid() - quality_BP).abs() ** _EXPONENT
    entropy_BP = F.binary_cross_entropy_with_logits(logits_BP, quality_BP, reduction="none")
    objects = (distance_BP * entropy_BP).sum()
    boxes = torch.where(is_positive_BP, 1 - general_BP, 0.0).sum()
    classes = F.cross_entropy(
        flat_BPO[..., BOX_OUTPUTS:].flatten(0, 1),
        torch.where(is_positive_BP, own_BP5[..., 0], IGNORED).flatten(),
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    loss: Tensor = (objects + _BOX_WEIGHT * boxes + classes) / n_positive
    return loss


def assigned(targets_BM5: Tensor, rows: int, columns: int) -> Tensor:
    """Return the index of each patch's target ``(B, P)``, -1 where there is none."""
    import torch

    device = targets_BM5.device
    y_P, x_P = torch.meshgrid(
        (torch.arange(rows, device=device) + 0.5) / rows,
        (torch.arange(columns, device=device) + 0.5) / columns,
        indexing="ij",
    )
    centres_P2 = torch.stack([x_P.flatten(), y_P.flatten()], dim=-1)
    patch_2 = torch.tensor([1 / columns, 1 / rows], device=device)
    ends_BM4 = targets_BM5[..., 1:].float() / UNITS
    low_BM2, high_BM2 = ends_BM4[..., :2], ends_BM4[..., 2:]
    # (B, P, M, 2): distances of patches' centres from boxes' centres, in patches.
    apart = (centres_P2[:, None] - (low_BM2 + high_BM2)[:, None] / 2).abs() / patch_2
    is_near = (apart < _RADIUS).all(dim=-1)
    is_within = (centres_P2[:, None] > low_BM2[:, None]) & (
        centres_P2[:, None] < high_BM2[:, None]
    )
    is_own = (apart <= 0.5).all(dim=-1)
    is_candidate = (is_near & is_within.all(dim=-1)) | is_own
    is_candidate &= (targets_BM5[..., 0] != IGNORED)[:, None]
    area_BM = (high_BM2 - low_BM2).prod(dim=-1)
    areas_BPM = torch.where(is_candidate, area_BM[:, None], torch.inf)
    smallest_BP, at_BP = areas_BPM.min(dim=-1)
    return torch.where(smallest_BP < torch.inf, at_BP, -1)


def _overlaps(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the intersection over union of boxes ``(..., 4)``, plain and generalised."""
    import torch

    low, high = ours[..., :2], ours[..., 2:]
    their_low, their_high = theirs[..., :2], theirs[..., 2:]
    shared = _area(torch.maximum(low, their_low), torch.minimum(high, their_high))
    union = _area(low, high) + _area(their_low, their_high) - shared
    hull = _area(torch.minimum(low, their_low), torch.maximum(high, their_high))
    share = shared / union.clamp_min(_TINY)
    return share, share - (hull - union) / hull.clamp_min(_TINY)


def _area(low: Tensor, high: Tensor) -> Tensor:
    area: Tensor = (high - low).clamp_min(0).prod(dim=-1)
    return area
