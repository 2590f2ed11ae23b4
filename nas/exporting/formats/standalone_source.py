"""Python source of exactly one network, which imports torch and safetensors and nothing of ours.

Only what the network does is written: no branch for what it is not. Names of parameters are those
of ``search_spaces.models``, so that the weights are filled in by name. What others chose (names
of tasks and labels) stands in the source as quoted constants only.
"""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces.architecture import Architecture
from search_spaces.workload import Workload

# As ``search_spaces.models.attend``: below, bf16 attention on CPUs takes longer than fp32.
_MOST_WIDENED_TOKENS = 32
_MOST_LABELS = 1000
_DTYPES = {"fp32": "torch.float32", "bf16": "torch.bfloat16"}


def write_source(
    architecture: Architecture, workload: Workload, labels: Sequence[str] | None = None
) -> str:
    """The module's text; ``architecture`` is of one stack, its blocks in fp32 or bf16."""
    parts = [
        _head(workload).rstrip() + "\n\n" + _constants(architecture, workload, labels),
        _PROJECTION,
        _attention(architecture, workload),
        _FEED_FORWARD,
        _layer(architecture, workload),
        _network(architecture, workload),
        _LOAD,
    ]
    return "\n\n\n".join(part.strip("\n") for part in parts) + "\n"


def _precisions(architecture: Architecture) -> set[str]:
    return {block.compression.precision for block in architecture.blocks}


def _is_mixed(architecture: Architecture) -> bool:
    """Whether some block computes in another type than the stream."""
    return _precisions(architecture) != {architecture.stream_precision}


def _reads_padding(workload: Workload) -> bool:
    return not workload.is_image and not workload.is_causal


def _mask(workload: Workload) -> str:
    return ", keep_BT" if _reads_padding(workload) else ""


def _mask_typed(workload: Workload) -> str:
    return ", keep_BT: Tensor" if _reads_padding(workload) else ""


def _head(workload: Workload) -> str:
    sizes = ", ".join(map(str, workload.input_shape))
    inputs = (
        f"images ({sizes}: channels, height, width), float32"
        if workload.is_image
        else f"tokens ({sizes}), int64 from 0 to {(workload.vocab_size or 1) - 1}"
    )
    if workload.is_image:
        note = "standardised as in training"
    elif workload.is_causal:
        note = "the first of a text, or all"
    else:
        note = "0 is padding"
    outputs = {
        "image_classification": f"logits (batch, {workload.n_classes})",
        "text_classification": f"logits (batch, {workload.n_classes})",
        "language_modelling": f"logits of each next token (batch, {sizes}, {workload.n_classes})",
        "image_segmentation": f"logits of each pixel (batch, height, width, {workload.n_classes})",
        "question_answering": f"scores of each token as first and last (batch, 2, {sizes})",
    }[workload.kind]
    return f'''
"""A Transformer that JouleNAS found, by itself: torch and safetensors are all that it needs.

    from model import load

    network = load()             # reads model.safetensors beside this file
    outputs = network(inputs)

Inputs: a batch of {inputs};
{note}.
Outputs: {outputs}.

Names of tensors end with their shapes: B batch, T tokens, D width, Q query heads, K key-value
heads, E features of a head, C channels or classes, H height, W width.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
'''


def _constants(
    architecture: Architecture, workload: Workload, labels: Sequence[str] | None
) -> str:
    mixed = _is_mixed(architecture)
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
    return "\n".join([*lines, ")"])


_PROJECTION = '''
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
'''

_FEED_FORWARD = """
class FeedForward(nn.Module):
    def __init__(self, d_ff: int, rank: int | None) -> None:
        super().__init__()
        self.up = projection(D_MODEL, d_ff, rank)
        self.down = projection(d_ff, D_MODEL, rank)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x_BTD)))
"""


