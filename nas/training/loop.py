"""Train one model on one split, on labels and optionally on a teacher's outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from nas.tasks.base import Split
from nas.training.augment import augment, moved_with
from nas.training.average import Average
from nas.training.buckets import Buckets, padding_token_of
from nas.training.checkpoint import CheckpointManager, TrainingState
from nas.training.config import TrainingConfig
from nas.training.distill import Distillation, Teacher
from nas.training.objective import Classification, Objective, learnt_outputs
from search_spaces.models.transformer import Transformer


class DivergedError(RuntimeError):
    """The training loss stopped being a finite number."""


Guard = Callable[[], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """Options of a training loop that do not change the trained weights on one ``device``.

    Each step runs inside ``step_guard()``, which lets a measurement elsewhere on the device pause
    training. With ``checkpoints`` an interrupted loop resumes and ends with the same weights as an
    uninterrupted one. ``on_epoch`` is called with the epoch (from 1) and the mean training loss.
    A resumed loop first calls it for the epoch of the checkpoint, with NaN as the loss.
    """

    device: str = "cpu"
    step_guard: Guard = nullcontext
    checkpoints: CheckpointManager | None = None
    on_epoch: Callable[[int, float], None] | None = None


def train(
    model: nn.Module,
    split: Split,
    config: TrainingConfig,
    *,
    seed: int,
    objective: Objective | None = None,
    teacher: Teacher | None = None,
    hold: Callable[[], None] | None = None,
    options: LoopOptions = LoopOptions(),  # noqa: B008
) -> nn.Module:
    """Train ``model`` in place and return it on ``options.device``, in evaluation mode.

    ``objective`` is classification by default. ``teacher`` is required if and only if
    ``config.distill`` is set. ``hold`` is called after each step, to restore constraints on the
    weights (zeros of a mask). Within ``options.on_epoch`` ``model`` has the averaged weights, once
    averaging has begun. Batches of texts are cut to their longest text (``nas.training.buckets``).

    Raises:
        ValueError: only one of ``teacher`` and ``config.distill`` is set.
        DivergedError: the loss of an epoch is not finite.
    """
    device, step_guard, checkpoints = options.device, options.step_guard, options.checkpoints
    generator = torch.Generator().manual_seed(seed)
    objective = Classification() if objective is None else objective
    with step_guard():
        inputs = torch.from_numpy(split.inputs).to(device)
        targets = torch.from_numpy(split.targets).to(device)
        model = model.to(device).train()
        distillation = _distillation(model, config, teacher, objective, seed)
        if distillation is not None:
            distillation.to(device)
    groups = parameter_groups(model, config)
    if distillation is not None:
        groups += parameter_groups(distillation, config)
    # Fused: for small models a loop over the parameters costs as much as a forward pass.
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    steps_per_epoch = math.ceil(len(split) / config.batch_size)
    total_steps = config.epochs * steps_per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _rate_factor(step, total_steps, config)
    )
    buckets = Buckets.of(model, inputs, config.batch_size)
    padding_token = padding_token_of(model)
    average = Average(model) if config.averaged_share > 0 else None
    # At least the last step is averaged.
    averaged_from = min(total_steps - 1, round(total_steps * (1 - config.averaged_share)))
    state = TrainingState(_modules(model, distillation, average), optimizer, generator)

    def report(epoch: int, loss: float) -> None:
        if options.on_epoch is not None:
            with nullcontext() if average is None else average.shown():
                options.on_epoch(epoch, loss)

    done = 0 if checkpoints is None else checkpoints.load(state)
    if done:
        go_to(schedule, done * steps_per_epoch)
        if average is not None:
            average.restored()
        report(done, math.nan)
    for epoch in range(done + 1, config.epochs + 1):
        # Summed on the device: reading each step's loss would wait for the device each time.
        loss_sum = torch.zeros((), device=device)
        for cpu_indices, width in buckets.draw(generator):
            with step_guard():
                indices = cpu_indices.to(device)
                samples = inputs[indices] if width is None else inputs[indices][..., :width]
                batch, versions = augment(samples, config, generator, padding_token)
                labels = moved_with(samples, targets[indices], versions, config, objective)
                if distillation is None:
                    outputs = learnt_outputs(objective, model, batch, labels)
                    loss = objective.loss(outputs, labels, config.label_smoothing)
                else:
                    loss = distillation(
                        model, batch, labels, indices, versions, config.label_smoothing
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                # Excludes the projections of distillation, which would scale down the gradients.
                nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
                optimizer.step()
                schedule.step()
                if hold is not None:
                    hold()
                if average is not None and schedule.last_epoch > averaged_from:
                    average.update()
                loss_sum += loss.detach() * len(indices)
        mean_loss = float(loss_sum) / len(split)
        if not math.isfinite(mean_loss):
            raise DivergedError(f"training loss became {mean_loss} in epoch {epoch}")
        if checkpoints is not None:
            checkpoints.save(epoch, state)
        report(epoch, mean_loss)
    if average is not None:
        average.exchange()
    return model.eval()


def _modules(
    model: nn.Module, distillation: Distillation | None, average: Average | None
) -> dict[str, nn.Module]:
    modules = {"model": model, "distillation": distillation, "average": average}
    return {name: module for name, module in modules.items() if module is not None}


def go_to(schedule: torch.optim.lr_scheduler.LambdaLR, step: int) -> None:
    """Set ``schedule`` and its optimizer to their state after ``step`` steps."""
    schedule.last_epoch = step
    rates = zip(
        schedule.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
    )
    for group, base, factor in rates:
        group["lr"] = base * factor(step)


def _distillation(
    model: nn.Module,
    config: TrainingConfig,
    teacher: Teacher | None,
    objective: Objective,
    seed: int,
) -> Distillation | None:
    if (teacher is None) != (config.distill is None):
        got = "no teacher" if teacher is None else "a teacher"
        raise ValueError(f"distill must be set exactly where there is a teacher, got {got}")
    if teacher is None or config.distill is None:
        return None
    if not isinstance(model, Transformer):
        raise ValueError(f"a student must be a Transformer, got {type(model).__name__}")
    return Distillation(model, teacher, config.distill, objective, seed=seed)


def parameter_groups(model: nn.Module, config: TrainingConfig) -> list[dict[str, object]]:
    """Return AdamW's parameter groups: matrices, with weight decay, and the rest without."""
    # Weight decay on biases, norms and position tables hurts the fit.
    decayed = [p for p in model.parameters() if p.ndim == 2]
    plain = [p for p in model.parameters() if p.ndim != 2]
    return [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]


def _rate_factor(step: int, total_steps: int, config: TrainingConfig) -> float:
    if config.averaged_share == 0:
        return warmup_cosine(step, total_steps, config.warmup_fraction)
    # Weight averaging replaces learning-rate decay: hold the rate after warm-up.
    return min(1.0, (step + 1) / max(1, round(total_steps * config.warmup_fraction)))


def warmup_cosine(step: int, total_steps: int, warmup_fraction: float) -> float:
    """Learning-rate factor at ``step``: linear warm-up to 1, then cosine decay to 0."""
    warmup_steps = max(1, round(total_steps * warmup_fraction))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))
