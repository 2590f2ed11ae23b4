"""Encoders of every family give the numbers of transformers' own classes."""

import json

import pytest
import torch
from encoder_fakes import IMAGES, TEXTS, encoder, encoder_layers
from pretrained_fakes import largest_difference, saved, streams

from search_spaces.pretrained import load_checkpoint

pytest.importorskip("transformers")

TEXT_HEADS = ("ForSequenceClassification", "ForMaskedLM", "ForQuestionAnswering", "Model")
TEXT_CASES = [(name, head) for name in TEXTS for head in TEXT_HEADS]
IMAGE_CASES = [(name, head) for name in IMAGES for head in ("ForImageClassification", "Model")] + [
    ("deit", "ForImageClassificationWithTeacher")
]


def tokens_of(checkpoint, n, length, seed=1):
    """Tokens without padding."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 96, (n, length), generator=generator)
    return tokens + (tokens >= checkpoint.workload.padding_token)


def output_of(returned, head):
    """What ours returns, of the output of transformers' class."""
    if head == "ForQuestionAnswering":
        return torch.stack([returned.start_logits, returned.end_logits], dim=1)
    if head != "Model":
        return returned.logits
    pooled = returned.get("pooler_output")
    return returned.last_hidden_state[:, 0] if pooled is None else pooled


def difference(ours, theirs, head, tokens, keep, types=None):
    """Over the stream after each layer and the outputs, of tokens that are no padding."""
    given = {} if types is None else {"token_type_ids": types}

    def call():
        return output_of(theirs(tokens, attention_mask=keep.long(), **given), head)

    *their_streams, their_output = streams(encoder_layers(theirs), call)
    *our_streams, our_output = streams(ours.stack, lambda: ours(tokens, types))
    if head == "ForMaskedLM":
        our_output, their_output = our_output[keep], their_output[keep]
    if head == "ForQuestionAnswering":
        our_output, their_output = (x.transpose(1, 2)[keep] for x in (our_output, their_output))
    return max(
        largest_difference(our_streams, their_streams, keep),
        largest_difference([our_output], [their_output]),
    )


def differences(theirs, head, checkpoint, ours):
    for n, length in ((2, 1), (3, 7), (2, checkpoint.longest)):
        tokens = tokens_of(checkpoint, n, length)
        yield difference(ours, theirs, head, tokens, torch.ones_like(tokens, dtype=torch.bool))
    keep = torch.arange(20) < torch.tensor([[20], [3], [11]])
    tokens = tokens_of(checkpoint, 3, 20)
    padded = tokens.where(keep, torch.tensor(checkpoint.workload.padding_token))
    yield difference(ours, theirs, head, padded, keep)
    if (n_types := checkpoint.architecture.style.n_token_types) > 1:
        types = torch.arange(20).expand(3, -1) % n_types
        yield difference(ours, theirs, head, padded, keep, types)


@pytest.mark.parametrize("name, head", TEXT_CASES)
def test_streams_and_outputs_of_texts_are_those_of_transformers(name, head, tmp_path):
    theirs = encoder(name, head)
    checkpoint = load_checkpoint(saved(theirs, tmp_path))
    assert checkpoint.unread_keys == () and checkpoint.longest == 64 - ("padding 4" in name) * 3
    assert max(differences(theirs, head, checkpoint, checkpoint.build())) < 1e-5
    double = checkpoint.build(dtype=torch.float64)
    assert max(differences(theirs.double(), head, checkpoint, double)) < 1e-10


@pytest.mark.parametrize("name, head", IMAGE_CASES)
def test_streams_and_outputs_of_images_are_those_of_transformers(name, head, tmp_path):
    theirs = encoder(name, head)
    checkpoint = load_checkpoint(saved(theirs, tmp_path))
    assert checkpoint.unread_keys == ()
    images = torch.randn(3, *checkpoint.workload.input_shape)

    def worst(dtype):
        ours, typed = checkpoint.build(dtype=dtype), theirs.to(dtype)

        def call():
            return output_of(typed(images.to(dtype)), head)

        expected = streams(encoder_layers(typed), call)
        return largest_difference(streams(ours.stack, lambda: ours(images.to(dtype))), expected)

    assert worst(torch.float32) < 1e-5
    assert worst(torch.float64) < 1e-10


