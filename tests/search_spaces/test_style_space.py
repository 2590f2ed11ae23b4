"""Block styles as a gene: named, sampled, encoded, mutated, counted at once, and refused."""

from dataclasses import replace

import numpy as np
import pytest
from style_fakes import IMAGE, LM, SEGMENT, TEXT

from nas.searching.fitting import check_fits
from search_spaces.architecture import STYLES
from search_spaces.cost.counting import count, count_batch
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import decode, encode, from_vector, repair, to_vector
from search_spaces.space.positions import is_active, repaired
from search_spaces.space.sampling import largest, mutate, sample, sample_positions, smallest

DATA = {
    "name": "styles",
    "d_model": [12, 16, 32],
    "depth": [1, 2],
    "n_heads": [1, 2, 4],
    "n_kv_heads": [1, 2, 4],
    "ffn_ratio": [1, 2],
    "ffn_rank": [None, 0.25],
}
SPACE = SearchSpace.from_dict(DATA | {"blocks": ["default", "llama", "qwen3"]})
PLAIN = SearchSpace.from_dict(DATA)


def test_a_space_without_blocks_is_as_it_was():
    assert "blocks" not in PLAIN.genes() and "blocks" not in PLAIN.to_dict()
    assert SearchSpace.from_dict(DATA | {"blocks": ["default"]}) == PLAIN
    assert SPACE.size() < 3 * PLAIN.size()


def test_one_name_is_a_list_of_one():
    one = SearchSpace.from_dict(DATA | {"blocks": "llama"})
    assert one.values("blocks") == ("llama",) and one.to_dict()["blocks"] == ["llama"]
    assert SearchSpace.from_dict(one.to_dict()) == one and one != PLAIN
    assert sample(one, np.random.default_rng(0)).style == STYLES["llama"]


def test_members_of_every_style_are_drawn_and_read_back():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(60):
        member = sample(SPACE, rng)
        seen.add(member.style)
        assert decode(encode(member, SPACE), SPACE) == member
        assert from_vector(to_vector(member, SPACE), SPACE) == member
        # Pairs of features are rotated: heads are even in the whole space.
        assert all(layer.attention.d_head % 2 == 0 for layer in member.layers)
    assert seen == {STYLES[name] for name in ("default", "llama", "qwen3")}
    assert not SPACE.contains(replace(member, style=STYLES["gpt2"]))
    with pytest.raises(ValueError, match="blocks must be one of default, llama, qwen3, got gpt2"):
        encode(replace(member, style=STYLES["gpt2"]), SPACE)


def test_rows_of_positions_are_the_members_that_they_decode_to():
    rng = np.random.default_rng(1)
    rows = sample_positions(SPACE, 40, rng)
    assert np.array_equal(repaired(rows, SPACE), rows) and is_active(rows, SPACE)[:, :4].all()
    members = [from_vector(row, SPACE) for row in rows]
    counts = count_batch(ArchitectureBatch.from_positions(rows, SPACE), LM)
    for field in ("params", "macs", "weight_bytes", "n_kernels"):
        assert counts.total(field) == pytest.approx(
            [getattr(count(m, LM), field) for m in members]
        )


def test_odd_heads_are_repaired_and_refused():
    genes = encode(smallest(SPACE), SPACE) | {"d_model": 12, "layer0.n_heads": 4}
    with pytest.raises(ValueError, match="d_head must be even"):
        decode(genes | {"blocks": "llama"}, SPACE)
    mended = repair(genes, SPACE)
    assert mended["layer0.n_heads"] == 2
    names = list(SPACE.genes())
    row = np.array([[SPACE.genes()[name].index_of(genes[name]) for name in names]])
    with pytest.raises(ValueError, match="n_heads must divide d_model"):
        ArchitectureBatch.from_positions(row, SPACE)
    fixed = repaired(row, SPACE)
    assert SPACE.genes()["layer0.n_heads"].values[fixed[0, names.index("layer0.n_heads")]] == 2


def test_a_mutation_may_change_the_style_alone():
    parent, rng = smallest(SPACE), np.random.default_rng(0)
    children = [mutate(parent, SPACE, rng) for _ in range(80)]
    assert all(SPACE.contains(child) for child in children)
    assert any(replace(child, style=parent.style) == parent for child in children)
    assert {largest(SPACE).style, smallest(SPACE).style} == {STYLES["default"]}


@pytest.mark.parametrize(
    "blocks, message",
    [
        (["lama"], "blocks must be among default, bert, vit, gpt2, llama, .*, got 'lama'"),
        ([{"norm": {}}], "blocks must be among default, .* got {'norm': {}}"),
        ([], "blocks: a domain must hold one or more values"),
        (5, "blocks must be a list of among"),
    ],
)
def test_wrong_blocks_are_refused(blocks, message):
    with pytest.raises(ValueError, match=message):
        SearchSpace.from_dict(DATA | {"blocks": blocks})


def test_widths_without_even_heads_are_refused():
    with pytest.raises(ValueError, match="with an even quotient for rotary blocks"):
        SearchSpace.from_dict(DATA | {"d_model": [10], "n_heads": [2], "blocks": "llama"})


def test_another_family_has_no_blocks():
    data = {"name": "m", "family": "mixer", "d_model": [8], "depth": [1], "blocks": ["llama"]}
    with pytest.raises(ValueError, match="blocks must be .'default'. for family mixer, got .'lla"):
        SearchSpace.from_dict(data)


@pytest.mark.parametrize(
    "blocks, workload, message",
    [
        ("vit", TEXT, "style.n_prefix_tokens must be 0 for text_classification"),
        ("bert", IMAGE, "style.n_token_types must be 0 for image_classification"),
        ("bert", SEGMENT, "style.n_token_types must be 0 for image_segmentation"),
    ],
)
def test_a_style_that_cannot_read_the_task_is_refused_before_a_search(blocks, workload, message):
    patches = [2] if workload.is_image else [1]
    space = SearchSpace.from_dict(DATA | {"blocks": ["default", blocks], "patch_size": patches})
    with pytest.raises(ValueError, match=message) as caught:
        check_fits(space, workload)
    assert "\n" not in str(caught.value)
