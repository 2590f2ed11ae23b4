"""Source of a stand-alone module for one network, which imports only torch and safetensors.

The module is made from ``standalone_template``: ``%if FLAG``, ``%else`` and ``%end`` select lines
by properties of the network, so that the module has no branches for other networks. Parameters
have the names that they have in ``search_spaces.models``. Names that users chose (tasks, labels)
are quoted constants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Template

from nas.exporting.formats.standalone_template import TEMPLATE
from search_spaces.architecture import Architecture, BlockStyle
from search_spaces.architecture.style import RotaryScaling
from search_spaces.workload import BOX_OUTPUTS, Workload

# As in ``search_spaces.models.attend``: up to here bf16 attention is slower than fp32 on CPUs.
_MOST_FP32_TOKENS = 32
_MOST_LABELS = 1000
_DTYPES = {"fp32": "torch.float32", "bf16": "torch.bfloat16"}


def write_source(
    architecture: Architecture, workload: Workload, labels: Sequence[str] | None = None
) -> str:
    """Return the module's source.

    Args:
        architecture: Has one stack of layers, with blocks in fp32 or bf16.
        workload: The network's workload.
        labels: Names of the outputs, if known.
    """
    flags, style = _flags(architecture, workload), architecture.style
    sizes = ", ".join(map(str, workload.input_shape))
    per_token = "N_CLASSES * PATCH**2" if flags["dense"] else "N_CLASSES"
    if flags["detection"]:
        per_token = f"N_CLASSES + {BOX_OUTPUTS}"
    options = {
        "attn_mask=keep_BT[:, None, None, :]": flags["masks_attention"],
        "is_causal=True": flags["causal"],
        "enable_gqa=True": flags["grouped"],
    }
    return Template(_select(TEMPLATE, flags)).substitute(
        inputs=f"images ({sizes}: channels, height, width), float32"
        if workload.is_image
        else f"tokens ({sizes}), int64 from 0 to {(workload.vocab_size or 1) - 1}",
        outputs={
            "image_segmentation": f"logits of each pixel (batch, height, width, "
            f"{workload.n_classes})",
            "object_detection": f"(batch, rows, columns, {workload.n_outputs}) of each patch: "
            f"logit of an object, {BOX_OUTPUTS - 1} of its box,\nlogits of "
            f"{workload.n_classes} classes",
            "language_modelling": f"logits of the next token at each token (batch, {sizes}, "
            f"{workload.n_classes})",
            "masked_language_modelling": f"logits of each token (batch, {sizes}, "
            f"{workload.n_classes})",
            "text_embedding": f"vectors (batch, {workload.n_classes})",
            "image_embedding": f"vectors (batch, {workload.n_classes})",
            "question_answering": f"logits of the answer's first and last token "
            f"(batch, 2, {sizes})",
        }.get(workload.kind, f"logits (batch, {workload.n_classes})"),
        constants="\n".join(_constants(architecture, workload, labels)),
        more_arguments=", keep_BT" * flags["masks_attention"] + ", angles_2TE" * flags["rotary"],
        more_parameters=", keep_BT: Tensor" * flags["masks_attention"]
        + ", angles_2TE: Tensor" * flags["rotary"],
        padding=workload.padding_token,
        n_prefix=style.n_prefix_tokens,
        d_pooled=f"D_MODEL * {style.n_pooled}"
        if style.n_pooled > 1 and workload.is_pooled
        else "D_MODEL",
        options="".join(f", {text}" for text, is_set in options.items() if is_set),
        cast_back=".to(x_BTD.dtype)" if flags["attends_in_fp32"] else "",
        embed="Patches()" if workload.is_image else "nn.Embedding(VOCABULARY, D_MODEL)",
        per_token=per_token,
        norm=_norm(style),
        epsilon=style.norm.epsilon,
        activation=_activated(style, "self.gate(x_BTD)" if style.is_gated else "self.up(x_BTD)"),
        transformed=_activated(style, "self.dense(x_BTD)"),
        **{f"{name}_bias": getattr(style.biases, name) for name in ("qkv", "o", "ffn", "head")},
        **_angles(style),
        size=workload.input_shape[1:],
    )


def _flags(architecture: Architecture, workload: Workload) -> dict[str, bool]:
    """Return the flags that ``%if`` in ``TEMPLATE`` tests."""
    attention = [layer.attention for layer in architecture.layers]
    in_bf16 = [spec.compression.precision == "bf16" for spec in attention]
    precisions = {block.compression.precision for block in architecture.blocks}
    resized, style = architecture.resolution is not None, architecture.style
    is_causal = workload.reads_past_only(style)
    masks_attention = workload.has_padding and not is_causal
    # In causal networks padding can change the output of pooling only.
    pools_by_padding = workload.is_pooled and style.pooling in ("mean", "last")
    attends_in_fp32 = workload.n_tokens(architecture) <= _MOST_FP32_TOKENS and any(in_bf16)
    grouped = any(spec.n_heads != spec.n_kv_heads for spec in attention)
    return {
        "pre_norm": style.is_pre_norm,
        "embed_norm": style.norm.after_embeddings,
        "head_norms": style.norm.on_queries_and_keys,
        "gated": style.is_gated,
        "learned_positions": style.positions.kind == "learned",
        "rotary": style.is_rotary,
        "linear_scaling": style.positions.scaling is not None
        and style.positions.scaling.kind == "linear",
        "llama3_scaling": style.positions.scaling is not None
        and style.positions.scaling.kind == "llama3",
        "token_types": style.n_token_types > 0,
        "prefix": style.n_prefix_tokens > 0,
        "mean_pooling": style.pooling == "mean",
        "last_pooling": style.pooling == "last",
        "cls_mean_pooling": style.pooling == "cls-mean",
        "prefix_pooling": style.pooling == "prefix",
        "pooler": workload.is_pooled and style.has_pooler,
        "relu": style.pooling == "pooler-relu",
        "transform": workload.has_head_transform(style),
        "embedding": workload.is_embedding,
        "unit_vectors": style.has_unit_vectors,
        "tied": workload.has_tied_head(style),
        "tied_bias": workload.has_tied_head(style) and style.biases.head,
        "image": workload.is_image,
        "causal": is_causal,
        "decoder": workload.is_causal,
        "predicts_tokens": workload.predicts_tokens,
        "dense": workload.is_dense,
        "detection": workload.is_detection,
        "pooled": workload.is_pooled,
        "padding": masks_attention or (workload.has_padding and pools_by_padding),
        "masks_attention": masks_attention,
        # Some block computes in another precision than the residual stream.
        "mixed": precisions != {architecture.stream_precision},
        "attends_in_fp32": attends_in_fp32,
        "grouped": grouped,
        # On CUDA, of the fused kernels only flash attention supports grouped heads: bf16, no mask.
        "repeats_kv_heads": grouped and (masks_attention or attends_in_fp32 or not all(in_bf16)),
        "downsampled": workload.is_image and resized,
        "truncated": not workload.is_image and resized,
        "upsampled": workload.is_dense
        and workload.input_shape[1:] != workload.image_size(architecture),
    }


def _activated(style: BlockStyle, operand: str) -> str:
    """Return the source of the activation of ``operand``."""
    return {
        "gelu": "F.gelu({})",
        "gelu-tanh": 'F.gelu({}, approximate="tanh")',
        "relu": "F.relu({})",
        "silu": "F.silu({})",
    }[style.activation].format(operand)


def _norm(style: BlockStyle) -> str:
    return {"layer": "nn.LayerNorm", "rms": "nn.RMSNorm"}[style.norm.kind]


def _angles(style: BlockStyle) -> dict[str, object]:
    """Return the constants of the rotary position embedding in ``TEMPLATE``."""
    scaling = style.positions.scaling or RotaryScaling()
    return {
        "theta": style.positions.theta,
        "factor": scaling.factor,
        "low": scaling.low_frequency_factor,
        "high": scaling.high_frequency_factor,
        "original": scaling.original_length,
    }


def _select(template: str, flags: Mapping[str, bool]) -> str:
    """Return the lines of ``template`` that ``flags`` select."""
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
        lines.append("# Size of the image that is split into patches.")
        lines.append(f"HEIGHT, WIDTH = {height}, {width}")
    else:
        lines.append(f"VOCABULARY = {workload.vocab_size}")
    if architecture.style.n_token_types:
        lines.append(f"N_TOKEN_TYPES = {architecture.style.n_token_types}")
    if labels is not None and len(labels) <= _MOST_LABELS:
        lines += ["# Names of the outputs, in order.", "LABELS = ("]
        lines += [*(f"    {label!r}," for label in labels), ")"]
    lines += [
        "# One row per layer: query heads, key-value heads, features of a head, rank of the",
        "# attention's weights (None: full rank), width of the feed-forward block, rank of its",
        f"# weights{', precision of attention, precision of the feed-forward block' * mixed}.",
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
