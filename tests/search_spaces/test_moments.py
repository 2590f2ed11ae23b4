"""Cuts by activations: what is left takes over what is lost, and ranks lose the least outputs."""

from dataclasses import replace

import pytest
import torch

from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.compression.inherit import inherit, source_layers
from search_spaces.compression.moments import cut, moments_of, write
from search_spaces.compression.prune import Importance, magnitude_importance
from search_spaces.models.build import build
from search_spaces.models.projection import FactorisedLinear, Weights
from search_spaces.workload import Workload

TEXT = Workload("text", "text_classification", (12,), 3, 8, vocab_size=20)
IMAGES = Workload("images", "image_classification", (1, 16, 8), 3, 8)


def architecture(heads=4, d_ff=64, depth=3, rank=None, ffn_rank=None, **rest):
    layer = LayerSpec(AttentionSpec(heads, heads, 8, rank), FfnSpec(d_ff, ffn_rank))
    return Architecture(32, (layer,) * depth, **rest)


@pytest.fixture(scope="module")
def parent():
    return build(architecture(), TEXT, generator_seed=0).eval()


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 20, (200, 12), generator=generator)


@pytest.fixture(scope="module")
def moments(parent, inputs):
    return moments_of(parent, torch.split(inputs, 64))


@torch.no_grad()
def loss(parent, inputs, cut_to, **how):
    student = inherit(parent, architecture(), cut_to, TEXT, **how).eval()
    return float((student(inputs) - parent(inputs)).pow(2).mean())


def test_where_nothing_is_cut_outputs_are_the_same_to_the_bit(parent, inputs, moments):
    importance = replace(
        magnitude_importance(parent), layers=torch.ones(3, 3, dtype=torch.bool).tril()
    )
    student = inherit(
        parent, architecture(), architecture(), TEXT, importance=importance, moments=moments
    )
    with torch.no_grad():
        assert torch.equal(student.eval()(inputs), parent(inputs))


def test_a_cut_equals_the_parent_with_masks(parent, inputs):
    importance = magnitude_importance(parent)
    smaller = architecture(heads=2, d_ff=40)
    student = inherit(parent, architecture(), smaller, TEXT, importance=importance)
    masked = build(architecture(), TEXT)
    masked.load_state_dict(parent.state_dict())
    with torch.no_grad():
        for layer, heads_Q, channels_F in zip(
            masked.layers, importance.heads, importance.channels, strict=True
        ):
            lost = heads_Q.argsort(descending=True)[2:]
            layer.attention.o.weight.unflatten(1, (4, 8))[:, lost] = 0
            layer.ffn.down.weight[:, channels_F.argsort(descending=True)[40:]] = 0
        assert torch.allclose(student.eval()(inputs), masked.eval()(inputs), atol=1e-5)
        assert not torch.allclose(student(inputs), parent(inputs), atol=1e-3)


@pytest.mark.parametrize(
    "smaller",
    [
        architecture(d_ff=32),
        architecture(heads=2),
        architecture(ffn_rank=8),
        architecture(rank=4),
        architecture(heads=2, d_ff=32, ffn_rank=8),
    ],
    ids=lambda each: each.describe(),
)
def test_activations_keep_outputs_nearer_than_weights_alone(parent, inputs, moments, smaller):
    plain = loss(parent, inputs, smaller)
    assert loss(parent, inputs, smaller, moments=moments) < 0.5 * plain


def test_inputs_that_follow_from_others_are_lost_without_a_change():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(500, 4, generator=generator)
    # The last two are sums of the first, and of a constant.
    x = torch.cat([x, x[:, :2].sum(1, keepdim=True), 3 + x[:, 2:3]], dim=1)
    rows = torch.cat([x, torch.ones(500, 1)], dim=1)
    linear = torch.nn.Linear(6, 5)
    weights, moments = cut(Weights.of(linear), torch.arange(4), rows.T @ rows / 500)
    with torch.no_grad():
        assert torch.allclose(weights(x[:, :4]), linear(x), atol=0.05)
        assert not torch.allclose(Weights.of(linear).inputs(torch.arange(4))(x[:, :4]), linear(x))
    assert moments.shape == (5, 5)


def test_a_factorisation_loses_the_least_of_outputs():
    generator = torch.Generator().manual_seed(0)
    # Inputs of very different scales: the weights' own SVD ignores them.
    scale = torch.logspace(1, -2, 16)
    x = torch.randn(800, 16, generator=generator) * scale
    rows = torch.cat([x, torch.ones(800, 1)], dim=1)
    linear, errors = torch.nn.Linear(16, 12), []
    with torch.no_grad():
        for moments in (None, rows.T @ rows / 800):
            factors = FactorisedLinear(16, 12, 4)
            write(Weights.of(linear), factors, moments)
            errors.append(float((factors(x) - linear(x)).pow(2).mean()))
        # The best there is, by the SVD of the outputs themselves.
        values = torch.linalg.svdvals(x @ linear.weight.T)
        best = float(values[4:].pow(2).sum()) / (800 * 12)
    assert errors[1] < 0.5 * errors[0] and errors[1] < 1.05 * best + 1e-6


def test_padding_is_no_activation(parent):
    texts = torch.randint(1, 20, (6, 12), generator=torch.Generator().manual_seed(2))
    texts[:, 5:] = 0
    short = moments_of(parent, [texts[:, :5]])
    padded = moments_of(parent, [texts])
    for one, other in zip(short.layers, padded.layers, strict=True):
        assert torch.allclose(one.channels, other.channels, atol=1e-4)


def test_layers_that_are_kept_at_a_depth_stay_in_order(parent):
    keeps = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 1]], dtype=torch.bool)
    assert source_layers(3, 2, keeps) == (1, 2) and source_layers(3, 1, keeps) == (2,)
    whole = magnitude_importance(parent)
    importance = Importance(whole.heads, whole.channels, keeps)
    student = inherit(parent, architecture(), architecture(depth=2), TEXT, importance=importance)
    for own, of in ((0, 1), (1, 2)):
        ours, theirs = student.layers[own].ffn.up.weight, parent.layers[of].ffn.up.weight
        assert torch.equal(ours, theirs)
    for wrong in (keeps[:2], keeps.flip(0), torch.ones(3)):
        with pytest.raises(ValueError, match="importance.layers must have shape"):
            inherit(
                parent,
                architecture(),
                architecture(depth=2),
                TEXT,
                importance=replace(importance, layers=wrong),
            )


def test_fewer_tokens_have_the_first_positions_and_smaller_images_interpolated_ones(parent):
    student = inherit(parent, architecture(), architecture(resolution=6), TEXT)
    assert torch.equal(student.position_TD, parent.position_TD[:6])
    images = replace(architecture(), patch_size=2)
    of_images = build(images, IMAGES, generator_seed=0)
    with torch.no_grad():
        # Positions that rise from left to right do so in the smaller grid, too.
        of_images.position_TD.copy_(torch.arange(4.0).repeat(8)[:, None].expand(32, 32))
    smaller = inherit(of_images, images, replace(images, resolution=8), IMAGES)
    grid = smaller.position_TD.reshape(4, 2, 32)
    assert grid.shape[:2] == (4, 2) and (grid[:, 1] > grid[:, 0] + 1).all()
    with pytest.raises(ValueError, match="resolution must be at most 8"):
        inherit(smaller, replace(images, resolution=8), images, IMAGES)


def test_moments_need_a_batch(parent):
    with pytest.raises(ValueError, match="batches must hold"):
        moments_of(parent, [])
