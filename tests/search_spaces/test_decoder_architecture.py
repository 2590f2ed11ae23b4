import json
from dataclasses import replace

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
