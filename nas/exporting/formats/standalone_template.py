"""Template of the stand-alone module; ``standalone_source`` describes its directives."""

TEMPLATE = '''\
"""A Transformer exported by JouleNAS: one module that requires only torch and safetensors.

    from model import load

    network = load()             # reads model.safetensors in this file's folder
    outputs = network(inputs)

Inputs: a batch of $inputs.
%if image
Images must be standardised as in training.
%end
%if decoder
Texts may have fewer tokens.
%end
%if padding
Token $padding is padding.
%end
Outputs: $outputs.

Names of tensors end with their shape: B batch, T tokens, D width, Q query heads, K key-value
heads, E features of a head, C channels or classes, H height, W width.
"""

from __future__ import annotations

%if llama3_scaling
import math
%end
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

$constants


class LowRank(nn.Module):
    """A linear layer of low rank: its weight matrix is the product of two smaller ones."""

    def __init__(self, d_in: int, d_out: int, rank: int, bias: bool) -> None:
        super().__init__()
        self.reduce = nn.Linear(d_in, rank, bias=False)
        self.expand = nn.Linear(rank, d_out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.reduce(x))


def projection(d_in: int, d_out: int, rank: int | None, bias: bool) -> nn.Module:
    """Return a low-rank layer if ``rank`` saves weights, else a dense one."""
    if rank is not None and rank * (d_in + d_out) < d_in * d_out:
        return LowRank(d_in, d_out, rank, bias)
    return nn.Linear(d_in, d_out, bias=bias)


def norm(width: int) -> nn.Module:
    """Return a normalisation layer over ``width`` features."""
    return $norm(width, eps=$epsilon)

%if rotary

def rotary_angles(n_tokens: int, d_head: int, device: torch.device) -> Tensor:
    """Return cosines and sines of the rotary position embedding, (2, tokens, features)."""
    exponents = torch.arange(0, d_head, 2, dtype=torch.int64, device=device).float() / d_head
    frequencies = 1.0 / ($theta**exponents)
%if linear_scaling
    frequencies = frequencies / $factor
%end
%if llama3_scaling
    turns = $original * frequencies / (2 * math.pi)
    share = ((turns - $low) / ($high - $low)).clamp(0, 1)
    frequencies = (1 - share) * frequencies / $factor + share * frequencies
%end
    angles = torch.arange(n_tokens, device=device)[:, None].float() * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x_BHTE: Tensor, angles_2TE: Tensor) -> Tensor:
    """Apply the rotary position embedding to queries or keys; here H counts heads."""
    cosines, sines = angles_2TE.to(x_BHTE.dtype).unbind()
    first, second = x_BHTE.chunk(2, dim=-1)
    return x_BHTE * cosines + torch.cat([-second, first], dim=-1) * sines

%end

class Attention(nn.Module):
    """Multi-head attention, whose key-value heads may be fewer than its query heads."""

    def __init__(self, n_heads: int, n_kv_heads: int, d_head: int, rank: int | None) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.d_head = n_heads, n_kv_heads, d_head
        self.q = projection(D_MODEL, n_heads * d_head, rank, $qkv_bias)
        self.k = projection(D_MODEL, n_kv_heads * d_head, rank, $qkv_bias)
        self.v = projection(D_MODEL, n_kv_heads * d_head, rank, $qkv_bias)
        self.o = projection(n_heads * d_head, D_MODEL, rank, $o_bias)
%if head_norms
        self.q_norm, self.k_norm = norm(d_head), norm(d_head)
%end

    def forward(self, x_BTD: Tensor$more_parameters) -> Tensor:
        q_BQTE = self.split(self.q(x_BTD), self.n_heads)
        k_BKTE = self.split(self.k(x_BTD), self.n_kv_heads)
        v_BKTE = self.split(self.v(x_BTD), self.n_kv_heads)
%if head_norms
        q_BQTE, k_BKTE = self.q_norm(q_BQTE), self.k_norm(k_BKTE)
%end
%if rotary
        q_BQTE, k_BKTE = rotate(q_BQTE, angles_2TE), rotate(k_BKTE, angles_2TE)
%end
%if attends_in_fp32
        # On CPUs, attention over few tokens is faster in fp32 than in bf16.
        q_BQTE, k_BKTE, v_BKTE = q_BQTE.float(), k_BKTE.float(), v_BKTE.float()
%end
%if repeats_kv_heads
        if q_BQTE.is_cuda and self.n_heads != self.n_kv_heads:
            # Fused kernels for these inputs support no grouped heads on CUDA.
            n = self.n_heads // self.n_kv_heads
            k_BKTE, v_BKTE = k_BKTE.repeat_interleave(n, 1), v_BKTE.repeat_interleave(n, 1)
%end
        out_BQTE = F.scaled_dot_product_attention(
            q_BQTE, k_BKTE, v_BKTE$options
        )$cast_back
        return self.o(out_BQTE.transpose(1, 2).flatten(2))

    def split(self, x: Tensor, heads: int) -> Tensor:
        """Return ``x`` as (batch, heads, tokens, features of a head)."""
        return x.reshape(*x.shape[:2], heads, self.d_head).transpose(1, 2)


class FeedForward(nn.Module):
%if gated
    """Gated feed-forward block."""
%else
    """Feed-forward block."""
%end

    def __init__(self, d_ff: int, rank: int | None) -> None:
        super().__init__()
%if gated
        self.gate = projection(D_MODEL, d_ff, rank, $ffn_bias)
%end
        self.up = projection(D_MODEL, d_ff, rank, $ffn_bias)
        self.down = projection(d_ff, D_MODEL, rank, $ffn_bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
%if gated
        return self.down($activation * self.up(x_BTD))
%else
        return self.down($activation)
%end


class Layer(nn.Module):
%if pre_norm
    """Attention and feed-forward block with residual connections; norms precede the blocks."""
%else
    """Attention and feed-forward block with residual connections; norms follow the sums."""
%end

    def __init__(
        self,
        n_heads: int,
        n_kv_heads: int,
        d_head: int,
        rank: int | None,
        d_ff: int,
        ffn_rank: int | None,
%if mixed
        attention_dtype: torch.dtype,
        ffn_dtype: torch.dtype,
%end
    ) -> None:
        super().__init__()
%if mixed
        self.attention_dtype, self.ffn_dtype = attention_dtype, ffn_dtype
%end
        self.attention_norm = norm(D_MODEL)
        self.attention = Attention(n_heads, n_kv_heads, d_head, rank)
        self.ffn_norm = norm(D_MODEL)
        self.ffn = FeedForward(d_ff, ffn_rank)

    def forward(self, x_BTD: Tensor$more_parameters) -> Tensor:
%if pre_norm
%if mixed
        normed_BTD = self.attention_norm(x_BTD).to(self.attention_dtype)
        x_BTD = x_BTD + self.attention(normed_BTD$more_arguments).to(x_BTD.dtype)
        normed_BTD = self.ffn_norm(x_BTD).to(self.ffn_dtype)
        return x_BTD + self.ffn(normed_BTD).to(x_BTD.dtype)
%else
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD)$more_arguments)
        return x_BTD + self.ffn(self.ffn_norm(x_BTD))
%end
%else
%if mixed
        residual_BTD = self.attention(x_BTD.to(self.attention_dtype)$more_arguments)
        x_BTD = self.attention_norm(x_BTD + residual_BTD.to(x_BTD.dtype))
        residual_BTD = self.ffn(x_BTD.to(self.ffn_dtype))
        return self.ffn_norm(x_BTD + residual_BTD.to(x_BTD.dtype))
%else
        x_BTD = self.attention_norm(x_BTD + self.attention(x_BTD$more_arguments))
        return self.ffn_norm(x_BTD + self.ffn(x_BTD))
%end
%end


%if image
class Patches(nn.Module):
    """Linear embedding of an image's square patches, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(CHANNELS * PATCH**2, D_MODEL)

    def forward(self, images_BCHW: Tensor) -> Tensor:
%if downsampled
        images_BCHW = F.adaptive_avg_pool2d(images_BCHW, (HEIGHT, WIDTH))
%end
        rows, columns = HEIGHT // PATCH, WIDTH // PATCH
        grid = images_BCHW.reshape(-1, CHANNELS, rows, PATCH, columns, PATCH)
        patches = grid.permute(0, 2, 4, 1, 3, 5).reshape(-1, rows * columns, CHANNELS * PATCH**2)
        return self.project(patches)


%end
%if transform
class HeadTransform(nn.Module):
    """Linear layer, activation and norm of each token before the output layer."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(D_MODEL, D_MODEL), norm(D_MODEL)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.norm($transformed)


%end
class Model(nn.Module):
    """The network; see the module's description for its inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = $embed
%if prefix
        self.prefix_ND = nn.Parameter(torch.zeros($n_prefix, D_MODEL))
%end
%if token_types
        self.token_types = nn.Embedding(N_TOKEN_TYPES, D_MODEL)
%end
%if learned_positions
        self.position_TD = nn.Parameter(torch.zeros(N_TOKENS, D_MODEL))
%end
%if embed_norm
        self.embed_norm = norm(D_MODEL)
%end
        self.layers = nn.ModuleList(Layer(*row) for row in LAYERS)
%if pre_norm
        self.norm = norm(D_MODEL)
%end
%if pooler
        self.pooler = nn.Linear(D_MODEL, D_MODEL)
%end
%if transform
        self.head_transform = HeadTransform()
%end
%if embedding
%else
%if tied
%if tied_bias
        self.head = nn.Module()
        self.head.bias_C = nn.Parameter(torch.zeros(N_CLASSES))
%end
%else
        self.head = nn.Linear($d_pooled, $per_token, bias=$head_bias)
%end
%end

    def forward(self, inputs: Tensor) -> Tensor:
%if truncated
        inputs = inputs[:, :N_TOKENS]  # the network reads the beginning of a text
%end
%if padding
        # Mask padding, but never a text's first token: attention over no token gives NaN.
        first_T = torch.arange(inputs.shape[1], device=inputs.device) == 0
        keep_BT = (inputs != $padding) | first_T
%end
%if image
        x_BTD = self.embed(inputs.to(self.embed.project.weight.dtype))
%else
        x_BTD = self.embed(inputs)
%end
%if prefix
        prefix_BND = self.prefix_ND.expand(x_BTD.shape[0], -1, -1)
        x_BTD = torch.cat([prefix_BND, x_BTD], dim=1)
%end
%if token_types
        x_BTD = x_BTD + self.token_types.weight[0]  # all tokens have the first type
%end
%if learned_positions
        x_BTD = x_BTD + self.position_TD[: x_BTD.shape[1]]
%end
%if embed_norm
        x_BTD = self.embed_norm(x_BTD)
%end
        for layer in self.layers:
%if rotary
            angles_2TE = rotary_angles(x_BTD.shape[1], layer.attention.d_head, x_BTD.device)
%end
            x_BTD = layer(x_BTD$more_arguments)
%if pre_norm
        x_BTD = self.norm(x_BTD)
%end
%if pooled
%if mean_pooling
%if image
%if prefix
        x_BD = x_BTD[:, $n_prefix:].mean(dim=1)
%else
        x_BD = x_BTD.mean(dim=1)
%end
%else
        keep_BT1 = keep_BT.unsqueeze(-1).to(x_BTD.dtype)
        x_BD = (x_BTD * keep_BT1).sum(dim=1) / keep_BT1.sum(dim=1)
%end
%else
%if last_pooling
%if image
        x_BD = x_BTD[:, -1]
%else
        positions_T = torch.arange(x_BTD.shape[1], device=x_BTD.device)
        last_B = (positions_T * keep_BT).amax(dim=1)
        x_BD = x_BTD.gather(1, last_B[:, None, None].expand(-1, 1, D_MODEL)).squeeze(1)
%end
%else
%if cls_mean_pooling
        x_BD = torch.cat([x_BTD[:, 0], x_BTD[:, $n_prefix:].mean(dim=1)], dim=-1)
%else
%if prefix_pooling
        x_BD = x_BTD[:, :$n_prefix].flatten(1)
%else
        x_BD = x_BTD[:, 0]
%end
%end
%end
%end
%if pooler
%if relu
        x_BD = self.pooler(x_BD).relu()
%else
        x_BD = self.pooler(x_BD).tanh()
%end
%end
%if embedding
%if unit_vectors
        return F.normalize(x_BD, dim=-1)
%else
        return x_BD
%end
%else
        return self.head(x_BD)
%end
%else
%if prefix
        x_BTD = x_BTD[:, $n_prefix:]  # prefix tokens have no pixels
%end
%if dense
        # Rearrange outputs of patches to outputs of pixels.
        rows, columns = HEIGHT // PATCH, WIDTH // PATCH
        cells = self.head(x_BTD).reshape(-1, rows, columns, PATCH, PATCH, N_CLASSES)
        logits_BHWC = cells.transpose(2, 3).reshape(-1, HEIGHT, WIDTH, N_CLASSES)
%if upsampled
        larger_BCHW = F.interpolate(
            logits_BHWC.permute(0, 3, 1, 2), $size, mode="bilinear", align_corners=False
        )
        return larger_BCHW.permute(0, 2, 3, 1)
%else
        return logits_BHWC
%end
%else
%if detection
        rows, columns = HEIGHT // PATCH, WIDTH // PATCH
        return self.head(x_BTD).reshape(-1, rows, columns, $per_token)
%else
%if predicts_tokens
%if transform
        x_BTD = self.head_transform(x_BTD)
%end
%if tied
%if tied_bias
        return F.linear(x_BTD, self.embed.weight, self.head.bias_C)
%else
        return F.linear(x_BTD, self.embed.weight)
%end
%else
        return self.head(x_BTD)
%end
%else
        return self.head(x_BTD).transpose(1, 2)
%end
%end
%end
%end


WEIGHTS = Path(__file__).with_name("model.safetensors")


def load(weights: Path = WEIGHTS, device: str = "cpu") -> Model:
    """Return the trained network for inference, with the data types of the file ``weights``."""
    model = Model()
    model.load_state_dict(load_file(str(weights)), assign=True)
    return model.eval().requires_grad_(False).to(device)
'''
