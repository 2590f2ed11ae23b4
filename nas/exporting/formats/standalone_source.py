"""Python source of one network as a stand-alone module that imports only torch and safetensors.

``_TEMPLATE`` is the module. Lines between ``%if``, ``%else`` and ``%end`` depend on the network:
no module has branches for other networks. Parameters have the names of
``search_spaces.models``. Names that users chose (tasks, labels) are quoted constants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Template

from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

# As in ``search_spaces.models.attend``: below, bf16 attention on CPUs takes longer than fp32.
_MOST_WIDENED_TOKENS = 32
_MOST_LABELS = 1000
_DTYPES = {"fp32": "torch.float32", "bf16": "torch.bfloat16"}


def write_source(
    architecture: Architecture, workload: Workload, labels: Sequence[str] | None = None
) -> str:
    """Return the module's text; ``architecture`` has one stack, with blocks in fp32 or bf16."""
    flags = _flags(architecture, workload)
    sizes = ", ".join(map(str, workload.input_shape))
    per_token = "N_CLASSES * PATCH**2" if flags["dense"] else "N_CLASSES"
    options = {
        "attn_mask=keep_BT[:, None, None, :]": flags["mask"],
        "is_causal=True": flags["causal"],
        "enable_gqa=True": flags["grouped"],
    }
    return Template(_select(_TEMPLATE, flags)).substitute(
        inputs=f"images ({sizes}: channels, height, width), float32"
        if workload.is_image
        else f"tokens ({sizes}), int64 from 0 to {(workload.vocab_size or 1) - 1}",
        outputs={
            "image_segmentation": f"logits of each pixel (batch, height, width, "
            f"{workload.n_classes})",
            "language_modelling": f"logits of each next token (batch, {sizes}, "
            f"{workload.n_classes})",
            "question_answering": f"scores of each token as first and last (batch, 2, {sizes})",
        }.get(workload.kind, f"logits (batch, {workload.n_classes})"),
        constants="\n".join(_constants(architecture, workload, labels)),
        mask=", keep_BT" if flags["mask"] else "",
        mask_typed=", keep_BT: Tensor" if flags["mask"] else "",
        options="".join(f", {text}" for text, is_set in options.items() if is_set),
        narrow=".to(x_BTD.dtype)" if flags["widened"] else "",
        embed="Patches()" if workload.is_image else "nn.Embedding(VOCABULARY, D_MODEL)",
        per_token=per_token,
        size=workload.input_shape[1:],
    )


def _flags(architecture: Architecture, workload: Workload) -> dict[str, bool]:
    """Return the conditions of ``_TEMPLATE``."""
    attention = [layer.attention for layer in architecture.layers]
    in_bf16 = [spec.compression.precision == "bf16" for spec in attention]
    precisions = {block.compression.precision for block in architecture.blocks}
    mask = not workload.is_image and not workload.is_causal
    widened = workload.n_tokens(architecture) <= _MOST_WIDENED_TOKENS and any(in_bf16)
    grouped = any(spec.n_heads != spec.n_kv_heads for spec in attention)
    resized = architecture.resolution is not None
    return {
        "image": workload.is_image,
        "causal": workload.is_causal,
        "dense": workload.is_dense,
        "pooled": workload.is_pooled,
        "mask": mask,
        # Some block computes in another type than the stream.
        "mixed": precisions != {architecture.stream_precision},
        "widened": widened,
        "grouped": grouped,
        # As in ``search_spaces.models.attend``: on CUDA only flash attention takes groups.
        "repeated": grouped and (mask or widened or not all(in_bf16)),
        "shrunk": workload.is_image and resized,
        "cut": not workload.is_image and resized,
        "enlarged": workload.is_dense
        and workload.input_shape[1:] != workload.image_size(architecture),
    }


def _select(template: str, flags: Mapping[str, bool]) -> str:
    """Return the lines of ``template`` whose conditions hold."""
    lines, active = [], [True]
    for line in template.splitlines(keepends=True):
        word, _, name = line.strip().partition(" ")
        if word == "%if":
            active.append(flags[name])
        elif word == "%else":
            active[-1] = not active[-1]
        elif word == "%end":
            active.pop()
        elif all(active):
            lines.append(line)
    return "".join(lines)