@pytest.mark.parametrize("size", [(20, 20), (8, 16), (8, 8)])
@pytest.mark.parametrize("name", ["vit", "deit", "dinov2", "dinov2 with registers"])
def test_images_of_another_size_are_read_as_by_transformers(name, size, tmp_path):
    head = "ForImageClassification"
    theirs = encoder(name, head)
    checkpoint = load_checkpoint(saved(theirs, tmp_path)).with_image_size(*size)
    assert checkpoint.workload.input_shape == (3, *size)
    # Families of the first kind interpolate on request only.
    how = {} if "dinov2" in name else {"interpolate_pos_encoding": True}

    def worst(dtype):
        ours, typed = checkpoint.build(dtype=dtype), theirs.to(dtype)
        images = torch.randn(2, 3, *size, dtype=dtype)

        def call():
            return typed(images, **how).logits

        expected = streams(encoder_layers(typed), call)
        return largest_difference(streams(ours.stack, lambda: ours(images)), expected)

    assert worst(torch.float32) < 1e-5
    assert worst(torch.float64) < 1e-10


def test_sizes_of_images_that_do_not_fit_are_refused(tmp_path):
    vit = load_checkpoint(saved(encoder("vit", "Model"), tmp_path / "vit"))
    assert vit.with_image_size(8, 16).with_image_size(12, 12) == vit
    oblong = load_checkpoint(
        saved(encoder("vit, no biases, oblong, relu", "Model"), tmp_path / "oblong")
    )
    assert oblong.with_image_size(8, 16) == oblong
    bert = load_checkpoint(saved(encoder("bert", "Model"), tmp_path / "bert"))
    for checkpoint, size, message in (
        (vit, (12, 14), r"multiples of 4 \(patch_size of config.json\), got 12x14"),
        (vit, (0, 4), "image_size must be an integer >= 1, got 0"),
        (oblong, (16, 16), "image_size must be 8x16 .*, got 16x16"),
        (bert, (8, 8), "the image size must be left out for texts"),
    ):
        with pytest.raises(ValueError, match=message):
            checkpoint.with_image_size(*size)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_a_shorter_network_reads_shorter_texts(name, tmp_path):
    theirs = encoder(name, "ForMaskedLM")
    short = load_checkpoint(saved(theirs, tmp_path)).with_length(9)
    ours, tokens = short.build(), tokens_of(short, 2, 9)
    assert ours.n_positions == 9
    keep = torch.ones_like(tokens, dtype=torch.bool)
    assert difference(ours, theirs, "ForMaskedLM", tokens, keep) < 1e-5


def test_names_of_old_files_are_read(tmp_path):
    """The hub's BERT has other names of norms, and parts that its class leaves out."""
    from safetensors.torch import load_file, save_file

    theirs = encoder("bert", "ForMaskedLM")
    path = saved(theirs, tmp_path) / "model.safetensors"
    tensors = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): value
        for key, value in load_file(path).items()
    }
    tensors["bert.embeddings.position_ids"] = torch.arange(64)[None]
    tensors["bert.pooler.dense.weight"] = torch.ones(24, 24)
    tensors["cls.seq_relationship.weight"] = torch.ones(2, 24)
    tensors["cls.predictions.decoder.weight"] = theirs.bert.embeddings.word_embeddings.weight.data
    save_file(tensors, path)
    checkpoint = load_checkpoint(tmp_path)
    tokens = tokens_of(checkpoint, 2, 9)
    keep = torch.ones_like(tokens, dtype=torch.bool)
    assert difference(checkpoint.build(), theirs, "ForMaskedLM", tokens, keep) < 1e-5
    tensors["bert.embeddings.LayerNorm.weight"] = torch.ones(24)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"bert.embeddings.LayerNorm.*once, under one name"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("mode", ["cls", "mean", "lasttoken"])
