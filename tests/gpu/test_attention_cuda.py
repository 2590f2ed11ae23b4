"""Attention on a CUDA device: a fused kernel runs it, whatever is grouped, masked or strided."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from search_spaces.architecture import Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.models.attend import attend
from search_spaces.models.elastic import ElasticAttention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
# All but the one that writes its scores to memory: without it, what no other takes is an error.
FUSED = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
]


def exact(q, k, v, keep, is_causal):
    groups = q.shape[1] // k.shape[1]
    q, k, v = (x.double() for x in (q, k.repeat_interleave(groups, 1), v))
    v = v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    if keep is not None:
        scores = scores.masked_fill(~keep[:, None, None, :], -torch.inf)
    if is_causal:
        past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~past, -torch.inf)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [1, 2, 8])
@pytest.mark.parametrize("reads", ["all", "kept", "past", "cached"])
@pytest.mark.parametrize("is_strided", [False, True])
def test_a_fused_kernel_attends(dtype, kv_heads, reads, is_strided):
    if dtype == torch.bfloat16 and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("bf16 attention needs SM >= 8.0")
    generator = torch.Generator("cuda").manual_seed(0)

    def made(heads, tokens):
        x = torch.randn(4, heads, tokens, 64, generator=generator, device="cuda", dtype=dtype)
        return x.transpose(1, 3).contiguous().transpose(1, 3) if is_strided else x

    # One token that reads a cache of many, as in generating.
    q, k, v = made(8, 1 if reads == "cached" else 96), made(kv_heads, 96), made(kv_heads, 96)
    keep = None
    if reads == "kept":
        keep = torch.rand(4, 96, generator=generator, device="cuda") < 0.6
        keep[:, 0] = True
    with sdpa_kernel(FUSED), torch.no_grad():
        out = attend(q, k, v, keep_BT=keep, is_causal=reads == "past")
    assert out.shape == q.shape and out.dtype == dtype
    # Products of fp32 may run in TF32 within a fused kernel.
    atol = 0.02 if dtype == torch.bfloat16 else 5e-3
    torch.testing.assert_close(
        out.double(), exact(q, k, v, keep, reads == "past"), rtol=0.02, atol=atol
    )


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("kv_heads", [2, 8])
def test_a_fused_kernel_trains_a_supernet(is_causal, kv_heads):
    spec = AttentionSpec(8, kv_heads, 32)
    # Its heads are those of an architecture that may be built.
    Architecture(256, (LayerSpec(spec, FfnSpec(256)),))
    attention = ElasticAttention(512, None, is_causal=is_causal).cuda()
    x = torch.randn(4, 48, 256, device="cuda")
    keep = None if is_causal else torch.ones(4, 48, dtype=torch.bool, device="cuda")
    with sdpa_kernel(FUSED):
        attention(x, spec, keep).square().sum().backward()
    assert attention.k.weight_OI.grad.abs().sum() > 0