def _constants(
    architecture: Architecture, workload: Workload, labels: Sequence[str] | None
) -> list[str]:
    mixed = _flags(architecture, workload)["mixed"]
    lines = [
        f"TASK = {workload.name!r}",
        f"D_MODEL, N_TOKENS = {architecture.d_model}, {workload.n_tokens(architecture)}",
        f"N_CLASSES = {workload.n_classes}",
    ]
    if workload.is_image:
        height, width = workload.image_size(architecture)
        lines.append(f"CHANNELS, PATCH = {workload.input_shape[0]}, {architecture.patch_size}")
        lines.append(f"HEIGHT, WIDTH = {height}, {width}  # of what is cut into patches")
    else:
        lines.append(f"VOCABULARY = {workload.vocab_size}")
    if labels is not None and len(labels) <= _MOST_LABELS:
        lines += ["# The outputs, in their order.", "LABELS = ("]
        lines += [*(f"    {label!r}," for label in labels), ")"]
    lines += [
        "# A row for each layer: query heads, key-value heads, features of a head, rank of the",
        "# attention's products, width of the feed-forward block, rank of its products"
        + (",\n# what both blocks compute in." if mixed else "."),
        "LAYERS = (",
    ]
    for layer in architecture.layers:
        attention, ffn = layer.attention, layer.ffn
        row: list[object] = [attention.n_heads, attention.n_kv_heads, attention.d_head]
        row += [attention.rank, ffn.d_ff, ffn.rank]
        if mixed:
            row += [_DTYPES[block.compression.precision] for block in (attention, ffn)]
        lines.append(f"    ({', '.join(map(str, row))}),")
    return [*lines, ")"]


