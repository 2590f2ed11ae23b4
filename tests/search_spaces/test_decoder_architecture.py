import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    DecoderLayerSpec,
    DecoderSpec,
    FfnSpec,
    LayerSpec,
)
from search_spaces.cost.counting import count
from search_spaces.space import SearchSpace
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.space.encoding import encode
from search_spaces.space.presets import PRESETS
from search_spaces.space.sampling import sample
from search_spaces.workload import Workload

ENCODER = Architecture(32, (LayerSpec(AttentionSpec(4, 2, 8), FfnSpec(64)),) * 3)


def make(d_model=48, depth=1, cross_rank=None, precision="fp32"):
    layer = DecoderLayerSpec(
        AttentionSpec(4, 4, d_model // 4),
        AttentionSpec(2, 1, d_model // 2, cross_rank, Compression(precision)),
        FfnSpec(d_model),
    )
    return replace(ENCODER, decoder=DecoderSpec(d_model, (layer,) * depth))


def test_json_round_trip_keeps_a_decoder_and_the_hash():
    architecture = make(cross_rank=8, precision="bf16")
    again = Architecture.from_dict(json.loads(json.dumps(architecture.to_dict())))
    assert again == architecture
    assert again.hash == architecture.hash


def test_every_part_of_a_decoder_is_in_the_hash():
    made = [ENCODER, make(), make(64), make(depth=2), make(cross_rank=4), make(precision="bf16")]
    assert len({architecture.hash for architecture in made}) == len(made)


def test_without_a_decoder_nothing_of_one_is_written():
    assert "decoder" not in ENCODER.to_dict()


def test_keys_and_values_of_cross_attention_are_made_of_the_encoders_width():
    places = {placed.path: placed for placed in make().placed_blocks}
    shapes = places["decoder.layers.0.cross_attention"].shapes
    assert shapes == {"q": (48, 48), "k": (32, 24), "v": (32, 24), "o": (48, 48)}
    assert places["decoder.layers.0.attention"].shapes["k"] == (48, 48)
    assert list(places)[:2] == ["layers.0.attention", "layers.0.ffn"]
    assert len(places) == 3 * 2 + 3


def test_a_rank_that_saves_nothing_for_either_width_is_normalised_away():
    # 24 x (48 + 48) weights would not be fewer than 48 x 48, nor those of keys and values.
    assert make(cross_rank=24).hash == make().hash
    assert make(cross_rank=23).hash != make().hash


def test_the_stream_is_narrow_only_where_the_decoder_is_too():
    bf16 = Compression("bf16")
    layer = LayerSpec(AttentionSpec(4, 2, 8, None, bf16), FfnSpec(64, None, bf16))
    narrow = Architecture(32, (layer,))
    assert narrow.stream_precision == "bf16"
    assert replace(narrow, decoder=make().decoder).stream_precision == "fp32"


def test_one_line_describes_both_sides():
    assert make(depth=2).describe() == "d32 L3 h4/2 ff64 + d48 L2 h4/4 ff48 x2/1 fp32"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["decoder"].update(layers=[]), ["decoder.layers"]),
        (lambda d: d["decoder"].update(d_model=0), ["decoder.d_model", "0"]),
        (lambda d: d["decoder"].update(width=1), ["architecture.decoder", "width"]),
        (
            lambda d: d["decoder"]["layers"][0].pop("cross_attention"),
            ["architecture.decoder.layers[0]", "cross_attention"],
        ),
    ],
)
def test_a_wrong_decoder_is_named(change, words):
    data = make().to_dict()
    change(data)
    with pytest.raises(ValueError) as error:
        Architecture.from_dict(data)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_models_without_a_decoder_keep_the_hashes_they_always_had():
    rng = np.random.default_rng(5)
    found = {
        name: hashlib.sha256(
            "".join(sample(PRESETS[name], rng).hash for _ in range(60)).encode()
        ).hexdigest()[:12]
        for name in ("digits-tiny", "vision-base", "encoder-base", "decoder-base")
    }
    # Of the version before there were decoders: searches and records go on.
    assert found == HASHES


HASHES = {
    "digits-tiny": "6f17ce3bbf6d",
    "vision-base": "7fd7d4c9d94b",
    "encoder-base": "f0c518f316cf",
    "decoder-base": "a0f88cdcf8f3",
}
SPACE = PRESETS["translation-base"]
GOOD = SPACE.to_dict()


def test_a_decoder_has_genes_after_those_of_the_encoder():
    names = list(SPACE.genes())
    encoder = PRESETS["encoder-base"].to_dict() | {"name": "e"}
    assert names[:3] == ["d_model", "depth", "patch_size"]
    first = names.index("decoder_d_model")
    assert not any("decoder" in name or "cross" in name for name in names[:first])
    assert "decoder_layer5.cross_n_heads" in names[first:]
    assert "decoder" not in json.dumps(encoder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ffn_precision": ["fp32", "int8"]}, ["ffn_precision", "decoder_depth", "int8"]),
        ({"cross_attention_sparsity": ["2:4"]}, ["cross_attention_sparsity", "dense", "2:4"]),
        ({"cross_n_heads": [5], "cross_n_kv_heads": [5]}, ["decoder_d_model 64", "cross_n_heads"]),
        ({"decoder_depth": [300]}, ["decoder_depth", "256", "300"]),
        ({"shared": ["cross_n_heads"]}, ["shared", "cross_n_heads and cross_n_kv_heads"]),
        ({"family": "mlp"}, ["decoder_depth", "mlp"]),
    ],
)
def test_a_wrong_space_with_a_decoder_is_named(change, words):
    with pytest.raises(ValueError) as error:
        SearchSpace.from_dict(GOOD | change)
    assert all(word in str(error.value) for word in words)


def test_genes_of_a_decoder_need_one():
    data = {k: v for k, v in GOOD.items() if k != "decoder_depth"}
    with pytest.raises(ValueError, match="must have decoder_depth to have decoder_d_model"):
        SearchSpace.from_dict(data | {"shared": []})
    with pytest.raises(ValueError, match="must have a decoder to be in space"):
        encode(ENCODER, SPACE)


def test_what_a_workload_asks_and_an_architecture_has_must_agree():
    translation = Workload("mt", "translation", (8,), 21, 2, 20, target_length=6)
    text = Workload("t", "text_classification", (8,), 2, 2, 20)
    for architecture, workload, word in ((ENCODER, translation, "encoder-decoder"),
                                         (make(), text, "single stack")):  # fmt: skip
        with pytest.raises(ValueError, match=f"must be an? {word}"):
            workload.check_fits(architecture)
        with pytest.raises(ValueError, match=word):
            count(architecture, workload)
    with pytest.raises(ValueError, match="all have a decoder or none"):
        ArchitectureBatch.of([ENCODER, make()])
    assert (translation.unit, translation.n_units) == ("output token", 12)
    assert Workload.from_dict(translation.to_dict()) == translation
    assert replace(translation, beam_size=4).key == "mt@8-6/beam4/b2"
    assert "target_length" not in text.to_dict()
    with pytest.raises(ValueError, match="target_length must be null"):
        replace(text, target_length=3)
