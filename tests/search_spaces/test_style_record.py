from dataclasses import replace

import numpy as np
import pytest
from style_fakes import (
    EVERY_STYLE,
    IMAGE_VECTOR,
    LM,
    MLM,
    SEGMENT,
    TEXT,
    TEXT_VECTOR,
    architecture,
    workload_of,
)

from search_spaces.architecture import DEFAULT_STYLE, STYLES, Architecture, BlockStyle
from search_spaces.architecture.style import (
    BiasStyle,
    NormStyle,
    PositionStyle,
    RotaryScaling,
)
from search_spaces.cost.counting import count, count_batch
from search_spaces.cost.memory import peak_memory_bytes, peak_memory_of
from search_spaces.models.build import build
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

TRANSLATION = Workload("t", "translation", (6,), 9, 2, vocab_size=8, target_length=5)


@pytest.mark.parametrize("style", EVERY_STYLE.values(), ids=EVERY_STYLE)
def test_a_style_is_read_back_from_plain_data(style):
    of = architecture(style, workload_of(style))
    assert BlockStyle.from_dict(style.to_dict()) == style
    assert Architecture.from_dict(of.to_dict()) == of
    assert hash(BlockStyle.from_dict(style.to_dict())) == hash(style)


def test_the_default_is_not_written_and_every_other_style_is_in_the_hash():
    plain = architecture(DEFAULT_STYLE, TEXT)
    assert "style" not in plain.to_dict() and DEFAULT_STYLE.to_dict() == {}
    # As it was before architectures had styles.
    assert plain.hash == "150ddbe3f0a397fe"
    hashes = {architecture(style, TEXT).hash for style in EVERY_STYLE.values()}
    assert len(hashes) == len(EVERY_STYLE)


def test_whole_numbers_are_the_same_style():
    whole, real = (PositionStyle("rotary", theta) for theta in (500_000, 500_000.0))
    of = [architecture(BlockStyle(positions=how), TEXT) for how in (whole, real)]
    assert of[0].hash == of[1].hash


def test_a_style_is_described_by_its_name_or_its_changes():
    assert "llama" in architecture(STYLES["llama"], TEXT).describe().split()
    assert "default" not in architecture(DEFAULT_STYLE, TEXT).describe()
    style = replace(DEFAULT_STYLE, norm=NormStyle(place="post"), activation="relu")
    assert style.describe() == "default(norm.place=post,activation=relu)"
    assert EVERY_STYLE["linear"].describe() == (
        "llama(positions.theta=500.0,positions.scaling.kind=linear,positions.scaling.factor=3.0,"
        "positions.scaling.low_frequency_factor=1.0,positions.scaling.high_frequency_factor=4.0,"
        "positions.scaling.original_length=8192)"
    )
    unscaled = replace(EVERY_STYLE["linear"], positions=PositionStyle("rotary"))
    assert unscaled.describe() == "llama"


@pytest.mark.parametrize(
    "data, message",
    [
        ({"norm": {"kind": "batch"}}, "style.norm.kind must be one of layer, rms, got 'batch'"),
        ({"norm": {"place": None}}, "style.norm.place must be one of pre, post, got None"),
        ({"norm": {"epsilon": 0}}, "style.norm.epsilon must be a finite number above 0, got 0"),
        ({"norm": {"epsilon": "1"}}, "style.norm.epsilon must be a finite number .* got '1'"),
        ({"norm": {"after_embeddings": 1}}, "style.norm.after_embeddings must be true or false"),
        ({"norm": []}, "style.norm must be an object, got"),
        ({"norms": {}}, "style has unknown key norms; allowed: activation"),
        ({"activation": "swish"}, "style.activation must be one of gelu, gelu-tanh, relu, silu"),
        ({"is_gated": "yes"}, "style.is_gated must be true or false, got 'yes'"),
        ({"positions": {"kind": "alibi"}}, "style.positions.kind must be one of learned, rotary"),
        ({"positions": {"theta": 5}}, "theta and scaling must be left out for learned positions"),
        (
            {"positions": {"kind": "rotary", "scaling": {"kind": "yarn"}}},
            "style.positions.scaling.kind must be one of linear, llama3, got 'yarn'",
        ),
        (
            {"positions": {"kind": "rotary", "scaling": {"high_frequency_factor": 1}}},
            "scaling.high_frequency_factor must be a finite number above 1.0, got 1",
        ),
        (
            {"positions": {"kind": "rotary", "scaling": {"original_length": 0.5}}},
            "style.positions.scaling.original_length must be an integer >= 1, got 0.5",
        ),
        ({"positions": {"kind": "rotary", "scaling": 3}}, "scaling must be an object, got 3"),
        ({"biases": {"qkv": 0}}, "style.biases.qkv must be true or false, got 0"),
        ({"n_token_types": -1}, "style.n_token_types must be an integer in 0..65535, got -1"),
        ({"n_token_types": True}, "style.n_token_types must be an integer"),
        (
            {"pooling": "max"},
            "style.pooling must be one of mean, cls, last, .*, prefix, got 'max'",
        ),
        ({"pooling": "prefix"}, "style.n_prefix_tokens must be >= 1 for the pooling prefix, got"),
        ({"pooling": "cls-mean"}, "style.n_prefix_tokens must be >= 1 for the pooling cls-mean"),
        ({"n_prefix_tokens": 1.0}, "style.n_prefix_tokens must be an integer in 0..65535, got 1"),
        ({"is_causal": 1}, "style.is_causal must be true or false, got 1"),
        ({"has_unit_vectors": 0}, "style.has_unit_vectors must be true or false, got 0"),
        ({"has_head_transform": None}, "style.has_head_transform must be true or false, got None"),
        ("llama", "style must be an object, got 'llama'"),
    ],
)
def test_a_wrong_style_is_refused_by_its_field(data, message):
    plain = architecture(DEFAULT_STYLE, TEXT).to_dict()
    with pytest.raises(ValueError, match=message) as caught:
        Architecture.from_dict(plain | {"style": data})
    assert "\n" not in str(caught.value)


