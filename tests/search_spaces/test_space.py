import json

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.architecture import Compression
from search_spaces.architecture.stacks import DECODER, ENCODER
from search_spaces.space import SearchSpace
from search_spaces.space.domains import ALL_GENE_TYPES, GENE_TYPES, Choice
from search_spaces.space.encoding import decode, encode, from_vector, repair, to_vector
from search_spaces.space.presets import PRESETS, get_space
from search_spaces.space.sampling import (
    compression_variants,
    mutate,
    sample,
    smallest,
)

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def spaces(draw):
    """Small spaces with every kind of gene, some shared between layers and some not."""

    def some(values):
        return draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True))

    shared = set(draw(st.lists(st.sampled_from(ENCODER.layer_genes), unique=True)))
    if shared & {"n_heads", "n_kv_heads"}:
        shared |= {"n_heads", "n_kv_heads"}
    if draw(st.booleans()):
        return _with_decoder(draw, some, shared)
    return SearchSpace.from_dict(
        {
            "name": "drawn",
            "d_model": some([8, 12, 16, 40]),
            "depth": some([1, 2, 3]),
            "patch_size": some([1, 2, 4]),
            "resolution": some([None, 4, 8, 12]),
            "n_heads": [1, *some([2, 3, 4, 8])],
            "n_kv_heads": [1, *some([2, 3, 4])],
            "ffn_ratio": some([0.25, 0.5, 1, 2.5, 4]),
            "attention_rank": some([None, 0.1, 0.25, 0.9]),
            "ffn_rank": some([None, 0.25, 0.5]),
            "attention_precision": some(["fp32", "bf16", "int8"]),
            "ffn_precision": some(["fp32", "bf16", "fp8"]),
            "attention_sparsity": some(["dense", "2:4"]),
            "ffn_sparsity": some(["dense", "2:4"]),
            "shared": sorted(shared),
        }
    )


def _with_decoder(draw, some, shared):
    """Both stacks with domains of their own; blocks are never compressed there."""
    shared |= set(draw(st.lists(st.sampled_from(DECODER.layer_genes), unique=True)))
    for kind in DECODER.heads:
        if shared & {kind.n_heads, kind.n_kv_heads}:
            shared |= {kind.n_heads, kind.n_kv_heads}
    genes = {"n_heads": [1, *some([2, 3, 4])], "n_kv_heads": [1, *some([2, 4])]}
    for kind in DECODER.heads:
        genes |= {kind.n_heads: [1, *some([2, 3, 4])], kind.n_kv_heads: [1, *some([2, 4])]}
    for block in (*ENCODER.blocks, *DECODER.blocks):
        genes[f"{block}_rank"] = some([None, 0.1, 0.25, 0.9])
    return SearchSpace.from_dict(
        {
            "name": "drawn",
            "d_model": some([8, 12, 16, 40]),
            "decoder_d_model": some([8, 12, 24]),
            "depth": some([1, 2, 3]),
            "decoder_depth": some([1, 2]),
            "ffn_ratio": some([0.25, 0.5, 1, 2.5, 4]),
            "decoder_ffn_ratio": some([0.25, 1, 3]),
            **genes,
            "shared": sorted(shared),
        }
    )


@given(spaces(), SEEDS)
def test_samples_are_members_and_encoding_is_the_identity(space, seed):
    architecture = sample(space, np.random.default_rng(seed))
    assert space.contains(architecture)
    assert decode(encode(architecture, space), space) == architecture
    assert from_vector(to_vector(architecture, space), space) == architecture


@given(spaces(), SEEDS)
def test_one_model_has_one_hash(space, seed):
    rng = np.random.default_rng(seed)
    first, second = sample(space, rng), sample(space, rng)
    again = type(first).from_dict(json.loads(json.dumps(first.to_dict())))
    assert again == first and again.hash == first.hash
    assert (first == second) == (first.hash == second.hash)


@given(spaces(), SEEDS)
def test_mutants_stay_inside(space, seed):
    rng = np.random.default_rng(seed)
    assert space.contains(mutate(sample(space, rng), space, rng))
    assert space.contains(smallest(space))