def _attention(architecture: Architecture, workload: Workload) -> str:
    specs = [layer.attention for layer in architecture.layers]
    options = []
    if _reads_padding(workload):
        options.append("attn_mask=keep_BT[:, None, None, :]")
    if workload.is_causal:
        options.append("is_causal=True")
    is_grouped = any(spec.n_heads != spec.n_kv_heads for spec in specs)
    if is_grouped:
        options.append("enable_gqa=True")
    widened = workload.n_tokens(architecture) <= _MOST_WIDENED_TOKENS and any(
        spec.compression.precision == "bf16" for spec in specs
    )
    widen = (
        "        # For so few tokens CPUs are faster in fp32.\n"
        "        q_BQTE, k_BKTE, v_BKTE = q_BQTE.float(), k_BKTE.float(), v_BKTE.float()\n"
        if widened
        else ""
    )
    # As ``search_spaces.models.attend``: flash attention alone takes groups on CUDA.
    has_kernel = not (_reads_padding(workload) or widened) and all(
        spec.compression.precision == "bf16" for spec in specs
    )
    if is_grouped and not has_kernel:
        widen += """        if q_BQTE.is_cuda and self.n_heads != self.n_kv_heads:
            # No fused kernel takes groups of heads there.
            n = self.n_heads // self.n_kv_heads
            k_BKTE, v_BKTE = k_BKTE.repeat_interleave(n, 1), v_BKTE.repeat_interleave(n, 1)
"""
    narrow = ".to(x_BTD.dtype)" if widened else ""
    arguments = "".join(f", {option}" for option in options)
    return f"""
class Attention(nn.Module):
    def __init__(self, n_heads: int, n_kv_heads: int, d_head: int, rank: int | None) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.d_head = n_heads, n_kv_heads, d_head
        self.q = projection(D_MODEL, n_heads * d_head, rank)
        self.k = projection(D_MODEL, n_kv_heads * d_head, rank)
        self.v = projection(D_MODEL, n_kv_heads * d_head, rank)
        self.o = projection(n_heads * d_head, D_MODEL, rank)

    def forward(self, x_BTD: Tensor{_mask_typed(workload)}) -> Tensor:
        q_BQTE = self.split(self.q(x_BTD), self.n_heads)
        k_BKTE = self.split(self.k(x_BTD), self.n_kv_heads)
        v_BKTE = self.split(self.v(x_BTD), self.n_kv_heads)
{widen}        out_BQTE = F.scaled_dot_product_attention(
            q_BQTE, k_BKTE, v_BKTE{arguments}
        ){narrow}
        return self.o(out_BQTE.transpose(1, 2).flatten(2))

    def split(self, x: Tensor, heads: int) -> Tensor:
        return x.reshape(*x.shape[:2], heads, self.d_head).transpose(1, 2)
"""


def _layer(architecture: Architecture, workload: Workload) -> str:
    mask, typed = _mask(workload), _mask_typed(workload)
    arguments = "n_heads: int, n_kv_heads: int, d_head: int, rank: int | None, d_ff: int"
    if _is_mixed(architecture):
        more = ",\n        attention_dtype: torch.dtype,\n        ffn_dtype: torch.dtype,"
        keep = "        self.attention_dtype, self.ffn_dtype = attention_dtype, ffn_dtype\n"
        body = f"""        read_BTD = self.attention_norm(x_BTD).to(self.attention_dtype)
        x_BTD = x_BTD + self.attention(read_BTD{mask}).to(x_BTD.dtype)
        read_BTD = self.ffn_norm(x_BTD).to(self.ffn_dtype)
        return x_BTD + self.ffn(read_BTD).to(x_BTD.dtype)"""
    else:
        more, keep = ",", ""
        body = f"""        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD){mask})
        return x_BTD + self.ffn(self.ffn_norm(x_BTD))"""
    listed = arguments.replace(", ", ",\n        ")
    return f'''
class Layer(nn.Module):
    """Each block reads a norm of the stream and adds to the stream."""

    def __init__(
        self,
        {listed},
        ffn_rank: int | None{more}
    ) -> None:
        super().__init__()
{keep}        self.attention_norm = nn.LayerNorm(D_MODEL)
        self.attention = Attention(n_heads, n_kv_heads, d_head, rank)
        self.ffn_norm = nn.LayerNorm(D_MODEL)
        self.ffn = FeedForward(d_ff, ffn_rank)

    def forward(self, x_BTD: Tensor{typed}) -> Tensor:
{body}
'''


