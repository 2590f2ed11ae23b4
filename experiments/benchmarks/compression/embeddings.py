"""A search around a sentence encoder: joules and neighbours kept, beside its other precisions.

    python -m experiments.benchmarks.compression.embeddings --from DIR --captions MULTI30K \
        --work FOLDER

The texts are English captions of Multi30k: ``--texts`` of the training split, all of the
validation split and of the test split of 2016. The network that is shown is the member of the
front with the fewest joules among those with a recall@10 of at least ``--recall`` on validation
texts; the test split is read when that is done. Its joules and those of the checkpoint in each
precision that is real here are measured side by side, in rounds of fresh processes. The folder
``--work`` keeps the search and the records, so that the command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml

import nas
from experiments.benchmarks.compression.checkpoint_joules import Progress, instruction_sets
from experiments.results.sheet import Sheet, add_keep_option
from experiments.results.table import Table
from nas.pareto.queries import FrontMember
from nas.store.run import Run
from nas.tasks.base import SPLITS, SplitName
from nas.tasks.embeddings.task import Embeddings
from nas.tasks.registry import get_task
from nas.training.weights import load_network, load_weights
from predictors.campaign.plan import PlanItem, plan_items
from predictors.campaign.rounds import Rounds, VariantEnergy, measure_rounds, summarise
from predictors.measurement.protocol import get_protocol
from predictors.measurement.runner import make_job
from search_spaces.architecture import Architecture
from search_spaces.compression.apply import compress, run_eagerly
from search_spaces.models.build import build
from search_spaces.space import SearchSpace

# Multi30k's names of the splits.
NAMES: dict[SplitName, str] = {
    "train": "train",
    "validation": "val",
    "test": "test_2016_flickr",
}
# Tokens of a caption; one in a hundred is longer.
LENGTH = 24
COLUMNS = {
    "network": "{network}",
    "recall@10, validation": "{recall:.1f} ± {recall_se:.1f}",
    "recall@10, test": "{test:.1f} ± {test_se:.1f}",
    "Spearman, test": "{spearman:.1f} ± {spearman_se:.1f}",
    "energy per text, estimate": "{energy_mj:.2f} mJ [{low_mj:.2f}, {high_mj:.2f}]",
    "fewer than fp32": "{times:.2f}x [{times_low:.2f}, {times_high:.2f}]",
}


@dataclass(frozen=True)
class Shown:
    """A network of the table: its name, its architecture, and its fp32 weights."""

    name: str
    architecture: Architecture
    network: torch.nn.Module


def write_texts(captions: Path, n_train: int, folder: Path) -> None:
    """Write the captions of each split, one a line; none of the training split is held out."""
    seen: set[str] = set()
    for split in reversed(SPLITS):
        with gzip.open(captions / f"{NAMES[split]}.en.gz", "rt", encoding="utf-8") as file:
            lines = dict.fromkeys(line.strip() for line in file)
        own = [line for line in lines if line and line.casefold() not in seen]
        seen |= {line.casefold() for line in own}
        if split == "train":
            own = own[:n_train]
        (folder / f"{split}.txt").write_text("\n".join(own) + "\n", encoding="utf-8")


def write_task(folder: Path) -> Path:
    """Write the task file; return its path."""
    path = folder / "captions.yaml"
    content: dict[str, object] = {"name": "captions", "kind": "embeddings"}
    content |= {split: f"{split}.txt" for split in SPLITS} | {"sequence_length": LENGTH}
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def searched(arguments: argparse.Namespace, task: Path) -> Run:
    """The run in ``--work``, begun or resumed, with all of its trials."""
    folder = arguments.work / "run"
    if (folder / "run.json").is_file():
        return nas.resume(folder, workers=0)
    genes = {"name": "embeddings", **yaml.safe_load(arguments.genes)}
    space = arguments.work / "space.yaml"
    space.write_text(yaml.safe_dump(genes), encoding="utf-8")
    return nas.search(
        checkpoint=arguments.checkpoint,
        task=task,
        to=folder,
        cuts={
            "space": space,
            "trials": arguments.trials,
            "epochs": arguments.epochs,
            "finalists": arguments.finalists,
            "fields": {"meter": "estimate", "seed": 0},
        },
        workers=0,
    )


def chosen(run: Run, recall: float) -> FrontMember:
    """The member of fewest joules with this recall on validation texts, else the nearest to it."""
    members = [member for member in run.front() if not member.baseline]
    if not members:
        sys.exit("the front must have a member beside the checkpoint: raise --trials")
    able = [member for member in members if member.quality >= recall]
    if able:
        return min(able, key=lambda member: member.energy_j)
    return max(members, key=lambda member: member.quality)


def networks_of(run: Run, member: FrontMember) -> list[Shown]:
    """The checkpoint in each precision that is real here, and the chosen member."""
    parent = run.trial(0).architecture
    space: SearchSpace = run.config.space
    precisions = [p for p in space.values("ffn_precision") if p in ("fp32", "bf16", "int8")]
    network = load_network(run.teacher_folder).model
    shown = [
        Shown(f"the checkpoint, {name}", parent.in_precision(name), network)
        for name in sorted(precisions, key=lambda name: name != "fp32")
    ]
    architecture = run.trial(member.trial).architecture
    own = load_weights(build(architecture, run.workload), run.weights_path(member.trial)).eval()
    return [*shown, Shown(architecture.describe(), architecture, own)]


def energies_of(
    run: Run, networks: Sequence[Shown], work: Path, n_rounds: int
) -> list[VariantEnergy]:
    """Joules of the networks side by side, and their ratios to the first."""
    workload, protocol = run.workload, get_protocol(run.config.protocol)
    items = tuple(PlanItem(each.architecture, workload) for each in networks)
    rounds = Rounds((items,), n_rounds, plan_items(items, protocol=protocol, device="cpu"))
    rounds = replace(rounds, plan=replace(rounds.plan, reference=None))

    def job(item: PlanItem) -> dict[str, object]:
        return make_job(
            "serve",
            item.architecture,
            item.workload,
            protocol=protocol,
            meter="estimate",
            inputs=Path(str(run.inputs_path)),
        )

    path = work / "joules.jsonl"
    measure_rounds(rounds, path, job, "cpu", listener=Progress())
    return summarise(rounds, path)


def row_of(task: Embeddings, each: Shown, energy: VariantEnergy) -> dict[str, object]:
    """A row of the table; qualities in percent."""
    call = run_eagerly(compress(each.network, each.architecture)).call
    own = {s.metric: s for s in task.agreements(call, task.split("validation")).scores}["recall10"]
    of_test = {s.metric: s for s in task.agreements(call, task.split("test")).scores}
    test, order = of_test["recall10"], of_test["spearman"]
    ratio = energy.ratio
    return {
        "network": each.name,
        "recall": 100 * own.value,
        "recall_se": 100 * own.standard_error,
        "test": 100 * test.value,
        "test_se": 100 * test.standard_error,
        "spearman": 100 * order.value,
        "spearman_se": 100 * order.standard_error,
        "energy_mj": 1e3 * energy.energy.mean,
        "low_mj": 1e3 * energy.energy.low,
        "high_mj": 1e3 * energy.energy.high,
        "times": None if ratio is None else 1 / ratio.mean,
        "times_low": None if ratio is None else 1 / ratio.high,
        "times_high": None if ratio is None else 1 / ratio.low,
        "is_estimate": True,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Search, choose, measure, print the table, and keep it where that is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.compression.embeddings",
        description=__doc__.splitlines()[0],
    )
    add = parser.add_argument
    add("--from", dest="checkpoint", type=Path, required=True, help="folder of the checkpoint")
    add("--captions", type=Path, required=True, help="folder of Multi30k, with train.en.gz")
    add("--work", type=Path, required=True, help="folder of the search and the records")
    add("--texts", type=int, default=8000, help="training captions (default: %(default)s)")
    add("--trials", type=int, default=6, help="the checkpoint included (default: %(default)s)")
    add("--epochs", type=int, default=3, help="of finalists; others: a third (default: 3)")
    add("--finalists", type=int, default=2, help="(default: %(default)s)")
    add("--recall", type=float, default=0.9, help="on validation texts (default: %(default)s)")
    add("--rounds", type=int, default=3, help="of fresh processes (default: %(default)s)")
    add(
        "--genes",
        default="{attention_rank: [null], ffn_rank: [null]}",
        help="genes of the space to change, as YAML (default: %(default)s)",
    )
    add_keep_option(parser)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    sheet = Sheet(parser, arguments, f"embeddings-{arguments.checkpoint.name}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    write_texts(arguments.captions, arguments.texts, arguments.work)
    run = searched(arguments, write_task(arguments.work))
    member = chosen(run, arguments.recall)
    networks = networks_of(run, member)
    energies = energies_of(run, networks, arguments.work, arguments.rounds)
    task = get_task(run.config.task)
    assert isinstance(task, Embeddings)
    rows = [row_of(task, *pair) for pair in zip(networks, energies, strict=True)]
    sizes = ", ".join(f"{len(task.split(name)):,} {name}" for name in SPLITS)
    note = (
        f"{sizes} captions of at most {LENGTH} tokens, batches of {run.workload.batch_size}; the "
        f"last is trial {member.trial} of {len(run.records())}, chosen on validation texts"
    )
    sheet.show(Table.of("networks", COLUMNS, rows, note), note=instruction_sets())
    return 0


if __name__ == "__main__":
    sys.exit(main())
