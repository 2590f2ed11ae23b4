"""Train one model on one split.

Shape legend: N samples, B batch, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.tasks.base import Split
from nas.training.config import TrainingConfig


class DivergedError(RuntimeError):
    """The training loss stopped being a finite number."""


def train(
    model: nn.Module,
    split: Split,
    config: TrainingConfig,
    *,
    seed: int,
    device: str = "cpu",
    on_epoch: Callable[[int, float], None] | None = None,
    step_guard: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> nn.Module:
    """Train ``model`` in place and return it on ``device``, in evaluation mode.

    ``on_epoch`` is told the epoch (from 1) and the mean training loss. Each step runs inside
    ``step_guard()``, which lets a measurement elsewhere on the device pause training.

    Raises:
        DivergedError: the loss of an epoch is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.from_numpy(split.inputs).to(device)
    targets = torch.from_numpy(split.targets).to(device)
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(_parameter_groups(model, config), lr=config.learning_rate)
    steps_per_epoch = math.ceil(len(split) / config.batch_size)
    total_steps = config.epochs * steps_per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _warmup_cosine(step, total_steps, config.warmup_fraction)
    )
    for epoch in range(1, config.epochs + 1):
        order = torch.randperm(len(split), generator=generator).to(device)
        # Summed on the device: reading each step's loss would wait for the device each time.
        loss_sum = torch.zeros((), device=device)
        for indices in torch.split(order, config.batch_size):
            with step_guard():
                batch = _augment(inputs[indices], config, generator)
                loss = F.cross_entropy(
                    model(batch), targets[indices], label_smoothing=config.label_smoothing
                )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
                optimizer.step()
                schedule.step()
                loss_sum += loss.detach() * len(indices)
        mean_loss = float(loss_sum) / len(split)
        if not math.isfinite(mean_loss):
            raise DivergedError(f"training loss became {mean_loss} in epoch {epoch}")
        if on_epoch is not None:
            on_epoch(epoch, mean_loss)
    return model.eval()


def _parameter_groups(model: nn.Module, config: TrainingConfig) -> list[dict[str, object]]:
    # Biases, norms and position tables are not decayed: shrinking them only hurts the fit.
    decayed = [p for p in model.parameters() if p.ndim == 2]
    plain = [p for p in model.parameters() if p.ndim != 2]
    return [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def _warmup_cosine(step: int, total_steps: int, warmup_fraction: float) -> float:
    warmup_steps = max(1, round(total_steps * warmup_fraction))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))


def _augment(batch: Tensor, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    if batch.ndim != 4 or config.shift_pixels == 0:
        return batch
    return _random_shift(batch, config.shift_pixels, generator)


def _random_shift(images_BCHW: Tensor, most: int, generator: torch.Generator) -> Tensor:
    n, _, height, width = images_BCHW.shape
    padded = F.pad(images_BCHW, (most,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * most + 1, (2, n), generator=generator).to(images_BCHW.device)
    rows_BH = offsets[0, :, None] + torch.arange(height, device=images_BCHW.device)
    cols_BW = offsets[1, :, None] + torch.arange(width, device=images_BCHW.device)
    sample_B11 = torch.arange(n, device=images_BCHW.device)[:, None, None]
    # Advanced indices around the channel slice put channels last.
    shifted_BHWC = padded[sample_B11, :, rows_BH[:, :, None], cols_BW[:, None, :]]
    return shifted_BHWC.permute(0, 3, 1, 2)
