"""Quality of cuts before any recovery, by the way that layers, heads and channels are chosen.

    python -m experiments.benchmarks.compression.cut_quality
    python -m experiments.benchmarks.compression.cut_quality --from DIR --task FILE --work FOLDER

A trained parent loses a tenth, three tenths and half of its heads and channels, or of its layers,
or gets projections of low rank. Nothing is trained afterwards. The parent is a network that is
trained on the digits here, or a checkpoint that is fine-tuned on a task; the folder ``--work``
then keeps it, so that the command goes on where it was stopped. Scores are of training data,
qualities of the validation split. Torch-Pruning's criteria are compared where it is installed
(``pip install torch-pruning``): its scores choose, the same code cuts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.compression.recoveries import imported_once
from experiments.benchmarks.training.distillation import shape
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.tasks.base import Split, Task
from nas.tasks.registry import get_task
from nas.training.config import TrainingConfig
from nas.training.evaluate import evaluate
from nas.training.loop import train
from nas.training.objective import Objective, objective_of
from nas.training.scores import batches_of, score
from search_spaces.architecture import Architecture
from search_spaces.compression.apply import run_eagerly
from search_spaces.compression.inherit import inherit
from search_spaces.compression.layer_order import layer_order
from search_spaces.compression.moments import Moments
from search_spaces.compression.prune import Importance, magnitude_importance, taylor_importance
from search_spaces.models.build import build
from search_spaces.models.transformer import Transformer
from search_spaces.workload import Workload

SHARES = (0.1, 0.3, 0.5)
RANKS = (0.5, 0.25)
OURS = "ours"
_DIGITS = TrainingConfig(epochs=30, batch_size=64, learning_rate=5e-3, weight_decay=0.3)


@dataclass(frozen=True)
class Parent:
    """A trained network, its task and its training samples for scores."""

    network: Transformer
    architecture: Architecture
    task: Task
    workload: Workload

    @property
    def objective(self) -> Objective:
        return objective_of(self.task, self.workload)

    @property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        return batches_of(self.network, self.task.split("train"))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.objective.loss(outputs, targets, 0.0)

    def quality(self, network: Transformer) -> float:
        split: Split = self.task.split("validation")
        call = run_eagerly(network.eval()).call
        size = self.workload.batch_size
        return evaluate(call, split, batch_size=size, objective=self.objective).value

    def cut(
        self, to: Architecture, importance: Importance, moments: Moments | None = None
    ) -> float:
        """Quality of the parent cut to an architecture, by these scores."""
        made = inherit(
            self.network,
            self.architecture,
            to,
            self.workload,
            importance=importance,
            moments=moments,
        )
        return self.quality(made)


def narrower(of: Architecture, lost: float) -> Architecture:
    """``of`` without a share of the heads and channels of every layer; whole groups of heads."""
    layer = of.layers[0]
    attention, ffn = layer.attention, layer.ffn
    kv_heads = max(1, round((1 - lost) * attention.n_kv_heads))
    group = attention.n_heads // attention.n_kv_heads
    smaller = replace(
        layer,
        attention=replace(attention, n_heads=group * kv_heads, n_kv_heads=kv_heads),
        ffn=replace(ffn, d_ff=max(1, round((1 - lost) * ffn.d_ff))),
    )
    return replace(of, layers=(smaller,) * of.depth)


def ranked(of: Architecture, share: float) -> Architecture:
    """``of`` with projections of a rank of this share of the width."""
    layer, rank = of.layers[0], max(1, round(share * of.d_model))
    smaller = replace(
        layer, attention=replace(layer.attention, rank=rank), ffn=replace(layer.ffn, rank=rank)
    )
    return replace(of, layers=(smaller,) * of.depth)


def even(of: Architecture) -> Importance:
    """Scores by which a cut takes heads and channels at even distances.

    Bits of a number in reverse order are spread: the first ``n`` of them leave no gap unfilled.
    """

    def spread(n: int) -> Tensor:
        bits = max(1, (n - 1).bit_length())
        order = sorted(range(n), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))
        scores = torch.empty(n)
        scores[order] = -torch.arange(n, dtype=torch.float32)
        return scores

    layers = of.layers
    return Importance(
        tuple(spread(x.attention.n_heads) for x in layers),
        tuple(spread(x.ffn.d_ff) for x in layers),
    )


def torch_pruning(parent: Parent) -> dict[str, Importance]:
    """Scores by Torch-Pruning's criteria, empty where it is not installed."""
    if find_spec("torch_pruning") is None:
        return {}
    import torch_pruning as tp

    network = parent.network
    inputs, targets = parent.batches[0]
    graph = tp.DependencyGraph().build_dependency(network, example_inputs=inputs[:2])
    network.zero_grad()
    for batch, labels in parent.batches:
        parent.loss(network(batch), labels).backward()  # type: ignore[no-untyped-call]
    found = {}
    for name, criterion in (
        ("magnitude", tp.importance.GroupMagnitudeImportance(p=2)),
        ("Taylor", tp.importance.GroupTaylorImportance()),
    ):
        heads, channels = [], []
        for layer in network.stack:
            attention = layer.attention
            per_value = _group_scores(tp, graph, criterion, attention.v)
            groups = per_value.reshape(attention.n_kv_heads, attention.d_head).sum(dim=1)
            heads.append(groups.repeat_interleave(attention.n_heads // attention.n_kv_heads))
            channels.append(_group_scores(tp, graph, criterion, layer.ffn.up))
        found[f"Torch-Pruning, {name}"] = Importance(tuple(heads), tuple(channels))
    network.zero_grad()
    return found


def _group_scores(tp: Any, graph: Any, criterion: Any, module: Any) -> Tensor:
    """Score the outputs of ``module`` together with all that depends on them."""
    indices = list(range(module.out_features))
    group = graph.get_pruning_group(module, tp.prune_linear_out_channels, idxs=indices)
    scores: Tensor = criterion(group)
    if len(scores) != len(indices):
        raise ValueError(f"a group must have {len(indices)} scores, got {len(scores)}")
    return scores.detach().cpu()


def qualities_of(
    parent: Parent, say: Callable[[str], None]
) -> tuple[float, dict[str, dict[str, dict[str, float]]]]:
    """The parent's quality, and by kind of cut, way and size those of the cuts in percent."""
    network, of = parent.network, parent.architecture
    whole = parent.quality(network)
    split = parent.task.split("train")
    say(f"parent {of.describe()}: {whole:.4f}; scoring")
    ours = score(network, split, parent.objective)
    moments, importance = ours.moments, ours.importance
    fisher = taylor_importance(network, parent.batches, loss=parent.loss, is_fisher=True)
    taylor = replace(importance, layers=None)
    ways: dict[str, tuple[Importance, Moments | None]] = {
        OURS: (importance, moments),
        "Fisher, adapted": (fisher, moments),
        "Taylor": (taylor, None),
        "Fisher": (fisher, None),
        "magnitude": (magnitude_importance(network), None),
        "even": (even(of), None),
        **{name: (scores, None) for name, scores in torch_pruning(parent).items()},
    }
    tables: dict[str, dict[str, dict[str, float]]] = {}

    def add(cut: str, way: str, lost: str, quality: float) -> None:
        tables.setdefault(cut, {}).setdefault(way, {})[lost] = 100 * quality

    for lost in SHARES:
        smaller = narrower(of, lost)
        for way, (scores, adapted) in ways.items():
            quality = parent.cut(smaller, replace(scores, layers=None), adapted)
            add("heads and channels", way, f"{lost:.0%} less", quality)
        say(f"heads and channels less {lost:.0%}")
    influence = layer_order(network, parent.batches, parent.loss, most_macs=0).keeps
    for depth in dict.fromkeys(max(1, round((1 - lost) * of.depth)) for lost in SHARES):
        if depth == of.depth:
            continue
        shallower = replace(of, layers=of.layers[:depth])
        first = torch.ones(of.depth, of.depth, dtype=torch.bool).tril()
        for way, layers in (
            (OURS, importance.layers),
            ("block influence", influence),
            ("even", None),
            ("first", first),
        ):
            quality = parent.cut(shallower, replace(importance, layers=layers))
            add("layers", way, f"{of.depth - depth} of {of.depth} less", quality)
    say("layers")
    for share in RANKS:
        low = ranked(of, share)
        for way, adapted in ((OURS, moments), ("SVD of weights", None)):
            quality = parent.cut(low, taylor, adapted)
            add("ranks", way, f"{share:g} of the width", quality)
    return whole, tables


def digits_parent() -> Parent:
    """A network trained on the digits."""
    task = get_task("digits")
    workload = task.workload(128)
    architecture = shape(48, 4, 4, 192, 2)
    network = build(architecture, workload, generator_seed=0)
    train(network, task.split("train"), _DIGITS, seed=0)
    return Parent(network, architecture, task, workload)


def checkpoint_parent(source: Path, task: str, work: Path, epochs: int | None) -> Parent:
    """A checkpoint fine-tuned on a task, as a search from it would, kept in ``work``."""
    from nas.evaluation.teacher import prepare_teacher
    from nas.records.config import CheckpointConfig
    from nas.searching.from_checkpoint import config_from
    from nas.training.weights import load_network

    parent = imported_once(source, task, work)
    config = config_from(parent, CheckpointConfig(str(source)), epochs=epochs, device="cpu")
    prepare_teacher(config.evaluation(), work / "teacher", None)
    network = load_network(work / "teacher")
    return Parent(network.model, network.architecture, get_task(parent.task), network.workload)


def _key(size: str) -> str:
    """A column's key from its head."""
    return "at_" + "".join(c if c.isalnum() else "_" for c in size)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.compression.cut_quality",
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("--from", dest="checkpoint", type=Path, help="checkpoint to fine-tune")
    parser.add_argument("--task", help="task file, with --from")
    parser.add_argument("--work", type=Path, help="folder of the fine-tuned checkpoint")
    parser.add_argument("--epochs", type=int, help="epochs of the fine-tuning")
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    given = (arguments.checkpoint, arguments.task, arguments.work)
    if any(given) and not all(given):
        parser.error("--from, --task and --work must be given together")
    torch.set_num_threads(1)
    name = "digits" if arguments.checkpoint is None else arguments.checkpoint.name
    sheet = Sheet(parser, arguments, f"cut-quality-{name}")
    say = partial(print, file=sys.stderr, flush=True)
    parent = (
        digits_parent()
        if arguments.checkpoint is None
        else checkpoint_parent(*given, arguments.epochs)
    )
    whole, tables = qualities_of(parent, say)
    has_torch_pruning = any(way.startswith("Torch") for way in tables["heads and channels"])
    note = (
        f"validation quality in percent without any training after the cut; the parent, "
        f"{parent.architecture.describe()} on {parent.task.name}, has {whole:.2%}"
        f"{'' if has_torch_pruning else '; Torch-Pruning is not installed'}"
    )
    shown = []
    for cut, by_way in tables.items():
        sizes = list(next(iter(by_way.values())))
        columns = {"chosen by": "{way}", **{size: f"{{{_key(size)}:.2f}}" for size in sizes}}
        rows = [
            {"way": way, **{_key(size): quality for size, quality in qualities.items()}}
            for way, qualities in by_way.items()
        ]
        shown.append(Table.of(cut.replace(" ", "-"), columns, rows, note))
    sheet.show(*shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
