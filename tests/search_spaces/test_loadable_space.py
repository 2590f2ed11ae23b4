"""Spaces with ``loadable``: every way to draw, change and decode members stays inside."""

from dataclasses import replace

import numpy as np
import pytest
from loadable_fakes import HELD, loadable, mixed
from style_fakes import LM, TEXT

from search_spaces.architecture import STYLES
from search_spaces.pretrained.writing.stock import stock_refusals
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import decode, encode, from_vector, repair
from search_spaces.space.positions import repaired
from search_spaces.space.presets import PRESETS
from search_spaces.space.sampling import (
    compression_variants,
    largest,
    mutate,
    sample,
    sample_positions,
    smallest,
)

WORKLOADS = [workload for workload, names in HELD.items() if names]


def test_a_space_keeps_what_stock_classes_have():
    space = mixed(LM, "gpt2", "llama", loadable="transformers")
    assert space.values("attention_precision") == space.values("ffn_precision") == ("bf16", "fp32")
    assert space.values("ffn_rank") == (None,) and space.values("ffn_sparsity") == ("dense",)
    assert {"n_heads", "ffn_ratio", "ffn_precision"} <= space.shared
    assert SearchSpace.from_dict(space.to_dict()) == space
    plain = mixed(LM, "gpt2", "llama")
    assert replace(plain, loadable="transformers") == space != plain
    assert "loadable" not in plain.to_dict() and space.to_dict()["loadable"] == "transformers"
    assert replace(space, name="other").restrict(precisions=("fp32",)).loadable == "transformers"


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.kind)
def test_whatever_is_drawn_or_changed_is_a_member(workload):
    space, rng = loadable(workload), np.random.default_rng(0)
    members = [smallest(space), largest(space), *(sample(space, rng) for _ in range(200))]
    members += [mutate(member, space, rng) for member in members]
    members += [v for member in members[:20] for v in compression_variants(member, space)]
    for member in members:
        assert stock_refusals(member, workload) == ()
        assert decode(encode(member, space), space) == member
    assert {member.style for member in members} == {STYLES[name] for name in HELD[workload]}
    precisions = {member.blocks[0].compression.precision for member in members}
    assert precisions == {"fp32", "bf16"}


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.kind)
def test_any_row_of_a_sampler_is_repaired_to_a_member(workload):
    """Crossover joins genes of two members anyhow."""
    space, rng = loadable(workload), np.random.default_rng(0)
    sizes = [len(domain) for domain in space.genes().values()]
    rows = np.stack([rng.integers(size, size=500) for size in sizes], 1)
    names, domains = list(space.genes()), list(space.genes().values())
    members = []
    for row, fixed in zip(rows, repaired(rows, space), strict=True):
        genes = {n: d.values[i] for n, d, i in zip(names, domains, row, strict=True)}
        mended = repair(genes, space)
        assert [d.index_of(mended[n]) for n, d in space.genes().items()] == fixed.tolist()
        members.append(from_vector(fixed, space))
        assert stock_refusals(members[-1], workload) == ()
    batch = ArchitectureBatch.from_positions(repaired(rows, space), space)
    check_same(batch, ArchitectureBatch.of(members))


def test_a_batch_of_positions_is_that_of_the_members():
    space = loadable(LM)
    rows = sample_positions(space, 300, np.random.default_rng(0))
    # One row for each member, as a gate's pool must have.
    distinct = np.unique(rows, axis=0)
    assert len({from_vector(row, space).hash for row in distinct}) == len(distinct)
    batch = ArchitectureBatch.from_positions(rows, space)
    check_same(batch, ArchitectureBatch.of([from_vector(row, space) for row in rows]))


def check_same(batch, other):
    """Equal blocks of the layers that exist."""
    for block in ("attention", "ffn"):
        ours, theirs = getattr(batch, block), getattr(other, block)
        for name in vars(ours):
            values, expected = getattr(ours, name), getattr(theirs, name)
            depth = expected.shape[1]
            assert np.array_equal(
                np.where(batch.active, values, 0)[:, :depth], np.where(other.active, expected, 0)
            ), name


def test_what_no_class_has_is_no_member():
    space, rng = loadable(TEXT), np.random.default_rng(0)
    of = mixed(TEXT, "bert")
    drawn = [sample(of, rng) for _ in range(300)]
    for architecture in drawn:
        if stock_refusals(architecture, TEXT):
            assert not space.contains(architecture)
    assert sum(map(space.contains, drawn)) < 10


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loadable": "vllm"}, "loadable must be transformers or left out, got 'vllm'"),
        ({"loadable": True}, "loadable must be transformers or left out, got True"),
        ({"ffn_rank": [0.25]}, "ffn_rank must offer null in a space with loadable, got [0.25]"),
        ({"ffn_sparsity": ["2:4"]}, "ffn_sparsity must offer dense in a space with loadable"),
        ({"ffn_precision": ["int8"]}, "attention_precision must offer fp32 or bf16, the same"),
        (
            {"n_kv_heads": [1]},
            "n_kv_heads must offer every value of n_heads with loadable and blocks gpt2, whose "
            "classes have as many of both; it lacks [2, 4]",
        ),
    ],
)
def test_errors_are_one_line_with_the_gene(changes, words):
    with pytest.raises(ValueError) as error:
        mixed(LM, "gpt2", "llama", **{"loadable": "transformers"} | changes)
    assert str(error.value).startswith(words) and "\n" not in str(error.value)


def test_decoders_and_other_families_have_no_class():
    with pytest.raises(ValueError, match="loadable must be left out of a space with decoder_dep"):
        replace(PRESETS["translation-base"], loadable="transformers")
