"""Train one supernet, whose sub-networks can then be evaluated without training.

Each step trains the largest sub-network on the labels, and the smallest and some random ones on
the largest's outputs for the same batch (sandwich rule and in-place distillation, Yu & Huang
2019). These outputs cost no extra pass. One optimizer step uses the mean of all gradients.
``nas.training.members`` samples the sub-networks.

Shape legend: B batch, C classes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from nas.tasks.base import Split
from nas.training.augment import augment
from nas.training.checkpoint import TrainingState
from nas.training.config import SupernetRecipe, TrainingConfig
from nas.training.distill import soft_target_loss
from nas.training.loop import DivergedError, LoopOptions, go_to, parameter_groups, warmup_cosine
from nas.training.members import Members
from nas.training.objective import Classification, Objective
from search_spaces.architecture import Architecture
from search_spaces.models.supernet import Supernet
from search_spaces.space.sampling import largest, smallest

# Share of the epochs with uniform sampling, before losses are predicted.
_UNIFORM_SHARE = 0.2


def train_supernet(
    supernet: Supernet,
    split: Split,
    training: TrainingConfig,
    recipe: SupernetRecipe,
    *,
    seed: int,
    objective: Objective | None = None,
    options: LoopOptions = LoopOptions(),  # noqa: B008
) -> Supernet:
    """Train ``supernet`` in place and return it on ``options.device``, in evaluation mode.

    ``training`` is the configuration of stand-alone networks; ``recipe`` contains the
    supernet's own settings. ``options.on_epoch`` is called with the mean loss of the largest
    sub-network.

    Raises:
        DivergedError: the loss of an epoch is not finite.
    """
    device, checkpoints = options.device, options.checkpoints
    epochs = recipe.epochs(training)
    objective = Classification() if objective is None else objective
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.from_numpy(split.inputs).to(device)
    targets = torch.from_numpy(split.targets).to(device)
    supernet = supernet.to(device).train()
    padding_token = supernet.workload.padding_token
    members = Members(supernet.space, supernet.workload, seed=seed)
    optimizer = torch.optim.AdamW(
        parameter_groups(supernet, training), lr=training.learning_rate, fused=True
    )
    steps_per_epoch = math.ceil(len(split) / training.batch_size)
    total = epochs * steps_per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, total, training.warmup_fraction)
    )
    modules: dict[str, nn.Module] = {"supernet": supernet, "members": members}
    state = TrainingState(modules, optimizer, generator)
    done = 0 if checkpoints is None else checkpoints.load(state)
    if done:
        go_to(schedule, done * steps_per_epoch)
    largest_member, smallest_member = largest(supernet.space), smallest(supernet.space)
    for epoch in range(done + 1, epochs + 1):
        # Seeded by the epoch, so that a checkpoint needs no state of this generator.
        rng = np.random.default_rng([seed, epoch])
        is_early = epoch <= epochs * _UNIFORM_SHARE
        losses_N = None if is_early or recipe.front_share == 0 else members.predicted()
        drawn_indices: list[int] = []
        drawn_losses: list[Tensor] = []
        order = torch.randperm(len(split), generator=generator).to(device)
        loss_sum = torch.zeros((), device=device)
        n_samples = 0
        for step, indices in enumerate(torch.split(order, training.batch_size)):
            chosen = [
                members.promising(rng, losses_N)
                if losses_N is not None and rng.random() < recipe.front_share
                else members.uniform(rng)
                for _ in range(recipe.n_random)
            ]
            with options.step_guard():
                batch, _ = augment(inputs[indices], training, generator, padding_token)
                optimizer.zero_grad(set_to_none=True)
                has_largest = step % recipe.largest_each == 0
                sampled = [smallest_member, *(members.architecture(index) for index in chosen)]
                losses = _backward(
                    supernet,
                    batch,
                    targets[indices],
                    [largest_member, *sampled] if has_largest else sampled,
                    training,
                    recipe,
                    objective,
                    has_largest=has_largest,
                )
                nn.utils.clip_grad_norm_(supernet.parameters(), training.gradient_clip)
                optimizer.step()
                schedule.step()
            if has_largest:
                loss_sum += losses[0] * len(indices)
                n_samples += len(indices)
                drawn_indices += chosen
                drawn_losses += losses[2:]
        mean_loss = float(loss_sum) / n_samples
        if not math.isfinite(mean_loss):
            raise DivergedError(f"the supernet's training loss became {mean_loss} in {epoch}")
        if drawn_losses:
            members.learn(drawn_indices, torch.stack(drawn_losses))
        if checkpoints is not None:
            checkpoints.save(epoch, state)
        if options.on_epoch is not None:
            options.on_epoch(epoch, mean_loss)
    return supernet.eval()


def _backward(
    supernet: Supernet,
    batch: Tensor,
    targets_B: Tensor,
    architectures: list[Architecture],
    training: TrainingConfig,
    recipe: SupernetRecipe,
    objective: Objective,
    *,
    has_largest: bool,
) -> list[Tensor]:
    """Accumulate the gradients of all ``architectures`` and return their losses.

    The first is the largest sub-network if ``has_largest``: it trains on the labels, the others
    also on its outputs. Without it all train on the labels.
    """
    scale = 1.0 / len(architectures)
    teacher_BC: Tensor | None = None
    losses = []
    for architecture in architectures:
        with supernet.active(architecture):
            logits_BC = supernet(batch)
        if teacher_BC is None:
            loss = objective.loss(logits_BC, targets_B, training.label_smoothing)
            if has_largest:
                teacher_BC = logits_BC.detach()
            losses.append(loss.detach())
        else:
            soft = soft_target_loss(logits_BC.flatten(0, -2), teacher_BC.flatten(0, -2), 1.0)
            losses.append(soft.detach())
            loss = recipe.distill_weight * soft
            if recipe.distill_weight < 1:
                loss = loss + (1 - recipe.distill_weight) * objective.loss(
                    logits_BC, targets_B, training.label_smoothing
                )
        (scale * loss).backward()  # type: ignore[no-untyped-call]
    return losses
