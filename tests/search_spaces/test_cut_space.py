"""Spaces of a parent's cuts: members, head sizes, genes that a user changes."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.architecture.style import STYLES
from search_spaces.pretrained.writing.stock import stock_refusals
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.cuts import (
    cuts_of,
    in_precisions,
    is_uncut,
    with_genes,
    with_plain_parent,
)
from search_spaces.space.encoding import decode, encode, from_vector
from search_spaces.space.positions import repaired
from search_spaces.space.sampling import largest, mutate, sample, sample_positions, smallest
from search_spaces.workload import Workload

TEXT = Workload("reviews", "text_classification", (64,), 2, 32, vocab_size=100)
LANGUAGE = Workload("tale", "language_modelling", (64,), 100, 8, vocab_size=100)
IMAGES = Workload("shapes", "image_classification", (3, 32, 32), 4, 8)


def parent(
    heads=12, kv_heads=12, d_head=32, d_model=384, d_ff=1536, depth=6, style="bert", **rest
):
    layer = LayerSpec(AttentionSpec(heads, kv_heads, d_head), FfnSpec(d_ff))
    return Architecture(d_model, (layer,) * depth, style=STYLES[style], **rest)


def stock(workload):
    return partial(stock_refusals, workload=workload)


GROUPED = parent(9, 3, 64, 576, 1536, 30, "llama")


@pytest.mark.parametrize(
    ("of", "workload"),
    [
        (parent(), TEXT),
        (GROUPED, LANGUAGE),
        (parent(4, 4, 6, 24, 40, 3), TEXT),
        (parent(style="vit", patch_size=4), IMAGES),
        # A head size that is not the width divided by the heads.
        (replace(parent(6, 6, 16, 384)), TEXT),
    ],
)
def test_members_are_cuts_of_the_parent_and_encode_to_themselves(of, workload):
    space, rng = cuts_of(of, workload), np.random.default_rng(0)
    attention, ffn = of.layers[0].attention, of.layers[0].ffn
    assert space.contains(of) and largest(space) == of
    assert SearchSpace.from_dict(space.to_dict()) == space
    for _ in range(50):
        member = sample(space, rng)
        assert decode(encode(member, space), space) == member
        assert space.contains(mutate(member, space, rng))
        assert member.d_model == of.d_model and member.style == of.style
        assert member.depth <= of.depth
        for layer in member.layers:
            own = layer.attention
            assert own.d_head == attention.d_head and layer.ffn.d_ff <= ffn.d_ff
            assert own.n_heads <= attention.n_heads and own.n_kv_heads <= attention.n_kv_heads
            group = attention.n_heads // attention.n_kv_heads
            assert own.n_heads // own.n_kv_heads <= group
    assert smallest(space).depth < of.depth
    workload.check_fits(smallest(space))


def test_rows_of_positions_have_the_parents_head_size():
    space = cuts_of(GROUPED, LANGUAGE)
    positions = repaired(sample_positions(space, 60, np.random.default_rng(1)), space)
    batch = ArchitectureBatch.from_positions(positions, space)
    same = ArchitectureBatch.of([from_vector(row, space) for row in positions])
    assert (batch.attention.d_head[batch.active] == 64).all()
    depth = same.attention.d_head.shape[1]
    for name in ("n_heads", "n_kv_heads", "d_head"):
        ours, theirs = getattr(batch.attention, name), getattr(same.attention, name)
        assert np.array_equal(ours[:, :depth], theirs)
    assert batch.styles == (GROUPED.style,)


def test_widths_are_in_steps_and_language_models_read_whole_samples():
    space = cuts_of(parent(), TEXT)
    widths = [round(ratio * 384) for ratio in space.values("ffn_ratio")]
    assert widths == [1536, 1152, 768, 576, 384] and not any(w % 64 for w in widths)
    assert space.values("resolution") == (None, 48, 32)
    assert space.values("n_heads") == (12, 9, 6, 3) == space.values("n_kv_heads")
    language = cuts_of(GROUPED, LANGUAGE)
    assert language.values("resolution") == (None,)
    assert language.values("n_heads") == (9, 6, 3) and language.values("n_kv_heads") == (3, 2, 1)
    assert len(language.values("depth")) == 8 and 30 in language.values("depth")
    images = cuts_of(parent(style="vit", patch_size=4), IMAGES)
    assert images.values("resolution") == (None, 24, 16)


def test_a_loadable_space_has_what_the_stock_class_builds():
    space = cuts_of(parent(), TEXT, refusals=stock(TEXT))
    # BERT's class divides the width by the heads, so their number stays.
    assert space.values("n_heads") == (12,) and space.values("resolution") == (None,)
    assert len(space.values("ffn_ratio")) > 1 and len(space.values("depth")) > 1
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert len(set(sample(space, rng).layers)) == 1
    llama = cuts_of(GROUPED, LANGUAGE, refusals=stock(LANGUAGE))
    assert llama.values("n_heads") == (9, 6, 3)
    mean = replace(parent(), style=replace(STYLES["bert"], pooling="mean"))
    with pytest.raises(ValueError, match="loadable must be left out for this checkpoint"):
        cuts_of(mean, TEXT, refusals=stock(TEXT))


def test_a_file_narrows_and_widens_genes_and_the_parent_stays_a_member():
    space = cuts_of(parent(), TEXT)
    own = with_genes(space, {"depth": [2, 3], "ffn_ratio": [0.5, 1], "ffn_rank": [0.125]})
    assert own.values("depth") == (2, 3) and own.values("ffn_ratio") == (0.5, 1)
    assert not own.contains(parent())
    whole = with_plain_parent(own)
    assert whole.contains(parent()) and whole.values("depth") == (6, 2, 3)
    assert whole.values("ffn_rank") == (None, 0.125)
    assert with_plain_parent(space) == space


def test_the_parent_in_each_precision_of_a_space_is_uncut():
    space = with_genes(
        cuts_of(parent(), TEXT),
        {"attention_precision": ["fp32", "int8"], "ffn_precision": ["fp32", "bf16", "int8"]},
    )
    # No member has its attention in bf16.
    assert in_precisions(space) == (parent().in_precision("int8"),)
    assert is_uncut(parent().in_precision("int8"), parent())
    mixed = replace(parent(), layers=(*parent().layers[:5], in_precisions(space)[0].layers[5]))
    assert is_uncut(mixed, parent()) and not is_uncut(parent(heads=6, kv_heads=6), parent())
    assert not is_uncut(parent(depth=5).in_precision("int8"), parent())


@pytest.mark.parametrize(
    ("genes", "said"),
    [
        ({"depth": [7]}, r"depth must be at most 6 \(the parent's\), got \[7\]"),
        ({"d_model": [256]}, r"d_model must be \[384\] in a space with a parent"),
        ({"ffn_ratio": [5]}, "ffn_ratio must be at most 4"),
        ({"n_heads": [13]}, "n_heads must be at most 12"),
        ({"n_heads": [8], "n_kv_heads": [3]}, "n_heads must be at most 12 and a multiple of n_kv"),
        ({"blocks": ["llama"]}, "blocks must be left out"),
        ({"widths": [1]}, "unknown key 'widths'"),
        ({"patch_size": [2]}, r"patch_size must be \[1\]"),
    ],
)
def test_genes_that_no_cut_has_are_one_line(genes, said):
    with pytest.raises(ValueError, match=said) as caught:
        with_genes(cuts_of(parent(), TEXT), genes)
    assert "\n" not in str(caught.value)


def test_a_parent_must_be_of_layers_alike():
    layers = (*parent().layers, LayerSpec(AttentionSpec(6, 6, 32), FfnSpec(1536)))
    with pytest.raises(ValueError, match="layers of one shape"):
        cuts_of(replace(parent(), layers=layers), TEXT)