def test_parts_must_be_records():
    with pytest.raises(ValueError, match="style.biases must be a BiasStyle, got 'none'"):
        BlockStyle(biases="none")
    with pytest.raises(ValueError, match="style.positions.scaling must be a RotaryScaling"):
        PositionStyle("rotary", scaling="linear")
    with pytest.raises(ValueError, match="style must be a BlockStyle, got 'llama'"):
        replace(architecture(DEFAULT_STYLE, TEXT), style="llama")
    assert BiasStyle(qkv=False) != BiasStyle() and RotaryScaling() == RotaryScaling("linear", 1)


def test_heads_of_rotary_positions_must_be_even():
    of = architecture(STYLES["llama"], TEXT)
    odd = replace(of.layers[1], attention=replace(of.layers[1].attention, d_head=5))
    with pytest.raises(ValueError, match=r"layers.1.attention.d_head must be even with style.pos"):
        replace(of, layers=(of.layers[0], odd))


def test_another_family_has_no_style_of_ours():
    with pytest.raises(ValueError, match="style must be the default for family mixer, got llama"):
        replace(architecture(STYLES["llama"], TEXT), family="mixer")


@pytest.mark.parametrize(
    "style, workload, message",
    [
        ("vit", TEXT, "style.n_prefix_tokens must be 0 for text_classification, got 1"),
        ("bert", SEGMENT, "style.n_token_types must be 0 for image_segmentation, got 2"),
        ("past", TRANSLATION, "style.is_causal must be false for translation, got true"),
        (
            "masked",
            replace(MLM, n_classes=7),
            "style.is_head_tied must be false with 7 outputs over a vocabulary of 50, got true",
        ),
        ("bert", TRANSLATION, "style.n_token_types must be 0 for translation, got 2"),
        (
            "llama",
            replace(LM, n_classes=7),
            "style.is_head_tied must be false with 7 outputs over a vocabulary of 50, got true",
        ),
    ],
)
def test_a_style_that_a_workload_has_no_use_for_is_refused(style, workload, message):
    of = replace(
        architecture(EVERY_STYLE[style], workload), patch_size=2 if workload.is_image else 1
    )
    with pytest.raises(ValueError, match=message):
        workload.check_style(of.style)
    if not workload.is_sequence_to_sequence:
        for use in (build, count, Workload.check_fits):
            with pytest.raises(ValueError, match=message):
                use(workload, of) if use is Workload.check_fits else use(of, workload)


@pytest.mark.parametrize(
    "style, workload, message",
    [
        ("bert", TEXT_VECTOR, "n_classes must be the pooled width 16 for text_embedding, got 32"),
        ("vit", IMAGE_VECTOR, "n_classes must be the pooled width 16 for image_embedding, got 32"),
        ("registers", IMAGE_VECTOR, "must be the pooled width 32 for image_embedding, got 64"),
    ],
)
def test_vectors_are_as_wide_as_what_is_pooled(style, workload, message):
    style = EVERY_STYLE[style]
    of = replace(architecture(style, workload), d_model=16)
    workload = replace(workload, n_classes=32 * style.n_pooled)
    for use in (build, count, Workload.check_fits):
        with pytest.raises(ValueError, match=message):
            use(workload, of) if use is Workload.check_fits else use(of, workload)


def test_padding_is_read_back_and_changes_no_older_workload():
    assert Workload.from_dict(MLM.to_dict()) == MLM and MLM.to_dict()["padding_token"] == 1
    assert "padding_token" not in TEXT.to_dict() and MLM.key == "mlm@12/b4"
    for token, workload, message in (
        (-1, TEXT, "padding_token must be an integer >= 0, got -1"),
        (1.5, TEXT, "padding_token must be an integer >= 0, got 1.5"),
        (True, TEXT, "padding_token must be an integer >= 0, got True"),
        (1, IMAGE_VECTOR, "padding_token must be 0 for image_embedding, got 1"),
        (1, TRANSLATION, "padding_token must be 0 for translation, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(workload, padding_token=token)


def test_a_batch_of_several_styles_is_counted_one_by_one():
    names = ["llama", "default", "gpt2", "qwen3", "llama"]
    members = [architecture(STYLES[name], LM, rank=3) for name in names]
    batch = ArchitectureBatch.of(members)
    counts, peaks = count_batch(batch, LM), peak_memory_bytes(batch, LM)
    for index, member in enumerate(members):
        alone = count(member, LM)
        for field in ("params", "macs", "weight_bytes", "activation_bytes", "n_kernels"):
            assert counts.total(field)[index] == pytest.approx(getattr(alone, field))
        assert peaks[index] == peak_memory_of(member, LM)
    rows = batch.rows(np.array([3, 1]))
    assert count_batch(rows, LM).total("params").tolist() == [
        count(members[3], LM).params,
        count(members[1], LM).params,
    ]
