"""Softmax attention by the fastest kernel of the device.

Shape legend: B batch, T tokens, S tokens that are read, Q query heads, K key-value heads, G query
heads to a key-value head, E d_head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# torch's fused CPU kernel loops over samples and heads, so that for few tokens the overhead of
# each product dominates. Measured on one thread (Zen 5, batch 128): at 4 tokens it takes 3 times
# as long as products fused over all samples and heads, at 8 tokens 1.5 times, from 12 on it is
# ahead.
_MOST_FUSED_TOKENS = 8
# Its bf16 form takes 2 to 3 times as long as fp32 up to 16 tokens, and is level from about 64 on.
_MOST_WIDENED_TOKENS = 32
# Of the fused CUDA kernels flash attention alone takes grouped queries in every supported version
# of torch, and it takes these types and no mask.
_FLASH_DTYPES = (torch.bfloat16, torch.float16)


def attend(
    q_BQTE: Tensor,
    k_BKTE: Tensor,
    v_BKTE: Tensor,
    *,
    keep_BT: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """``softmax(q k^T / sqrt(E)) v``; neighbouring query heads share a key-value head.

    Sources: Vaswani et al. 2017, equation 1; grouped queries, Ainslie et al. 2023.

    Args:
        q_BQTE: Queries.
        k_BKTE: Keys; ``Q`` is a multiple of ``K``.
        v_BKTE: Values.
        keep_BT: Tokens to read, as booleans; ``None`` for all.
        is_causal: Whether a token reads only those up to itself; not together with ``keep_BT``.

    Returns:
        Shape ``(B, Q, T, E)``, in the type of ``q_BQTE``.

    Raises:
        ValueError: both ``keep_BT`` and ``is_causal`` are given.
    """
    if keep_BT is not None and is_causal:
        raise ValueError("keep_BT must be None where is_causal is set, got both")
    tokens, dtype = q_BQTE.shape[2], q_BQTE.dtype
    on_cpu = q_BQTE.device.type == "cpu"
    # Without gradients only: the backward pass would store a product for each pair of tokens.
    if on_cpu and tokens <= _MOST_FUSED_TOKENS and not torch.is_grad_enabled():
        q_BQTE, k_BKTE, v_BKTE = _widened(q_BQTE), _widened(k_BKTE), _widened(v_BKTE)
        return _fused(q_BQTE, k_BKTE, v_BKTE, keep_BT, is_causal).to(dtype)
    if q_BQTE.device.type == "cuda":
        return _attend_on_cuda(q_BQTE, k_BKTE, v_BKTE, keep_BT, is_causal)
    if on_cpu and dtype == torch.bfloat16 and tokens <= _MOST_WIDENED_TOKENS:
        q_BQTE, k_BKTE, v_BKTE = q_BQTE.float(), k_BKTE.float(), v_BKTE.float()
    return F.scaled_dot_product_attention(
        q_BQTE,
        k_BKTE,
        v_BKTE,
        attn_mask=None if keep_BT is None else keep_BT[:, None, None, :],
        is_causal=is_causal,
        enable_gqa=q_BQTE.shape[1] != k_BKTE.shape[1],
    ).to(dtype)


def _widened(x: Tensor) -> Tensor:
    """Types below fp32 as fp32; float64 stays as it is."""
    return x if x.dtype == torch.float64 else x.float()


def _attend_on_cuda(
    q_BQTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, keep_BS: Tensor | None, is_causal: bool
) -> Tensor:
    """Attend by a fused kernel, also for shapes that these kernels refuse.

    Where they refuse, torch writes all scores to memory, and fewer key-value heads cost more.
    """
    # A supernet's interleaved heads are strided views, which no fused kernel takes.
    q_BQTE, k_BKSE, v_BKSE = (
        x if x.stride(-1) == 1 else x.clone(memory_format=torch.contiguous_format)
        for x in (q_BQTE, k_BKSE, v_BKSE)
    )
    shape_BQTE, n_kv_heads = q_BQTE.shape, k_BKSE.shape[1]
    is_grouped = shape_BQTE[1] != n_kv_heads
    has_kernel = keep_BS is None and q_BQTE.dtype in _FLASH_DTYPES
    if is_grouped and not has_kernel:
        if is_causal:
            n_groups = shape_BQTE[1] // n_kv_heads
            k_BKSE, v_BKSE = (x.repeat_interleave(n_groups, 1) for x in (k_BKSE, v_BKSE))
        else:
            # Heads that share keys read like more tokens of one head, without copies of the keys.
            q_BQTE = q_BQTE.reshape(shape_BQTE[0], n_kv_heads, -1, shape_BQTE[3])
        is_grouped = False
    out = F.scaled_dot_product_attention(
        q_BQTE,
        k_BKSE,
        v_BKSE,
        attn_mask=None if keep_BS is None else keep_BS.unsqueeze(1).unsqueeze(1),
        is_causal=is_causal,
        enable_gqa=is_grouped,
    )
    return out.reshape(shape_BQTE)


def _fused(
    q_BQTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, keep_BT: Tensor | None, is_causal: bool
) -> Tensor:
    """Attention as sums of elementwise products, which a compiler fuses into one loop."""
    # By shape and not by len(), which would fix the batch of an exported network.
    q_BKGTE = q_BQTE.reshape(q_BQTE.shape[0], k_BKTE.shape[1], -1, *q_BQTE.shape[2:])
    scores_BKGTT = (q_BKGTE[..., None, :] * k_BKTE[:, :, None, None]).sum(-1)
    scores_BKGTT = scores_BKGTT * q_BQTE.shape[-1] ** -0.5
    if keep_BT is not None:
        scores_BKGTT = scores_BKGTT.masked_fill(~keep_BT[:, None, None, None, :], -torch.inf)
    if is_causal:
        read_TT = torch.ones(scores_BKGTT.shape[-2:], dtype=torch.bool).tril()
        scores_BKGTT = scores_BKGTT.masked_fill(~read_TT, -torch.inf)
    weights_BKGTT = scores_BKGTT.softmax(-1)
    out_BKGTE: Tensor = (weights_BKGTT[..., None] * v_BKTE[:, :, None, None]).sum(-2)
    return out_BKGTE.reshape(q_BQTE.shape)
