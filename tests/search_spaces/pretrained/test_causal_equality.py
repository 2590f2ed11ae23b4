"""Causal checkpoints of every family give the numbers of transformers' own classes."""

import json

import pytest
import torch
from pretrained_fakes import (
    CAUSAL,
    causal,
    in_float64,
    largest_difference,
    layers_of,
    saved,
    streams,
)

from search_spaces.models.decoding import generate
from search_spaces.pretrained import load_checkpoint

pytest.importorskip("transformers")


def tokens_of(n, length, seed=1):
    return torch.randint(1, 97, (n, length), generator=torch.Generator().manual_seed(seed))


def difference(ours, theirs, tokens, keep=None):
    """Over the stream after each layer, and the logits."""
    mask = None if keep is None else keep.long()
    their_streams = streams(layers_of(theirs), lambda: theirs(tokens, attention_mask=mask).logits)
    return largest_difference(streams(ours.stack, lambda: ours(tokens)), their_streams, keep)


@pytest.mark.parametrize("name", CAUSAL)
def test_streams_and_logits_are_those_of_transformers(name, tmp_path):
    theirs = causal(name, attn_implementation="eager")
    checkpoint = load_checkpoint(saved(theirs, tmp_path))
    ours = checkpoint.build()
    assert checkpoint.unread_keys == ()
    # Few and many tokens run by other kernels.
    for length in (1, 7, checkpoint.longest):
        assert difference(ours, theirs, tokens_of(3, length)) < 1e-5
    tokens = tokens_of(3, 20)
    keep = torch.arange(20) < torch.tensor([[20], [3], [11]])
    assert difference(ours, theirs, tokens * keep, keep) < 1e-5


@pytest.mark.parametrize("name", CAUSAL)
def test_they_are_the_same_in_float64(name, tmp_path, monkeypatch):
    theirs = in_float64(causal(name), monkeypatch)
    ours = load_checkpoint(saved(theirs, tmp_path)).build(dtype=torch.float64)
    for length in (5, 40):
        assert difference(ours, theirs, tokens_of(2, length)) < 1e-10


@pytest.mark.parametrize("name", CAUSAL)
def test_greedy_generation_writes_the_same_tokens(name, tmp_path):
    theirs = causal(name)
    ours = load_checkpoint(saved(theirs, tmp_path)).build()
    prompt = tokens_of(3, 6)
    # Ours may write the padding token too: theirs is kept from stopping there.
    found = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=30, do_sample=False
    )
    assert torch.equal(generate(ours, prompt, 30), found[:, 6:])


def test_a_long_text_is_read_as_by_transformers(tmp_path):
    theirs = causal("llama 3", max_position_embeddings=2048)
    ours = load_checkpoint(saved(theirs, tmp_path)).build()
    assert difference(ours, theirs, tokens_of(1, 2048)) < 1e-5


@pytest.mark.parametrize("name", ["llama", "llama, tied, biases", "gpt2"])
def test_shards_and_half_precision_hold_the_same_values(name, tmp_path):
    theirs = causal(name).to(torch.bfloat16)
    saved(theirs, tmp_path / "one")
    saved(theirs, tmp_path / "many", max_shard_size="8KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    one, many = (load_checkpoint(tmp_path / x).build() for x in ("one", "many"))
    values = dict(many.named_parameters())
    for parameter, value in one.named_parameters():
        assert value.dtype == torch.float32
        assert torch.equal(value, values[parameter]), parameter
    # Read again: a cast to bfloat16 rounds the frequencies of rotary positions too.
    theirs = type(theirs).from_pretrained(tmp_path / "one", dtype=torch.float32)
    assert difference(one, theirs, tokens_of(2, 9)) < 1e-5
    kept = load_checkpoint(tmp_path / "one").build(dtype=torch.bfloat16)
    assert {value.dtype for value in kept.parameters()} == {torch.bfloat16}


def old_form(config):
    """A configuration as it was written before transformers 5."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"type": kind, **rope}
    config["torch_dtype"] = config.pop("dtype")
    if config.get("head_dim") is None:
        del config["head_dim"]


@pytest.mark.parametrize("name", ["llama", "llama, linear, gelu", "llama 3", "qwen2, tied"])
def test_configurations_of_both_forms_describe_one_network(name, tmp_path):
    saved(causal(name), tmp_path)
    before = load_checkpoint(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config.setdefault("head_dim", None)
    old_form(config)
    path.write_text(json.dumps(config))
    assert load_checkpoint(tmp_path) == before


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_shorter_network_reads_shorter_texts(name, tmp_path):
    theirs = causal(name)
    checkpoint = load_checkpoint(saved(theirs, tmp_path))
    short = checkpoint.with_length(9)
    assert short.workload.input_shape == (9,)
    ours = short.build()
    assert ours.n_positions == 9
    assert difference(ours, theirs, tokens_of(2, 9)) < 1e-5
    with pytest.raises(ValueError, match=r"sequence_length must be at most 64 \(.*, got 65"):
        checkpoint.with_length(65)


def test_a_sliding_window_limits_the_length(tmp_path):
    checkpoint = load_checkpoint(saved(causal("mistral, window"), tmp_path))
    assert checkpoint.longest == 48
    with pytest.raises(ValueError, match=r"at most 48 \(sliding_window of config.json\), got 49"):
        checkpoint.with_length(49)


def test_names_without_the_prefix_are_read(tmp_path):
    """The hub's GPT-2 was written by a network without a head."""
    from safetensors.torch import load_file, save_file

    theirs = saved(causal("gpt2"), tmp_path)
    path = theirs / "model.safetensors"
    tensors = {k.removeprefix("transformer."): v for k, v in load_file(path).items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 64, 64).tril()
    save_file(tensors, path)
    ours = load_checkpoint(tmp_path).build()
    assert difference(ours, causal("gpt2"), tokens_of(2, 9)) < 1e-5