@pytest.mark.parametrize("is_old", [False, True])
def test_the_modules_of_sentence_transformers_are_read(mode, is_old, tmp_path):
    theirs = encoder("bert", "Model")
    saved(theirs, tmp_path)
    flag = {"cls": "cls_token", "mean": "mean_tokens"}.get(mode, mode)
    (tmp_path / "1_Pooling").mkdir()
    settings = {
        "word_embedding_dimension": 24,
        "include_prompt": True,
        **(
            {"pooling_mode_max_tokens": False, f"pooling_mode_{flag}": True}
            if is_old
            else {"pooling_mode": mode}
        ),
    }
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    kinds = ["Transformer", "Pooling", "Normalize"][: 2 + is_old]
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    checkpoint = load_checkpoint(tmp_path)
    lengths = torch.tensor([20, 3, 11])
    keep = torch.arange(20) < lengths[:, None]
    tokens = tokens_of(checkpoint, 3, 20) * keep
    with torch.no_grad():
        stream = theirs(tokens, attention_mask=keep.long()).last_hidden_state
        expected = {
            "cls": stream[:, 0],
            "mean": (stream * keep[..., None]).sum(1) / lengths[:, None],
            "lasttoken": stream[torch.arange(3), lengths - 1],
        }[mode]
        if is_old:
            expected = expected / expected.norm(dim=1, keepdim=True)
        found = checkpoint.build()(tokens)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"pooling_mode_max_tokens": True}, ("pooling_mode", "pooling_mode_max_tokens")),
        ({"pooling_mode": "weightedmean"}, ("pooling_mode", "weightedmean", "mean")),
        ({}, ("pooling_mode", "pooling_mode_mean_tokens")),
        (
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            ("pooling_mode", "pooling_mode_cls_token"),
        ),
        ({"pooling_mode": "mean", "word_embedding_dimension": 25}, ("word_embedding_dim", "24")),
        ({"pooling_mode_cls_token": 1}, ("pooling_mode_cls_token", "true or false")),
    ],
)
def test_another_pooling_is_refused(settings, parts, tmp_path):
    saved(encoder("bert", "Model"), tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError) as caught:
        load_checkpoint(tmp_path)
    line = str(caught.value)
    assert "\n" not in line and line.startswith(str(tmp_path / "1_Pooling" / "config.json"))
    assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    ("modules", "part"),
    [
        ([{"type": "x.Transformer"}, {"type": "x.Pooling"}, {"type": "x.Dense"}], "Dense"),
        ([{"type": "x.Pooling"}, {"type": "x.Transformer"}], "'Pooling', 'Transformer'"),
        ([{}, 3], "None"),
        ([], "[]"),
        ({}, "a JSON list, got a dict"),
    ],
)
def test_other_modules_are_refused(modules, part, tmp_path):
    saved(encoder("bert", "Model"), tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode": "mean"}')
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError) as caught:
        load_checkpoint(tmp_path)
    line = str(caught.value)
    assert "\n" not in line and line.startswith(str(tmp_path / "modules.json")) and part in line


@pytest.mark.parametrize(
    ("name", "head", "changes", "part"),
    [
        ("bert", "Model", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("bert", "ForMaskedLM", {"is_decoder": True}, "is_decoder"),
        ("bert", "Model", {"add_cross_attention": True}, "add_cross_attention"),
        ("bert", "Model", {"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ("bert", "Model", {"hidden_act": "mish"}, "hidden_act"),
        ("bert", "Model", {"num_attention_heads": 5}, "num_attention_heads"),
        ("bert", "Model", {"type_vocab_size": 0}, "type_vocab_size"),
        ("bert", "Model", {"layer_norm_eps": 0}, "layer_norm_eps"),
        ("bert", "ForQuestionAnswering", {"architectures": ["BertForPreTraining"]}, "architect"),
        ("roberta", "ForMaskedLM", {"hidden_act": "relu"}, "hidden_act"),
        ("roberta", "Model", {"pad_token_id": 65}, "pad_token_id"),
        ("distilbert", "Model", {"n_heads": 7}, "n_heads"),
        ("distilbert", "Model", {"activation": None}, "activation"),
        ("vit", "Model", {"image_size": 16}, "position_embeddings"),
        ("vit", "Model", {"image_size": [12]}, "image_size"),
        ("vit", "Model", {"patch_size": [4, 6]}, "patch_size"),
        ("vit", "Model", {"patch_size": 5}, "patch_size"),
        ("vit", "Model", {"pooler_act": "gelu"}, "pooler_act"),
        ("vit", "Model", {"pooler_output_size": 12}, "pooler_output_size"),
        ("vit", "Model", {"num_attention_heads": 7}, "num_attention_heads"),
        ("dinov2", "Model", {"image_size": [8, 16]}, "image_size"),
        ("dinov2", "Model", {"mlp_ratio": 0.001}, "mlp_ratio"),
        ("dinov2", "Model", {"use_swiglu_ffn": True}, "weights_in"),
        ("dinov2 with registers", "Model", {"num_register_tokens": 3}, "register_tokens"),
        ("dinov2 with registers", "Model", {"num_register_tokens": -1}, "num_register_tokens"),
    ],
)
def test_a_key_that_changes_outputs_is_refused_by_name(name, head, changes, part, tmp_path):
    saved(encoder(name, head), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError) as caught:
        load_checkpoint(tmp_path).build()
    line = str(caught.value)
    assert "\n" not in line and line.startswith(str(tmp_path)) and part in line, line
