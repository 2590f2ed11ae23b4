import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.compression.inherit import check_fits_in, inherit, source_layers
from search_spaces.compression.prune import (
    largest_indices,
    magnitude_importance,
    taylor_importance,
)
from search_spaces.models.build import build
from search_spaces.models.projection import Weights, truncated_svd
from search_spaces.workload import Workload

DIGITS = Workload("digits", "image_classification", (1, 8, 8), 10, 16)
TEXT = Workload("text", "language_modelling", (12,), 17, 4, vocab_size=17)
D_HEAD = 4


def make(*, heads=4, kv_heads=2, d_ff=24, rank=None, ffn_rank=None, depth=3, patch_size=2):
    layer = LayerSpec(AttentionSpec(heads, kv_heads, D_HEAD, rank), FfnSpec(d_ff, ffn_rank))
    return Architecture(16, (layer,) * depth, patch_size)


def teacher_of(architecture, workload=DIGITS):
    """Random everywhere: fresh norms and biases would hide a norm or bias left behind."""
    model = build(architecture, workload, generator_seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or "position" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def samples(workload=DIGITS, n=8, seed=3):
    generator = torch.Generator().manual_seed(seed)
    if workload.is_image:
        return torch.randn(n, *workload.input_shape, generator=generator)
    return torch.randint(0, workload.vocab_size, (n, *workload.input_shape), generator=generator)


@torch.no_grad()
def outputs(model, workload=DIGITS):
    return model(samples(workload))


@pytest.mark.parametrize("workload", [DIGITS, TEXT])
@pytest.mark.parametrize("rank", [None, 3])
def test_the_teachers_own_architecture_gives_the_same_outputs_to_the_bit(workload, rank):
    architecture = make(rank=rank, ffn_rank=rank, patch_size=2 if workload is DIGITS else 1)
    teacher = teacher_of(architecture, workload)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    state = torch.random.get_rng_state()
    student = inherit(teacher, architecture, architecture, workload)
    assert torch.equal(outputs(student, workload), outputs(teacher, workload))
    assert torch.equal(state, torch.random.get_rng_state())
    # A copy: training the student leaves the teacher as it is.
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    assert all(torch.equal(v, before[n]) for n, v in teacher.state_dict().items())


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("kept", [(0, 1), (1, 3), (4, 5)])
def test_heads_and_channels_that_add_nothing_can_be_cut(rank, kept):
    architecture = make(heads=6, kv_heads=3, rank=rank, ffn_rank=rank)
    teacher = teacher_of(architecture)
    dead = [h for h in range(6) if h not in kept]
    with torch.no_grad():
        for layer in teacher.layers:
            out = getattr(layer.attention.o, "reduce", layer.attention.o)
            out.weight.unflatten(1, (6, D_HEAD))[:, dead] = 0
            down = getattr(layer.ffn.down, "reduce", layer.ffn.down)
            down.weight[:, 5:17] = 0
    # Two queries of one group, of neighbouring groups, and of one group again.
    kv_heads = 2 if kept == (1, 3) else 1
    smaller = make(heads=2, kv_heads=kv_heads, d_ff=12, rank=rank, ffn_rank=rank)
    if rank:  # Where factors stop saving weights, theirs is the exact product.
        assert smaller.layers[0].attention.rank == 3
    student = inherit(teacher, architecture, smaller, DIGITS)
    assert torch.allclose(outputs(student), outputs(teacher), atol=1e-5)
    # The test can fail: what stays is not all alike.
    with torch.no_grad():
        teacher.head.bias[0] += 0.1
    assert not torch.allclose(outputs(student), outputs(teacher), atol=1e-5)


def test_values_that_are_zero_cut_a_channel_and_a_head_too():
    architecture = make(heads=4, kv_heads=4)
    teacher = teacher_of(architecture)
    with torch.no_grad():
        for layer in teacher.layers:
            for linear, rows in ((layer.attention.v, slice(4, 8)), (layer.ffn.up, slice(3, 9))):
                linear.weight[rows] = 0
                linear.bias[rows] = 0
    importance = magnitude_importance(teacher)
    for heads, channels in zip(importance.heads, importance.channels, strict=True):
        assert (heads == 0).nonzero().flatten().tolist() == [1]
        assert (channels == 0).nonzero().flatten().tolist() == [3, 4, 5, 6, 7, 8]
    student = inherit(teacher, architecture, make(heads=3, kv_heads=3, d_ff=18), DIGITS)
    assert torch.allclose(outputs(student), outputs(teacher), atol=1e-5)


def test_magnitude_sees_the_norm_that_feeds_a_block():
    teacher = teacher_of(make())
    before = magnitude_importance(teacher)
    with torch.no_grad():
        teacher.layers[1].ffn_norm.weight.mul_(3)
        teacher.layers[1].ffn_norm.bias.mul_(3)
        teacher.layers[1].ffn.up.bias.mul_(3)
    after = magnitude_importance(teacher)
    assert torch.allclose(after.channels[1], 3 * before.channels[1])
    assert torch.equal(after.channels[0], before.channels[0])


def test_fewer_key_value_heads_become_the_mean_of_their_group():
    architecture, smaller = make(kv_heads=4), make(kv_heads=2)
    teacher = teacher_of(architecture)
    student = inherit(teacher, architecture, smaller, DIGITS)
    old, new = teacher.layers[0].attention, student.layers[0].attention
    assert torch.equal(new.q.weight, old.q.weight)
    for name in ("k", "v"):
        heads = getattr(old, name).weight.unflatten(0, (4, D_HEAD))
        merged = getattr(new, name).weight.unflatten(0, (2, D_HEAD))
        assert torch.allclose(merged[1], (heads[2] + heads[3]) / 2)
    # Groups whose heads agree lose nothing.
    with torch.no_grad():
        for layer in teacher.layers:
            for linear in (layer.attention.k, layer.attention.v):
                linear.weight.unflatten(0, (4, D_HEAD))[1::2] = linear.weight.unflatten(
                    0, (4, D_HEAD)
                )[0::2]
                linear.bias.unflatten(0, (4, D_HEAD))[1::2] = linear.bias.unflatten(
                    0, (4, D_HEAD)
                )[0::2]
    student = inherit(teacher, architecture, smaller, DIGITS)
    assert torch.allclose(outputs(student), outputs(teacher), atol=1e-5)


def test_depth_keeps_evenly_spread_layers():
    assert source_layers(4, 4) == (0, 1, 2, 3)
    assert source_layers(12, 6) == (0, 2, 4, 7, 9, 11)
    assert source_layers(5, 3) == (0, 2, 4)
    assert source_layers(3, 2) == (0, 2)
    assert source_layers(3, 1) == (0,)
    architecture = make(depth=3)
    teacher = teacher_of(architecture)
    student = inherit(teacher, architecture, make(depth=2), DIGITS)
    with torch.no_grad():
        for linear in (teacher.layers[1].attention.o, teacher.layers[1].ffn.down):
            linear.weight.zero_()
            linear.bias.zero_()
    assert torch.allclose(outputs(student), outputs(teacher), atol=1e-6)


@given(st.integers(1, 40), st.data())
def test_kept_layers_rise_and_hold_both_ends(teacher_depth, data):
    depth = data.draw(st.integers(1, teacher_depth))
    kept = source_layers(teacher_depth, depth)
    assert len(kept) == depth and kept[0] == 0 and (depth == 1 or kept[-1] == teacher_depth - 1)
    gaps = {b - a for a, b in zip(kept, kept[1:], strict=False)}
    assert all(gap >= 1 for gap in gaps) and (not gaps or max(gaps) - min(gaps) <= 1)


def dense_weight(projection):
    return Weights.of(projection).product()


def optimal_error(weight, rank):
    """Eckart and Young: the root of the sum of the squared singular values that are cut off."""
    singular = torch.linalg.svdvals(weight.detach().double())
    return float(singular[rank:].square().sum().sqrt())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**31), st.data())
