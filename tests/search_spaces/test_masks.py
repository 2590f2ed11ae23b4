"""Masks of sparse blocks: which weights they keep, how long, and the products that use them."""

import copy

import numpy as np
import pytest
import torch
from compression_fakes import DIGITS, inputs, linears, make
from torch import nn

from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.architecture.simulated import describe_on, simulated_choices
from search_spaces.compression import sparsity
from search_spaces.compression.apply import compress, run_eagerly
from search_spaces.compression.sparsity import Masks, mask_2_4
from search_spaces.cost.counting import count
from search_spaces.models.build import build


def test_2_4_keeps_the_two_largest_of_each_four():
    weight = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    mask = mask_2_4(weight)
    assert torch.all(mask.reshape(6, 8, 4).sum(-1) == 2)
    groups, kept = weight.abs().reshape(6, 8, 4), mask.reshape(6, 8, 4)
    smallest_kept = groups.masked_fill(~kept, np.inf).amin(-1)
    largest_gone = groups.masked_fill(kept, -1).amax(-1)
    assert torch.all(smallest_kept >= largest_gone)
    with pytest.raises(ValueError, match="divisible by 4"):
        mask_2_4(torch.zeros(2, 6))


@pytest.mark.parametrize(
    ("sparsity", "share"), [("2:4", 0.5), ("unstructured-50", 0.5), ("unstructured-90", 0.9)]
)
@pytest.mark.parametrize("precision", ["fp32", "int8", "int8wo"])
def test_a_mask_covers_every_projection_and_outlives_quantising(sparsity, share, precision):
    architecture = make(precision, precision, sparsity=sparsity)
    compressed = compress(build(architecture, DIGITS, generator_seed=0), architecture)
    found = linears(compressed.layers)
    assert len(found) == 12
    for linear in found:
        weight = linear.weight if precision == "fp32" else linear.weight.dequantize()
        zeros = float((weight == 0).float().mean())
        # Rounding to 8 bits adds some zeros to those of the mask and never takes one.
        assert zeros >= share - 1e-3 and (precision != "fp32" or zeros <= share + 1e-3)


def test_masks_keep_the_largest_weights_of_a_matrix():
    architecture = make(sparsity="unstructured-90")
    model = build(architecture, DIGITS, generator_seed=0)
    before = model.layers[0].ffn.up.weight.detach().clone()
    Masks.of(model, architecture)
    after = model.layers[0].ffn.up.weight
    assert before[after == 0].abs().max() <= before[after != 0].abs().min()


def test_a_mask_needs_a_shape_and_a_precision_that_take_it():
    layer = LayerSpec(AttentionSpec(2, 1, 9, None, Compression("fp32", "2:4")), FfnSpec(16))
    odd = Architecture(18, (layer,), 2)
    with pytest.raises(ValueError, match=r"layers\.0\.attention\.q.*divisible by 4"):
        compress(build(odd, DIGITS), odd)
    with pytest.raises(ValueError, match="sparsity must be dense with precision int4wo"):
        Compression("int4wo", "2:4")


@pytest.mark.parametrize("sparsity", ["2:4", "unstructured-90"])
def test_masks_hold_while_a_network_recovers(sparsity):
    dense, sparse = Compression(), Compression("bf16", sparsity)
    layer = LayerSpec(AttentionSpec(4, 2, 8, 4, sparse), FfnSpec(64, None, dense))
    architecture = Architecture(32, (layer,), 2)
    model = build(architecture, DIGITS, generator_seed=0)
    masks = Masks.of(model, architecture)
    assert len(masks.weights) == 8 and model.layers[0].ffn.up.weight.ne(0).all()
    zeros = [weight == 0 for weight in masks.weights]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    targets = torch.arange(16) % 10
    losses = []
    for _ in range(20):
        loss = torch.nn.functional.cross_entropy(model(inputs()), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # The optimiser does move what was zero: without this line the mask would be lost.
        moved = [bool((w[z] != 0).any()) for w, z in zip(masks.weights, zeros, strict=True)]
        masks.apply_()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2 and any(moved)
    assert all(torch.equal(w == 0, z) for w, z in zip(masks.weights, zeros, strict=True))
    # Compressing finds the very same mask.
    for layer_, kept in zip(
        linears(compress(model, architecture).layers), zeros[:8], strict=False
    ):
        assert torch.equal(layer_.weight == 0, kept)


def test_what_has_no_kernel_here_says_so():
    architecture = make("bf16", "bf16", sparsity="2:4")
    assert simulated_choices(architecture, "cpu") == ("2:4",)
    assert simulated_choices(architecture, "cuda:0") == ()
    assert describe_on(architecture, "cpu").endswith("bf16 2:4 (2:4 simulated)")
    assert describe_on(architecture, "cuda:0") == architecture.describe()
    assert simulated_choices(make("fp32", "bf16", sparsity="2:4"), "cuda:0") == ("2:4",)
    masked = make("bf16", "bf16", sparsity="unstructured-90")
    for device in ("cpu", "cuda:0"):
        assert describe_on(masked, device).endswith("(unstructured-90 simulated)")
    assert describe_on(make(), "cpu") == make().describe()


def test_a_mask_without_a_kernel_is_never_credited():
    dense, masked = (count(make(sparsity=s), DIGITS) for s in ("dense", "unstructured-90"))
    assert (dense.macs, dense.weight_bytes) == (masked.macs, masked.weight_bytes)


class SparseProducts:
    """Stands for cuSPARSELt: packed weights are the dense ones, each shape has its algorithm."""

    def __init__(self, monkeypatch):
        self.ran, self.n_searches = [], 0
        monkeypatch.setattr(torch, "_cslt_sparse_mm", self.product)
        monkeypatch.setattr(torch, "_cslt_sparse_mm_search", self.search)

    def product(self, packed, dense, *, bias=None, transpose_result=False, alg_id=0):
        self.ran.append((tuple(packed.shape), alg_id))
        out = packed @ dense + (0 if bias is None else bias[:, None])
        return (out.t() if transpose_result else out).contiguous()

    def search(self, packed, dense, *, bias=None, transpose_result=False):
        self.n_searches += 1
        assert bias is not None
        return packed.shape[0] + dense.shape[1]

    @staticmethod
    def sparse(linear):
        weight = linear.weight.detach()
        packed = torch.sparse.SparseSemiStructuredTensorCUSPARSELT(
            weight.shape, weight, None, None, None, None
        )
        linear.weight = nn.Parameter(packed, requires_grad=False)
        return linear


def test_each_2_4_product_runs_the_algorithm_that_is_fastest_for_its_shape(monkeypatch):
    products = SparseProducts(monkeypatch)
    dense = nn.Sequential(nn.Linear(64, 128), nn.Linear(128, 64), nn.Linear(64, 32))
    dense.to(torch.bfloat16)
    rows = torch.randn(3, 8, 64).to(torch.bfloat16)
    expected = dense(rows)
    model = copy.deepcopy(dense)
    for linear in model[:2]:
        products.sparse(linear)
    sparsity.search_sparse_algorithms(model, lambda: model(rows))
    assert products.n_searches == 2
    assert [alg_id for _, alg_id in products.ran] == [0, 0]
    out = run_eagerly(model).call(rows)
    # 24 rows each, and as many outputs as the layer has.
    assert products.ran[2:] == [((128, 64), 152), ((64, 128), 88)]
    assert products.n_searches == 2
    torch.testing.assert_close(out, expected, rtol=0.02, atol=0.02)
    sparsity.search_sparse_algorithms(dense, lambda: pytest.fail("has nothing to search"))
