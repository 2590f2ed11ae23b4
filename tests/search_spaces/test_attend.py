"""Every way to attend gives what the definition gives."""

import pytest
import torch

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
