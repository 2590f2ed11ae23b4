import itertools

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.cost.counting import count
from search_spaces.models.blocks import Attention
from search_spaces.models.build import build
from search_spaces.space.presets import PRESETS
from search_spaces.space.sampling import sample
from search_spaces.workload import Workload

DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 4)
TEXT = Workload("text", "text_classification", (12,), 3, 4, vocab_size=50)
MODELLING = Workload("lm", "language_modelling", (12,), 50, 4, vocab_size=50)


def reference_attention(attention, x, *, causal):
    """The formula in float64 with loops over heads and no torch attention."""
    x = x.detach().numpy().astype(np.float64)

    def linear(name):
        layer = getattr(attention, name)
        weight, bias = (p.detach().numpy().astype(np.float64) for p in (layer.weight, layer.bias))
        return lambda v: v @ weight.T + bias

    q, k, v = (linear(name)(x) for name in "qkv")
    size, group = attention.d_head, attention.n_heads // attention.n_kv_heads
    heads = []
    for head in range(attention.n_heads):
        mine = slice(head * size, (head + 1) * size)
        shared = slice((head // group) * size, (head // group + 1) * size)
        scores = q[..., mine] @ np.swapaxes(k[..., shared], -1, -2) / np.sqrt(size)
        if causal:
            scores[..., np.triu(np.ones(scores.shape[-2:], dtype=bool), 1)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v[..., shared])
    return linear("o")(np.concatenate(heads, axis=-1))


@pytest.mark.parametrize(
    ("n_heads", "n_kv_heads", "causal"),
    [(4, 4, False), (4, 2, False), (4, 1, True), (1, 1, True), (6, 3, False)],
)
def test_attention_is_the_formula(n_heads, n_kv_heads, causal):
    torch.manual_seed(0)
    attention = Attention(24, AttentionSpec(n_heads, n_kv_heads, 4), is_causal=causal)
    x = torch.randn(2, 7, 24) * 3
    expected = reference_attention(attention, x, causal=causal)
    np.testing.assert_allclose(attention(x).detach().numpy(), expected, atol=1e-5)


def test_attention_equals_torchs_multihead_attention():
    torch.manual_seed(0)
    ours = Attention(16, AttentionSpec(4, 4, 4), is_causal=False)
    theirs = nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.k.bias, ours.v.bias]))
        theirs.out_proj.weight.copy_(ours.o.weight)
        theirs.out_proj.bias.copy_(ours.o.bias)
    x = torch.randn(2, 5, 16) * 3
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("workload", [DIGITS, TEXT, MODELLING], ids=lambda w: w.name)
def test_counted_parameters_are_those_built(workload):
    rng = np.random.default_rng(0)
    for _ in range(20):
        architecture = sample(PRESETS["digits-tiny"], rng)
        if not workload.is_image:
            architecture = Architecture(architecture.d_model, architecture.layers)
        model = build(architecture, workload)
        built = sum(parameter.numel() for parameter in model.parameters())
        assert count(architecture, workload).params == built


def test_counted_macs_are_those_of_the_matrix_products_that_ran():
    architecture = sample(PRESETS["digits-tiny"], np.random.default_rng(3))
    model = build(architecture, DIGITS)
    ran = 0

    def add(module, inputs, output):
        nonlocal ran
        ran += output.numel() // output.shape[0] * module.in_features

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(add)
    model(torch.zeros(1, 1, 8, 8))
    tokens = DIGITS.n_tokens(architecture)
    inside = sum(
        2 * tokens**2 * layer.attention.n_heads * layer.attention.d_head
        for layer in architecture.layers
    )
    assert count(architecture, DIGITS).macs == ran + inside


def test_output_shapes_and_causality():
    layer = LayerSpec(AttentionSpec(2, 1, 8), FfnSpec(32))
    text = Architecture(16, (layer, layer))
    tokens = torch.randint(0, 50, (4, 12), generator=torch.Generator().manual_seed(0))
    assert build(text, TEXT)(tokens).shape == (4, 3)
    model = build(text, MODELLING, generator_seed=0).eval()
    logits = model(tokens)
    assert logits.shape == (4, 12, 50)
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 50
    torch.testing.assert_close(model(changed)[:, :-1], logits[:, :-1])
    assert not torch.allclose(model(changed)[:, -1], logits[:, -1])


def test_patches_are_read_in_order():
    layer = LayerSpec(AttentionSpec(1, 1, 4), FfnSpec(4))
    model = build(Architecture(4, (layer,), patch_size=4), DIGITS)
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    with torch.no_grad():
        model.embed.project.weight.copy_(torch.eye(16)[:4])
        model.embed.project.bias.zero_()
    tokens = model.embed(image)[0, :, :2]
    assert tokens.tolist() == [[0, 1], [4, 5], [32, 33], [36, 37]]


def test_a_seed_gives_the_weights_and_leaves_the_global_generator_alone():
    architecture = sample(PRESETS["digits-tiny"], np.random.default_rng(1))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = build(architecture, DIGITS, generator_seed=7)
    assert torch.equal(torch.rand(3), expected)
    second = build(architecture, DIGITS, generator_seed=7)
    pairs = itertools.zip_longest(first.parameters(), second.parameters())
    assert all(torch.equal(a, b) for a, b in pairs)


def test_padding_is_neither_attended_to_nor_pooled():
    layer = LayerSpec(AttentionSpec(4, 2, 8), FfnSpec(32))
    model = build(Architecture(32, (layer,) * 2), TEXT, generator_seed=3).eval()
    short = torch.randint(1, 50, (5, 7))
    padded = torch.cat([short, torch.zeros(5, 5, dtype=torch.int64)], dim=1)
    other = padded.clone()
    other[:, -1] = 9
    with torch.no_grad():
        alone, together = model(short), model(padded)
        assert torch.allclose(alone, together, atol=1e-5)
        assert not torch.allclose(model(other), together, atol=1e-3)
        assert bool(torch.isfinite(model(torch.zeros(2, 12, dtype=torch.int64))).all())
        logits, features = model.with_features(padded)
        assert torch.equal(logits, together) and features.shape == (5, 2, 32)
        assert torch.allclose(features, model.with_features(short)[1], atol=1e-5)
        # The head reads the norm of the last stream; pooling and norm do not commute.
        assert not torch.allclose(model.head(features[:, -1]), logits)