@given(spaces(), SEEDS)
def test_any_proposal_is_repaired_to_a_member(space, seed):
    rng = np.random.default_rng(seed)
    genes = {n: d.values[int(rng.integers(len(d)))] for n, d in space.genes().items()}
    mended = repair(genes, space)
    assert space.contains(decode(mended, space))
    changed = {name for name in genes if genes[name] != mended[name]}
    assert all("heads" in name for name in changed)
    assert repair(mended, space) == mended


@given(spaces())
def test_json_and_yaml_round_trips(tmp_path_factory, space):
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == space
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(yaml.safe_dump(space.to_dict()))
    assert SearchSpace.from_yaml(path) == space


def test_a_mutant_differs_from_its_parent():
    space, rng = PRESETS["digits-tiny"], np.random.default_rng(0)
    for _ in range(200):
        parent = sample(space, rng)
        assert mutate(parent, space, rng) != parent


def test_a_space_of_one_member_does_not_loop():
    space = SearchSpace.from_dict(
        {
            "name": "one",
            "d_model": [8],
            "depth": [1],
            "n_heads": [2],
            "n_kv_heads": [1],
            "ffn_ratio": [1],
        }
    )
    only = sample(space, np.random.default_rng(0))
    assert mutate(only, space, np.random.default_rng(0)) == only
    assert space.size() == 1


@settings(max_examples=4, deadline=None)
@given(SEEDS)
def test_size_counts_the_combinations(seed):
    rng = np.random.default_rng(seed)
    space = SearchSpace.from_dict(
        {
            "name": "small",
            "d_model": [6, 8],
            "depth": [1, 2],
            "n_heads": [1, 2, 3, 4],
            "n_kv_heads": [1, 2],
            "ffn_ratio": [1, 2],
            "shared": ["ffn_ratio"] if rng.random() < 0.5 else [],
        }
    )
    members = {sample(space, rng).hash for _ in range(4000)}
    assert len(members) == space.size()


def test_a_sparsity_without_a_kernel_in_a_precision_is_read_as_dense_where_dense_is_offered():
    data = PRESETS["encoder-base"].to_dict() | {"shared": ["attention_sparsity", "ffn_sparsity"]}
    space = SearchSpace.from_dict(data)
    rng = np.random.default_rng(0)
    sparse = 0
    for _ in range(200):
        architecture = sample(space, rng)
        for block in architecture.blocks:
            if block.compression.sparsity == "2:4":
                sparse += 1
                assert block.compression.precision == "bf16"
        assert decode(encode(architecture, space), space) == architecture
        assert space.contains(mutate(architecture, space, rng))
    assert sparse > 50
    # Asked for alone it is what was asked for: simulated, but not another model.
    only = SearchSpace.from_dict(data | {"ffn_sparsity": ["2:4"], "ffn_precision": ["fp32"]})
    blocks = [layer.ffn.compression for layer in sample(only, rng).layers]
    assert {(c.precision, c.sparsity) for c in blocks} == {("fp32", "2:4")}
    with pytest.raises(
        ValueError, match="ffn_sparsity must offer dense with ffn_precision int4wo"
    ):
        SearchSpace.from_dict(data | {"ffn_sparsity": ["2:4"], "ffn_precision": ["int4wo"]})


def test_no_preset_offers_a_mask_that_no_kernel_skips():
    for space in PRESETS.values():
        for gene in ("attention_sparsity", "ffn_sparsity"):
            assert set(space.values(gene)) <= {"dense", "2:4"}


def test_restricting_keeps_what_is_real_and_refuses_an_empty_space():
    space = PRESETS["digits-tiny"].restrict(precisions=("fp32", "int8"), sparsities=("dense",))
    assert space.values("ffn_precision") == ("fp32", "int8")
    assert space.values("attention_sparsity") == ("dense",)
    only_fp8 = SearchSpace.from_dict(space.to_dict() | {"ffn_precision": ["fp8"]})
    with pytest.raises(ValueError, match="ffn_precision must offer one of fp32"):
        only_fp8.restrict(precisions=("fp32",))