_PATCHES = '''
class Patches(nn.Module):
    """Square patches of an image, in reading order, each mapped to the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(CHANNELS * PATCH**2, D_MODEL)

    def forward(self, images_BCHW: Tensor) -> Tensor:
{shrink}        rows, columns = HEIGHT // PATCH, WIDTH // PATCH
        grid = images_BCHW.reshape(-1, CHANNELS, rows, PATCH, columns, PATCH)
        patches = grid.permute(0, 2, 4, 1, 3, 5).reshape(-1, rows * columns, CHANNELS * PATCH**2)
        return self.project(patches)


'''
_SHRINK = "        images_BCHW = F.adaptive_avg_pool2d(images_BCHW, (HEIGHT, WIDTH))\n"


def _network(architecture: Architecture, workload: Workload) -> str:
    before = ""
    if workload.is_image:
        before = _PATCHES.lstrip("\n").format(
            shrink="" if architecture.resolution is None else _SHRINK
        )
    embed = "Patches()" if workload.is_image else "nn.Embedding(VOCABULARY, D_MODEL)"
    per_token = "N_CLASSES * PATCH**2" if workload.is_dense else "N_CLASSES"
    keep = ""
    if _reads_padding(workload):
        keep = """        # Padding is not read; a text's first token always is.
        first_T = torch.arange(inputs.shape[1], device=inputs.device) == 0
        keep_BT = (inputs != 0) | first_T
"""
    if workload.is_image:
        embedded = "self.embed(inputs.to(self.position_TD.dtype)) + self.position_TD"
    else:
        embedded = "self.embed(inputs) + self.position_TD[: inputs.shape[1]]"
        if architecture.resolution is not None:
            keep = "        inputs = inputs[:, :N_TOKENS]  # no more of a text is read\n" + keep
    return f"""
{before}class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = {embed}
        self.position_TD = nn.Parameter(torch.zeros(N_TOKENS, D_MODEL))
        self.layers = nn.ModuleList(Layer(*row) for row in LAYERS)
        self.norm = nn.LayerNorm(D_MODEL)
        self.head = nn.Linear(D_MODEL, {per_token})

    def forward(self, inputs: Tensor) -> Tensor:
{keep}        x_BTD = {embedded}
        for layer in self.layers:
            x_BTD = layer(x_BTD{_mask(workload)})
        x_BTD = self.norm(x_BTD)
{_outputs(architecture, workload)}
"""


def _outputs(architecture: Architecture, workload: Workload) -> str:
    if workload.kind == "image_classification":
        return "        return self.head(x_BTD.mean(dim=1))"
    if workload.kind == "text_classification":
        return """        keep_BT1 = keep_BT.unsqueeze(-1).to(x_BTD.dtype)
        return self.head((x_BTD * keep_BT1).sum(dim=1) / keep_BT1.sum(dim=1))"""
    if workload.is_causal:
        return "        return self.head(x_BTD)"
    if not workload.is_dense:
        return "        return self.head(x_BTD).transpose(1, 2)"
    size = (workload.input_shape[1], workload.input_shape[2])
    lines = """        # Outputs of patches become those of their pixels.
        rows, columns = HEIGHT // PATCH, WIDTH // PATCH
        cells = self.head(x_BTD).reshape(-1, rows, columns, PATCH, PATCH, N_CLASSES)
        logits_BHWC = cells.transpose(2, 3).reshape(-1, HEIGHT, WIDTH, N_CLASSES)
"""
    if size == workload.image_size(architecture):
        return lines + "        return logits_BHWC"
    return (
        lines
        + f"""        larger_BCHW = F.interpolate(
            logits_BHWC.permute(0, 3, 1, 2), {size}, mode="bilinear", align_corners=False
        )
        return larger_BCHW.permute(0, 2, 3, 1)"""
    )


_LOAD = '''
WEIGHTS = Path(__file__).with_name("model.safetensors")


def load(weights: Path = WEIGHTS, device: str = "cpu") -> Model:
    """The trained network, in the types that its weights are stored in."""
    model = Model()
    model.load_state_dict(load_file(str(weights)), assign=True)
    return model.eval().requires_grad_(False).to(device)
'''
