"""What a ``BlockStyle`` says, in torch: norms, residuals, feed-forward, embeddings, positions.

Every network of ours calls these functions and decides nothing of its own. Projections are
``projection``'s. ``nas.exporting.formats.standalone_source`` repeats the style as source text,
``search_spaces.cost`` as closed forms.

Shape legend: B batch, T tokens, D d_model, N prefix tokens, H heads, E d_head.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import BlockStyle
from search_spaces.architecture.style import Activation, PositionStyle
from search_spaces.workload import Workload

# Position vectors start at a size comparable with the embedded input: with the usual 0.02 small
# vision models took several times as many epochs to tell patches apart.
POSITION_STD = 0.5
# Embeddings of tokens start small, and their positions smaller still: training hardly moves rare
# tokens, so that their initial vectors stay as noise.
TOKEN_STD, TOKEN_POSITION_STD = 0.1, 0.05

Map = Callable[[Tensor], Tensor]


def make_norm(style: BlockStyle, width: int) -> nn.LayerNorm | nn.RMSNorm:
    """Make a norm of ``width`` features."""
    kind = nn.LayerNorm if style.norm.kind == "layer" else nn.RMSNorm
    return kind(width, eps=style.norm.epsilon)


def norm_by(x: Tensor, style: BlockStyle, gain: Tensor, bias: Tensor | None) -> Tensor:
    """Normalise the last dimension as a norm of ``make_norm`` with these parameters."""
    if style.norm.kind == "layer":
        return F.layer_norm(x, (x.shape[-1],), gain, bias, style.norm.epsilon)
    return F.rms_norm(x, (x.shape[-1],), gain, style.norm.epsilon)


def final_norm(style: BlockStyle, width: int) -> nn.Module:
    """Make the norm after the last layer, which itself ends with one in post-norm networks."""
    return make_norm(style, width) if style.is_pre_norm else nn.Identity()


def residual(
    style: BlockStyle, x_BTD: Tensor, norm: nn.Module, block: Callable[..., Tensor], *rest: object
) -> Tensor:
    """Add a block's output to the stream; the norm is before the block or after the sum.

    Sources: post-norm, Vaswani et al. 2017; pre-norm, Xiong et al. 2020.
    """
    if style.is_pre_norm:
        return x_BTD + block(norm(x_BTD), *rest)
    out_BTD: Tensor = norm(x_BTD + block(x_BTD, *rest))
    return out_BTD


def feed_forward(
    style: BlockStyle, x_BTD: Tensor, up: Map, down: Map, gate: Map | None = None
) -> Tensor:
    """Apply the projections of a feed-forward block with the activation between."""
    if gate is None:
        return down(activate(up(x_BTD), style.activation))
    return down(activate(gate(x_BTD), style.activation) * up(x_BTD))


def activate(x: Tensor, activation: Activation) -> Tensor:
    """Apply the activation."""
    match activation:
        case "gelu":
            return F.gelu(x)
        case "gelu-tanh":
            return F.gelu(x, approximate="tanh")
        case "relu":
            return F.relu(x)
        case "silu":
            return F.silu(x)


def token_embedding(n_tokens: int, d_model: int) -> nn.Embedding:
    """Make the embedding of a vocabulary."""
    embedding = nn.Embedding(n_tokens, d_model)
    nn.init.normal_(embedding.weight, std=TOKEN_STD)
    return embedding


def position_table(
    style: BlockStyle, workload: Workload, n_tokens: int, d_model: int
) -> nn.Parameter | None:
    """Make a learned position table ``(T, D)``; other styles of positions have none."""
    if style.positions.kind != "learned":
        return None
    std = POSITION_STD if workload.is_image else TOKEN_POSITION_STD
    return nn.Parameter(torch.randn(n_tokens, d_model) * std)


def prefix_tokens(style: BlockStyle, d_model: int) -> nn.Parameter | None:
    """Make the learned tokens ``(N, D)`` before an image's patches, where the style has some."""
    if not style.n_prefix_tokens:
        return None
    return nn.Parameter(torch.randn(style.n_prefix_tokens, d_model) * TOKEN_POSITION_STD)