def test_truncated_svd_reaches_the_optimal_error(d_out, d_in, seed, data):
    weight = torch.randn(d_out, d_in, generator=torch.Generator().manual_seed(seed))
    rank = data.draw(st.integers(1, min(d_out, d_in)))
    reduce, expand = truncated_svd(weight, rank)
    assert reduce.shape == (rank, d_in) and expand.shape == (d_out, rank)
    error = float((weight.double() - expand.double() @ reduce.double()).norm())
    assert error == pytest.approx(optimal_error(weight, rank), abs=1e-5)
    # Balanced: both factors have the same Gram matrix, the singular values.
    assert torch.allclose(reduce @ reduce.T, expand.T @ expand, atol=1e-4)


def test_a_random_product_is_worse_than_the_truncated_svd():
    weight = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    expand = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
    best = torch.linalg.lstsq(expand, weight).solution
    assert float((weight - expand @ best).norm()) > optimal_error(weight, 3) * 1.05
    with pytest.raises(ValueError, match=r"rank must be in 1\.\.8"):
        truncated_svd(weight, 9)


def test_projections_are_factorised_at_the_optimal_error_and_the_bias_stays():
    architecture, smaller = make(), make(rank=3, ffn_rank=5)
    teacher = teacher_of(architecture)
    student = inherit(teacher, architecture, smaller, DIGITS)
    for old, new in zip(teacher.layers, student.layers, strict=True):
        for block, names, rank in (("attention", "qkvo", 3), ("ffn", ("up", "down"), 5)):
            for name in names:
                before, after = (
                    getattr(getattr(old, block), name),
                    getattr(getattr(new, block), name),
                )
                assert after.reduce.weight.shape[0] == rank
                error = float((before.weight - dense_weight(after)).detach().norm())
                assert error == pytest.approx(optimal_error(before.weight, rank), abs=1e-5)
                assert torch.equal(after.expand.bias, before.bias)


