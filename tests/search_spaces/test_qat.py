import copy

import pytest
import torch
from torch import nn

from search_spaces.architecture import Architecture, AttentionSpec, Compression, FfnSpec, LayerSpec
from search_spaces.compression.qat import FakeQuantisedLinear, fake_quantised, is_quantised
from search_spaces.compression.quantize import DTYPES, quantize_linears
from search_spaces.models.build import build
from search_spaces.workload import Workload

WORKLOAD = Workload("t", "image_classification", (1, 8, 8), 10, 16)
INT8 = Compression("int8")


def architecture(attention, ffn):
    layer = LayerSpec(
        AttentionSpec(2, 1, 8, rank=4, compression=attention), FfnSpec(32, compression=ffn)
    )
    return Architecture(16, (layer,) * 2, patch_size=4)


@pytest.mark.parametrize(("precision", "tolerance"), [("int8", 1e-5), ("int8wo", 0.05)])
def test_the_forward_pass_is_that_of_the_real_product(precision, tolerance):
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 32), torch.randn(5, 7, 64) * 3
    dtype = DTYPES.get(precision, torch.float32)
    real = nn.Sequential(copy.deepcopy(linear)).requires_grad_(False).to(dtype)
    quantize_linears(real, "block", precision)
    fake = FakeQuantisedLinear(linear, precision)
    with torch.no_grad():
        assert not torch.allclose(fake(x), linear(x), atol=1e-4)
        assert torch.allclose(fake(x), real(x.to(dtype)).float(), atol=tolerance)


def test_four_bit_weights_are_rounded_to_the_values_that_are_stored():
    torch.manual_seed(0)
    linear = nn.Linear(64, 32, bias=False)
    fake = FakeQuantisedLinear(linear, "int4wo")
    with torch.no_grad():
        rounded = fake(torch.eye(64)).T
    apart = (rounded - linear.weight).abs()
    groups = linear.weight.reshape(32, 2, 32)
    step = (groups.amax(-1) - groups.amin(-1)) / 15
    assert 0.2 * step.mean() < apart.mean() < 0.3 * step.mean()
    # Sixteen values at most in each group of 32 that shares a scale.
    assert all(len(group.unique()) <= 16 for group in rounded.reshape(-1, 32))


def test_training_does_not_change_how_fp32_products_round():
    before = torch.get_float32_matmul_precision()
    FakeQuantisedLinear(nn.Linear(8, 8), "int8")(torch.randn(2, 8))
    assert torch.get_float32_matmul_precision() == before


def test_the_backward_pass_takes_rounding_for_the_identity():
    torch.manual_seed(0)
    linear = nn.Linear(8, 4)
    fake = FakeQuantisedLinear(linear, "int8")
    x = torch.randn(3, 8, requires_grad=True)
    fake(x).sum().backward()
    # d/dW of sum(x W^T) is the sum of the rounded inputs, d/dx that of the rounded rows.
    assert torch.allclose(linear.weight.grad, x.detach().sum(0).expand(4, 8), atol=0.1)
    assert torch.allclose(x.grad, linear.weight.detach().sum(0).expand(3, 8), atol=0.02)
    assert torch.equal(linear.bias.grad, torch.full((4,), 3.0))


def test_only_quantised_blocks_round_and_names_stay():
    found = architecture(Compression(), INT8)
    model = build(found, WORKLOAD, generator_seed=0)
    fake = fake_quantised(model, found)
    kinds = {type(m) for m in fake.layers[0].attention.modules()}
    assert FakeQuantisedLinear not in kinds
    assert isinstance(fake.layers[1].ffn.down, FakeQuantisedLinear)
    model.load_state_dict(fake.state_dict())
    factored = fake_quantised(model, architecture(INT8, INT8)).layers[0].attention
    assert isinstance(factored.q.reduce, FakeQuantisedLinear)
    assert isinstance(model.layers[1].ffn.down, nn.Linear)


def test_nothing_to_round_is_an_error():
    plain = architecture(Compression("bf16"), Compression())
    assert not is_quantised(plain) and is_quantised(architecture(INT8, Compression()))
    with pytest.raises(ValueError, match="a block of fp8|a block of int8"):
        fake_quantised(build(plain, WORKLOAD), plain)
