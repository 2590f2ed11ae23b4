"""Every way to attend gives what the definition gives."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from search_spaces.models import attend as attending
from search_spaces.models.attend import attend


def by_definition(q, k, v, keep, is_causal):
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    if keep is not None:
        scores = scores.masked_fill(~keep[:, None, None, :], -torch.inf)
    if is_causal:
        scores = scores.masked_fill(
            ~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -torch.inf
        )
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("tokens", [1, 4, 8, 9, 40])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("reads", ["all", "kept", "past"])
@pytest.mark.parametrize("with_gradients", [False, True])
def test_attention_is_what_its_definition_says(tokens, kv_heads, reads, with_gradients):
    generator = torch.Generator().manual_seed(tokens + kv_heads)
    q = torch.randn(3, 4, tokens, 5, generator=generator)
    k, v = torch.randn(2, 3, kv_heads, tokens, 5, generator=generator)
    keep = None
    if reads == "kept":
        keep = torch.rand(3, tokens, generator=generator) < 0.6
        keep[:, 0] = True
    with torch.set_grad_enabled(with_gradients):
        found = attend(q, k, v, keep_BT=keep, is_causal=reads == "past")
    torch.testing.assert_close(found, by_definition(q, k, v, keep, reads == "past"))


@pytest.mark.parametrize("tokens", [1, 4, 40])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("reads", ["all", "kept", "past"])
@pytest.mark.parametrize("is_strided", [False, True])
def test_what_is_handed_to_gpus_is_what_the_definition_says(tokens, kv_heads, reads, is_strided):
    generator = torch.Generator().manual_seed(tokens + kv_heads)
    q = torch.randn(3, 4, tokens, 5, generator=generator)
    k, v = torch.randn(2, 3, kv_heads, 7 if reads != "past" else tokens, 5, generator=generator)
    if is_strided:
        q, k, v = (x.transpose(1, 3).contiguous().transpose(1, 3) for x in (q, k, v))
    keep = None
    if reads == "kept":
        keep = torch.rand(3, 7, generator=generator) < 0.6
        keep[:, 0] = True
    found = attending._attend_on_cuda(q, k, v, keep, reads == "past")
    torch.testing.assert_close(found, by_definition(q, k, v, keep, reads == "past"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("reads", ["all", "kept", "past"])
@pytest.mark.parametrize("tokens", [1, 40])
def test_no_shape_falls_to_the_kernel_that_writes_its_scores(
    monkeypatch, dtype, kv_heads, reads, tokens
):
    seen = []
    product = torch.nn.functional.scaled_dot_product_attention

    def watched(q, k, v, *, attn_mask, is_causal, enable_gqa):
        seen.append((q, k, v, attn_mask, enable_gqa))
        return product(q, k, v, attn_mask=attn_mask, is_causal=is_causal, enable_gqa=enable_gqa)

    monkeypatch.setattr(attending.F, "scaled_dot_product_attention", watched)
    # Tensors without numbers, on a device that need not be there.
    with FakeTensorMode():
        # As a supernet's views are: the heads are what lies together.
        q, k, v = (
            torch.empty(3, tokens, 16, heads, dtype=dtype, device="cuda").permute(0, 3, 1, 2)
            for heads in (4, kv_heads, kv_heads)
        )
        keep = torch.ones(3, tokens, dtype=torch.bool, device="cuda") if reads == "kept" else None
        out = attend(q, k, v, keep_BT=keep, is_causal=reads == "past")
        assert out.shape == q.shape and out.dtype == dtype
        (q, k, v, mask, is_grouped) = seen[0]
        assert all(x.stride(-1) == 1 for x in (q, k, v))
        # Memory-efficient attention wants as many heads of each, flash no mask and no fp32.
        is_flash = mask is None and dtype == torch.bfloat16
        assert is_flash or (not is_grouped and q.shape[1] == k.shape[1] == v.shape[1])
        # Where keys need not be copied they are not.
        if reads != "past":
            assert k.shape[1] == kv_heads


@pytest.mark.parametrize("tokens", [4, 16, 40])
def test_bf16_stays_bf16_and_is_no_further_from_fp32_than_rounding(tokens):
    q, k, v = torch.randn(3, 2, 4, tokens, 8, generator=torch.Generator().manual_seed(0)).to(
        torch.bfloat16
    )
    with torch.no_grad():
        found = attend(q, k, v)
    assert found.dtype == torch.bfloat16
    exact = by_definition(q.float(), k.float(), v.float(), None, False)
    torch.testing.assert_close(found.float(), exact, rtol=0.02, atol=0.02)


def test_a_mask_of_tokens_and_of_the_past_do_not_go_together():
    q = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"keep_BT.*is_causal"):
        attend(q, q, q, keep_BT=torch.ones(1, 2, dtype=torch.bool), is_causal=True)
