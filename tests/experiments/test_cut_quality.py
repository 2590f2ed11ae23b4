"""The benchmark of cuts before any recovery."""

import pytest
import torch

from experiments.benchmarks.compression import cut_quality
from experiments.benchmarks.compression.cut_quality import Parent, even, main, narrower, ranked
from experiments.benchmarks.training.distillation import shape
from nas.tasks.registry import get_task
from search_spaces.compression.prune import largest_indices
from search_spaces.models.build import build


@pytest.fixture
def parent(monkeypatch):
    """A network that is not trained: every way has some quality of it."""
    monkeypatch.setattr(cut_quality, "find_spec", lambda name: None)
    task = get_task("digits")
    workload, architecture = task.workload(128), shape(16, 2, 2, 32, 4)
    made = Parent(build(architecture, workload, generator_seed=0), architecture, task, workload)
    monkeypatch.setattr(cut_quality, "digits_parent", lambda: made)
    return made


def test_every_way_has_a_quality_at_every_cut(parent):
    whole, tables = cut_quality.qualities_of(parent, lambda line: None)
    assert 0 <= whole <= 1 and list(tables) == ["heads and channels", "layers", "ranks"]
    for by_way in tables.values():
        assert next(iter(by_way)) == "ours" and len(by_way) >= 2
        sizes = {tuple(qualities) for qualities in by_way.values()}
        assert len(sizes) == 1 and all(0 <= q <= 100 for x in by_way.values() for q in x.values())
    assert set(tables["layers"]) == {"ours", "block influence", "even", "first"}


def test_the_command_prints_a_table_for_each_kind_of_cut(parent, capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.count("chosen by") == 3 and "Torch-Pruning is not installed" in out
    with pytest.raises(SystemExit):
        main(["--task", "x.yaml"])


def test_cuts_lose_whole_groups_of_heads_and_even_ones_leave_no_gap():
    of = shape(48, 4, 4, 192)
    assert narrower(of, 0.5).describe() == "d48 L4 h2/2 ff96 fp32"
    assert ranked(of, 0.25).layers[0].attention.rank == 12
    channels = even(of).channels[0]
    kept = largest_indices(channels, 96)
    assert len(channels) == 192 and int(torch.diff(kept).max()) <= 4