def test_factors_become_narrower_or_whole_again():
    architecture = make(rank=4, ffn_rank=4)
    teacher = teacher_of(architecture)
    whole = inherit(teacher, architecture, make(), DIGITS)
    assert torch.allclose(outputs(whole), outputs(teacher), atol=1e-5)
    narrow = inherit(teacher, architecture, make(rank=2, ffn_rank=4), DIGITS)
    old, new = teacher.layers[0].attention.q, narrow.layers[0].attention.q
    error = float((dense_weight(old) - dense_weight(new)).detach().norm())
    assert error == pytest.approx(optimal_error(dense_weight(old), 2), abs=1e-5)


def test_taylor_scores_are_the_change_of_the_loss_by_a_gate():
    architecture = make(heads=4, kv_heads=2)
    teacher = teacher_of(architecture).double()
    inputs, targets = samples(n=6).double(), torch.arange(6)
    scores = taylor_importance(teacher, [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])])
    assert all(p.grad is None for p in teacher.parameters())

    def loss(sample, layer, block, columns, scale):
        weight = getattr(
            getattr(teacher.layers[layer], block), "o" if block == "attention" else "down"
        ).weight
        with torch.no_grad():
            kept = weight[:, columns].clone()
            weight[:, columns] *= scale
            out = torch.nn.functional.cross_entropy(
                teacher(inputs[sample : sample + 1]), targets[sample : sample + 1]
            )
            weight[:, columns] = kept
        return float(out)

    step = 1e-4
    for block, index, columns in (("attention", 2, slice(8, 12)), ("ffn", 7, slice(7, 8))):
        slopes = [
            abs(loss(s, 1, block, columns, 1 + step) - loss(s, 1, block, columns, 1 - step))
            / (2 * step)
            for s in range(6)
        ]
        found = (scores.heads if block == "attention" else scores.channels)[1][index]
        assert float(found) == pytest.approx(sum(slopes) / 6, rel=1e-3)
    with pytest.raises(ValueError, match="training data"):
        taylor_importance(teacher, [])


def test_taylor_scores_choose_what_stays():
    architecture, smaller = make(d_ff=24), make(d_ff=6)
    teacher = teacher_of(architecture)
    importance = taylor_importance(teacher, [(samples(), torch.arange(8))])
    student = inherit(teacher, architecture, smaller, DIGITS, importance=importance)
    kept = largest_indices(importance.channels[2], 6)
    assert torch.equal(student.layers[2].ffn.up.bias, teacher.layers[2].ffn.up.bias[kept])
    others = largest_indices(magnitude_importance(teacher).channels[2], 6)
    assert not torch.equal(kept, others)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 4}, r"depth must be in 1\.\.3"),
        ({"heads": 8}, r"layers\[0\]\.attention\.n_heads must be at most 4"),
        ({"heads": 4, "kv_heads": 4}, r"attention\.n_kv_heads must be at most 2"),
        ({"heads": 2, "kv_heads": 2, "d_ff": 25}, r"layers\[0\]\.ffn\.d_ff must be at most 24"),
        ({"rank": 5}, r"layers\[0\]\.attention\.rank must be at most 4"),
        ({"patch_size": 4}, r"patch_size must be 2"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    architecture = make(rank=4)
    with pytest.raises(ValueError, match=message):
        inherit(teacher_of(architecture), architecture, make(**{"rank": 4} | changes), DIGITS)


def test_other_widths_and_other_networks_are_refused():
    architecture = make()
    wider = dataclasses.replace(architecture, d_model=20)
    with pytest.raises(ValueError, match="d_model must be 16"):
        check_fits_in(architecture, wider)
    odd = Architecture(16, (LayerSpec(AttentionSpec(2, 1, 8), FfnSpec(8)),), 2)
    with pytest.raises(ValueError, match=r"d_head must be 4"):
        check_fits_in(architecture, odd)
    with pytest.raises(ValueError, match="teacher must be the network of"):
        inherit(teacher_of(make(d_ff=20)), architecture, architecture, DIGITS)
    importance = magnitude_importance(teacher_of(make(d_ff=20)))
    with pytest.raises(ValueError, match=r"importance\.channels"):
        inherit(
            teacher_of(architecture), architecture, architecture, DIGITS, importance=importance
        )
    # Six queries in groups of three cannot be made of three whole groups of two.
    uneven = make(heads=6, kv_heads=2)
    with pytest.raises(ValueError, match=r"n_kv_heads must be at most 1 with 3"):
        check_fits_in(make(heads=6, kv_heads=3), uneven)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_smaller_architecture_of_the_same_heads_is_made(data):
    group, kv_heads = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    architecture = make(heads=group * kv_heads, kv_heads=kv_heads, d_ff=9, depth=2)
    smaller_kv = data.draw(st.integers(1, kv_heads))
    smaller = make(
        heads=smaller_kv * data.draw(st.integers(1, group)),
        kv_heads=smaller_kv,
        d_ff=data.draw(st.integers(1, 9)),
        rank=data.draw(st.sampled_from([None, 1, 2])),
        ffn_rank=data.draw(st.sampled_from([None, 1, 3])),
        depth=data.draw(st.integers(1, 2)),
    )
    student = inherit(teacher_of(architecture), architecture, smaller, DIGITS)
    assert bool(torch.isfinite(outputs(student)).all())