GOOD = {
    "name": "x",
    "d_model": [8],
    "depth": [1],
    "n_heads": [2],
    "n_kv_heads": [1],
    "ffn_ratio": [1],
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"d_model": [0]}, ["d_model", "0", ">= 1"]),
        ({"d_model": []}, ["d_model", "one or more"]),
        ({"d_model": [8, 8]}, ["d_model", "8", "twice"]),
        ({"d_model": 8}, ["d_model", "list", "8"]),
        ({"d_model": [9]}, ["d_model 9", "n_heads"]),
        ({"d_modell": [8]}, ["d_modell", "did you mean 'd_model'"]),
        ({"ffn_precision": ["fp4"]}, ["ffn_precision", "fp4", "bf16"]),
        ({"ffn_rank": [2]}, ["ffn_rank", "2", "fractions"]),
        ({"ffn_sparsity": ["4:8"]}, ["ffn_sparsity", "4:8", "2:4"]),
        ({"depth": {"low": 3, "high": 1}}, ["depth", "low <= high"]),
        ({"depth": {"lo": 1}}, ["depth", "low, high, step"]),
        ({"depth": [9999]}, ["depth", "9999"]),
        ({"shared": ["d_model"]}, ["shared", "d_model"]),
        ({"shared": ["n_heads"]}, ["n_heads and n_kv_heads"]),
        ({"shared": 3}, ["shared", "3"]),
        ({"name": ""}, ["name"]),
    ],
)
def test_a_wrong_space_file_gets_one_line_that_names_it(tmp_path, change, words):
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(GOOD | change))
    with pytest.raises(ValueError) as error:
        get_space(str(path))
    message = str(error.value)
    assert all(word in message for word in [str(path), *words]) and "\n" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("d_model: [1, 2", ["YAML", "line"]),
        ("d_model: [8]\nd_model: [16]", ["d_model", "twice", "line 2"]),
        ("- 1", ["mapping"]),
        ("", ["mapping"]),
        ("!!python/object/apply:os.system ['true']", ["YAML"]),
        ("name: x\ndepth: [1]", ["lacks d_model"]),
        ("{1: 2, [1]: 2}", ["YAML"]),
    ],
)
def test_a_file_that_is_no_space_is_refused(tmp_path, text, words):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        get_space(str(path))
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_missing_and_unknown_spaces():
    with pytest.raises(ValueError, match="must be readable"):
        get_space("nowhere.yaml")
    with pytest.raises(ValueError, match="did you mean 'digits-tiny'"):
        get_space("digits-tin")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_members(name):
    space = PRESETS[name]
    rng = np.random.default_rng(0)
    assert all(space.contains(sample(space, rng)) for _ in range(20))
    assert set(space.domains) == set(ALL_GENE_TYPES if space.has_decoder else GENE_TYPES)


def test_a_range_is_whole_numbers_with_its_ends():
    space = SearchSpace.from_dict(GOOD | {"depth": {"low": 2, "high": 8, "step": 3}})
    assert space.values("depth") == (2, 5, 8)
    assert Choice((1, 2)).index_of(2) == 1
    with pytest.raises(ValueError, match="one of 1, 2"):
        Choice((1, 2)).index_of(3)


def test_compression_variants_differ_in_compression_alone():
    space = PRESETS["digits-tiny"]
    rng = np.random.default_rng(4)
    for _ in range(50):
        architecture = sample(space, rng)
        variants = compression_variants(architecture, space)
        assert architecture not in variants and len(set(variants)) == len(variants)
        for variant in variants:
            assert space.contains(variant)
            assert (variant.d_model, variant.depth) == (architecture.d_model, architecture.depth)
            for mine, other in zip(architecture.layers, variant.layers, strict=True):
                assert mine.attention.n_heads == other.attention.n_heads
                assert mine.ffn.d_ff == other.ffn.d_ff
        plain = [
            v
            for v in variants
            if v.stream_precision == "fp32"
            and not any(b.rank or b.compression != Compression() for b in v.blocks)
        ]
        is_plain = not any(b.rank or b.compression != Compression() for b in architecture.blocks)
        assert len(plain) == (0 if is_plain else 1)
