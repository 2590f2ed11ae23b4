import json

import pytest

from search_spaces.architecture import Architecture, AttentionSpec, Compression, FfnSpec, LayerSpec
from search_spaces.workload import Workload


def make(d_model=32, depth=2, rank=None, precision="fp32", patch_size=2):
    compression = Compression(precision)
    layer = LayerSpec(
        AttentionSpec(4, 2, d_model // 4, rank, compression),
        FfnSpec(2 * d_model, rank, compression),
    )
    return Architecture(d_model, (layer,) * depth, patch_size)


def test_json_round_trip_keeps_the_hash():
    architecture = make(rank=4, precision="bf16")
    again = Architecture.from_dict(json.loads(json.dumps(architecture.to_dict())))
    assert again == architecture
    assert again.hash == architecture.hash


def test_hashes_of_stored_architectures_stay_as_they_are():
    layer = LayerSpec(
        AttentionSpec(4, 2, 16, 8, Compression("bf16", "2:4")),
        FfnSpec(128, None, Compression("int8")),
    )
    # Records and runs on disk name their models by it.
    assert Architecture(64, (layer, layer), 2).hash == "4a110d9965befd82"


def test_a_rank_that_saves_nothing_is_normalised_away():
    assert make(rank=32).hash == make(rank=None).hash
    assert make(rank=4).hash != make(rank=None).hash


def test_hash_differs_by_every_field():
    base = make()
    others = [make(d_model=64), make(depth=3), make(precision="int8"), make(patch_size=4)]
    assert len({base.hash, *(other.hash for other in others)}) == 5


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: AttentionSpec(4, 3, 8), ["n_kv_heads", "3", "n_heads=4"]),
        (lambda: Compression("fp7"), ["precision", "fp7", "bf16"]),
        (lambda: Compression("fp32", "1:2"), ["sparsity", "1:2", "2:4"]),
        (lambda: FfnSpec(0), ["d_ff", "0"]),
        (lambda: Architecture(8, ()), ["layers"]),
    ],
)
def test_a_wrong_field_is_named_with_its_value(build, words):
    with pytest.raises(ValueError) as error:
        build()
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", [{"extra": 1}, {"schema": 99}, {"layers": "x"}])
def test_from_dict_refuses_what_to_dict_never_writes(change):
    with pytest.raises(ValueError):
        Architecture.from_dict(make().to_dict() | change)


def test_stream_is_bf16_only_when_no_block_asks_for_more():
    assert make(precision="bf16").stream_precision == "bf16"
    assert make(precision="int8").stream_precision == "fp32"


def test_workload_counts_tokens_and_refuses_a_patch_that_does_not_fit():
    digits = Workload("digits", "image_classification", (1, 8, 8), 10, 128)
    assert digits.n_tokens(make(patch_size=2)) == 16
    with pytest.raises(ValueError, match="patch_size"):
        digits.n_tokens(make(patch_size=3))
    assert Workload.from_dict(json.loads(json.dumps(digits.to_dict()))) == digits
