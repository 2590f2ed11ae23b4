"""Cuts of a checkpoint that share its weights: sandwich rule and in-place distillation.

A cut's weights are slices of one network that starts as the fine-tuned checkpoint: the layers,
heads and channels by which a search cuts it. Each step trains the whole network on the labels, and
the smallest cut and two random ones on its outputs (Yu & Huang 2019). Ranks are left out, since a
factorisation is no slice.

Shape legend: B batch, C classes, M merged heads, O outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from experiments.benchmarks.compression.recoveries import Recoveries
from nas.training.buckets import Buckets
from nas.training.distill import soft_target_loss
from nas.training.loop import parameter_groups, warmup_cosine
from search_spaces.architecture import Architecture
from search_spaces.compression.inherit import source_layers
from search_spaces.compression.prune import choose_heads, largest_indices
from search_spaces.models.build import build
from search_spaces.models.transformer import Transformer
from search_spaces.space.sampling import sample, smallest

_RANDOM_CUTS = 2


class SharedParent(nn.Module):
    """The fine-tuned checkpoint as the weights of all its cuts."""

    def __init__(self, recoveries: Recoveries) -> None:
        """Copy the checkpoint; its scores say what each cut keeps."""
        super().__init__()
        teacher = recoveries.teacher
        assert teacher.scores is not None
        self.network = copy.deepcopy(teacher.model)
        self._of, self._importance = teacher.architecture, teacher.scores.importance
        self._workload = recoveries.workload
        self._cuts: dict[str, Transformer] = {}

    def weights_of(self, cut: Architecture) -> dict[str, Tensor]:
        """Return the parameters of ``cut`` as slices of the shared ones, with their gradients."""
        own = dict(self.network.named_parameters())
        found = {name: value for name, value in own.items() if not name.startswith("layers.")}
        if "position_TD" in found and cut.resolution is not None:
            found["position_TD"] = found["position_TD"][: self._workload.n_tokens(cut)]
        layers = source_layers(self._of.depth, cut.depth, self._importance.layers)
        for index, source in enumerate(layers):
            rows, columns = self._indices(cut, index, source)
            prefix = f"layers.{source}."
            for name, value in own.items():
                if not name.startswith(prefix):
                    continue
                part = name.removeprefix(prefix)
                module = part.rpartition(".")[0]
                if module in rows:
                    value = value[rows[module]].mean(dim=0)
                elif module in columns and part.endswith("weight"):
                    value = value[:, columns[module]]
                found[f"layers.{index}.{part}"] = value
        return found

    def outputs(self, cut: Architecture, batch: Tensor) -> Tensor:
        """Return the outputs of ``cut``, ``(B, C)``."""
        if cut.hash not in self._cuts:
            with torch.device("meta"):
                network = Transformer(cut, self._workload)
            if list(network.buffers()):
                raise ValueError("a shared parent must be of a family without buffers")
            self._cuts[cut.hash] = network
        weights = self.weights_of(cut)
        outputs: Tensor = torch.func.functional_call(self._cuts[cut.hash], weights, (batch,))
        return outputs

    def extracted(self, cut: Architecture) -> Transformer:
        """Return a network of ``cut`` with a copy of its weights."""
        network = build(cut, self._workload, generator_seed=0)
        with torch.no_grad():
            for name, value in self.weights_of(cut).items():
                network.get_parameter(name).copy_(value)
        return network.eval()

    def _indices(
        self, cut: Architecture, index: int, source: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the rows, ``(M, O)``, and columns that a layer keeps, by the module's name."""
        before, after = self._of.layers[source], cut.layers[index]
        heads = choose_heads(
            self._importance.heads[source], before.attention, after.attention, "attention"
        )
        size = before.attention.d_head
        queries = _members(heads.queries, size)
        keys_MO = torch.stack([_members(keys, size) for keys in heads.keys.T])
        channels = largest_indices(self._importance.channels[source], after.ffn.d_ff)
        rows = {
            "attention.q": queries[None],
            "attention.k": keys_MO,
            "attention.v": keys_MO,
            "ffn.up": channels[None],
            "ffn.gate": channels[None],
        }
        return rows, {"attention.o": queries, "ffn.down": channels}


def _members(heads: Tensor, d_head: int) -> Tensor:
    return (heads[:, None] * d_head + torch.arange(d_head)).flatten()


def train_shared(
    shared: SharedParent, recoveries: Recoveries, cpu_s: float, clock: Callable[[], float]
) -> int:
    """Train ``shared`` for so many CPU seconds by ``clock``; return the number of steps.

    The learning rate warms up, then falls with the seconds that are left.
    """
    config, space = recoveries.config, recoveries.config.space
    training, objective = config.training, recoveries.setting.objective
    split = recoveries.task.split("train")
    inputs, targets = torch.from_numpy(split.inputs), torch.from_numpy(split.targets)
    generator = torch.Generator().manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    buckets = Buckets.of(shared.network, inputs, training.batch_size)
    optimizer = torch.optim.AdamW(
        parameter_groups(shared.network, training), lr=training.learning_rate, fused=True
    )
    whole, least = recoveries.teacher.architecture, smallest(space)
    shared.network.train()
    started_s, steps = clock(), 0
    while True:
        for indices, width in buckets.draw(generator):
            progress = (clock() - started_s) / cpu_s
            if progress >= 1:
                shared.network.eval()
                return steps
            for group in optimizer.param_groups:
                factor = warmup_cosine(round(1000 * progress), 1000, training.warmup_fraction)
                group["lr"] = training.learning_rate * factor
            batch = inputs[indices] if width is None else inputs[indices][..., :width]
            cuts = [least, *(sample(space, rng) for _ in range(_RANDOM_CUTS))]
            optimizer.zero_grad(set_to_none=True)
            scale = 1 / (1 + len(cuts))
            logits_BC = shared.outputs(whole, batch)
            loss = objective.loss(logits_BC, targets[indices], training.label_smoothing)
            (scale * loss).backward()  # type: ignore[no-untyped-call]
            target_BC = logits_BC.detach()
            for cut in cuts:
                # A cut that reads fewer tokens has the same outputs' form.
                soft = soft_target_loss(shared.outputs(cut, batch), target_BC, 1.0)
                (scale * soft).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(shared.network.parameters(), training.gradient_clip)
            optimizer.step()
            steps += 1