_TEMPLATE = '''\
"""A Transformer that JouleNAS found, by itself: torch and safetensors are all that it needs.

    from model import load

    network = load()             # reads model.safetensors beside this file
    outputs = network(inputs)

Inputs: a batch of $inputs;
%if image
standardised as in training.
%end
%if causal
the first of a text, or all.
%end
%if mask
0 is padding.
%end
Outputs: $outputs.

Names of tensors end with their shapes: B batch, T tokens, D width, Q query heads, K key-value
heads, E features of a head, C channels or classes, H height, W width.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

$constants


class LowRank(nn.Module):
    """A product in two factors, which hold fewer weights than the whole."""

    def __init__(self, d_in: int, d_out: int, rank: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(d_in, rank, bias=False)
        self.expand = nn.Linear(rank, d_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.reduce(x))


def projection(d_in: int, d_out: int, rank: int | None) -> nn.Module:
    """Two factors where there is a rank that saves weights, else one matrix."""
    if rank is not None and rank * (d_in + d_out) < d_in * d_out:
        return LowRank(d_in, d_out, rank)
    return nn.Linear(d_in, d_out)


class Attention(nn.Module):
    def __init__(self, n_heads: int, n_kv_heads: int, d_head: int, rank: int | None) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.d_head = n_heads, n_kv_heads, d_head
        self.q = projection(D_MODEL, n_heads * d_head, rank)
        self.k = projection(D_MODEL, n_kv_heads * d_head, rank)
        self.v = projection(D_MODEL, n_kv_heads * d_head, rank)
        self.o = projection(n_heads * d_head, D_MODEL, rank)

    def forward(self, x_BTD: Tensor$mask_typed) -> Tensor:
        q_BQTE = self.split(self.q(x_BTD), self.n_heads)
        k_BKTE = self.split(self.k(x_BTD), self.n_kv_heads)
        v_BKTE = self.split(self.v(x_BTD), self.n_kv_heads)
%if widened
        # For so few tokens CPUs are faster in fp32.
        q_BQTE, k_BKTE, v_BKTE = q_BQTE.float(), k_BKTE.float(), v_BKTE.float()
%end
%if repeated
        if q_BQTE.is_cuda and self.n_heads != self.n_kv_heads:
            # No fused kernel takes groups of heads there.
            n = self.n_heads // self.n_kv_heads
            k_BKTE, v_BKTE = k_BKTE.repeat_interleave(n, 1), v_BKTE.repeat_interleave(n, 1)
%end
        out_BQTE = F.scaled_dot_product_attention(
            q_BQTE, k_BKTE, v_BKTE$options
        )$narrow
        return self.o(out_BQTE.transpose(1, 2).flatten(2))

    def split(self, x: Tensor, heads: int) -> Tensor:
        return x.reshape(*x.shape[:2], heads, self.d_head).transpose(1, 2)


class FeedForward(nn.Module):
    def __init__(self, d_ff: int, rank: int | None) -> None:
        super().__init__()
        self.up = projection(D_MODEL, d_ff, rank)
        self.down = projection(d_ff, D_MODEL, rank)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_BTD)))


class Layer(nn.Module):
    """Each block reads a norm of the stream and adds to the stream."""

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
        self.attention_norm = nn.LayerNorm(D_MODEL)
        self.attention = Attention(n_heads, n_kv_heads, d_head, rank)
        self.ffn_norm = nn.LayerNorm(D_MODEL)
        self.ffn = FeedForward(d_ff, ffn_rank)

    def forward(self, x_BTD: Tensor$mask_typed) -> Tensor:
%if mixed
        read_BTD = self.attention_norm(x_BTD).to(self.attention_dtype)
        x_BTD = x_BTD + self.attention(read_BTD$mask).to(x_BTD.dtype)
        read_BTD = self.ffn_norm(x_BTD).to(self.ffn_dtype)
        return x_BTD + self.ffn(read_BTD).to(x_BTD.dtype)
%else
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD)$mask)
        return x_BTD + self.ffn(self.ffn_norm(x_BTD))
%end


%if image
class Patches(nn.Module):
    """Square patches of an image, in reading order, each mapped to the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(CHANNELS * PATCH**2, D_MODEL)

    def forward(self, images_BCHW: Tensor) -> Tensor:
%if shrunk
        images_BCHW = F.adaptive_avg_pool2d(images_BCHW, (HEIGHT, WIDTH))
%end
        rows, columns = HEIGHT // PATCH, WIDTH // PATCH
        grid = images_BCHW.reshape(-1, CHANNELS, rows, PATCH, columns, PATCH)
        patches = grid.permute(0, 2, 4, 1, 3, 5).reshape(-1, rows * columns, CHANNELS * PATCH**2)
        return self.project(patches)


%end
class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = $embed
        self.position_TD = nn.Parameter(torch.zeros(N_TOKENS, D_MODEL))
        self.layers = nn.ModuleList(Layer(*row) for row in LAYERS)
        self.norm = nn.LayerNorm(D_MODEL)
        self.head = nn.Linear(D_MODEL, $per_token)

    def forward(self, inputs: Tensor) -> Tensor:
%if cut
        inputs = inputs[:, :N_TOKENS]  # no more of a text is read
%end
%if mask
        # Padding is not read; a text's first token always is.
        first_T = torch.arange(inputs.shape[1], device=inputs.device) == 0
        keep_BT = (inputs != 0) | first_T
%end
%if image
        x_BTD = self.embed(inputs.to(self.position_TD.dtype)) + self.position_TD
%else
        x_BTD = self.embed(inputs) + self.position_TD[: inputs.shape[1]]
%end
        for layer in self.layers:
            x_BTD = layer(x_BTD$mask)
        x_BTD = self.norm(x_BTD)
%if pooled
%if image
        return self.head(x_BTD.mean(dim=1))
%else
        keep_BT1 = keep_BT.unsqueeze(-1).to(x_BTD.dtype)
        return self.head((x_BTD * keep_BT1).sum(dim=1) / keep_BT1.sum(dim=1))
%end
%else
%if dense
        # Outputs of patches become those of their pixels.
        rows, columns = HEIGHT // PATCH, WIDTH // PATCH
        cells = self.head(x_BTD).reshape(-1, rows, columns, PATCH, PATCH, N_CLASSES)
        logits_BHWC = cells.transpose(2, 3).reshape(-1, HEIGHT, WIDTH, N_CLASSES)
%if enlarged
        larger_BCHW = F.interpolate(
            logits_BHWC.permute(0, 3, 1, 2), $size, mode="bilinear", align_corners=False
        )
        return larger_BCHW.permute(0, 2, 3, 1)
%else
        return logits_BHWC
%end
%else
%if causal
        return self.head(x_BTD)
%else
        return self.head(x_BTD).transpose(1, 2)
%end
%end
%end


WEIGHTS = Path(__file__).with_name("model.safetensors")


def load(weights: Path = WEIGHTS, device: str = "cpu") -> Model:
    """The trained network, in the types that its weights are stored in."""
    model = Model()
    model.load_state_dict(load_file(str(weights)), assign=True)
    return model.eval().requires_grad_(False).to(device)
'''