class HeadTransform(nn.Module):
    """A linear map, activation and norm before an output layer over a vocabulary.

    Source: Devlin et al. 2019, the head of masked language modelling in their code.
    """

    def __init__(self, style: BlockStyle, d_model: int) -> None:
        """Build the map and the norm."""
        super().__init__()
        self.style = style
        self.dense = nn.Linear(d_model, d_model)
        self.norm = make_norm(style, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)`` to the same shape."""
        out: Tensor = self.norm(activate(self.dense(x), self.style.activation))
        return out


class TiedHead(nn.Module):
    """An output layer whose weight is an embedding's; it has a bias at most."""

    def __init__(self, n_classes: int, *, has_bias: bool) -> None:
        """Make the bias, which starts at zero."""
        super().__init__()
        self.bias_C = nn.Parameter(torch.zeros(n_classes)) if has_bias else None

    def forward(self, x: Tensor, embedding_CD: Tensor) -> Tensor:
        """``(..., D)`` to logits ``(..., C)``."""
        return F.linear(x, embedding_CD, self.bias_C)


def make_head(
    style: BlockStyle, workload: Workload, d_model: int, n_outputs: int
) -> nn.Linear | TiedHead | nn.Identity:
    """Make the output layer, tied to the embedding where the style and the workload say so."""
    if workload.is_embedding:
        return nn.Identity()
    if workload.has_tied_head(style):
        return TiedHead(n_outputs, has_bias=style.biases.head)
    width = d_model * (style.n_pooled if workload.is_pooled else 1)
    return nn.Linear(width, n_outputs, bias=style.biases.head)


def apply_head(head: nn.Module, x: Tensor, embed: nn.Module) -> Tensor:
    """Logits of ``x``; a tied head reads the weight of ``embed``."""
    logits: Tensor = head(x, embed.weight) if isinstance(head, TiedHead) else head(x)
    return logits


def rotation(positions_T: Tensor, d_head: int, how: PositionStyle) -> Tensor:
    """Cosines and sines of the angles of each feature at each position, ``(2, T, E)``.

    In fp32 whatever the network's type, as in the checkpoints' own code.
    """
    device = positions_T.device
    exponents_F = torch.arange(0, d_head, 2, dtype=torch.int64, device=device).float() / d_head
    frequencies_F = 1.0 / (how.theta**exponents_F)
    scaling = how.scaling
    if scaling is not None and scaling.kind == "linear":
        frequencies_F = frequencies_F / scaling.factor
    elif scaling is not None:
        wavelengths_F = 2 * math.pi / frequencies_F
        low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
        share_F = (scaling.original_length / wavelengths_F - low) / (high - low)
        share_F = share_F.clamp(0, 1)
        frequencies_F = (1 - share_F) * frequencies_F / scaling.factor + share_F * frequencies_F
    angles_TF = positions_T[:, None].float() * frequencies_F
    angles_TE = torch.cat([angles_TF, angles_TF], dim=-1)
    return torch.stack([angles_TE.cos(), angles_TE.sin()])


def rotate(x_BHTE: Tensor, rotation_2TE: Tensor) -> Tensor:
    """Rotate each pair of features ``(i, i + E / 2)`` by the angle of its position."""
    cosines_TE, sines_TE = rotation_2TE.to(x_BHTE.dtype).unbind()
    first, second = x_BHTE.chunk(2, dim=-1)
    return x_BHTE * cosines_TE + torch.cat([-second, first], dim=-1) * sines_TE


class Rotations:
    """Rotations of one pass for each size of heads; ``None`` where positions are not rotary."""

    def __init__(self, style: BlockStyle, positions_T: Tensor) -> None:
        """Take the positions of the tokens that are read."""
        self._how, self._positions_T = style.positions, positions_T
        self._by_size: dict[int, Tensor] = {}

    def of(self, d_head: int) -> Tensor | None:
        """Rotation of heads of ``d_head`` features, computed once, ``(2, T, E)``."""
        if self._how.kind != "rotary":
            return None
        if d_head not in self._by_size:
            self._by_size[d_head] = rotation(self._positions_T, d_head, self._how)
        return self._by_size[d_head]
