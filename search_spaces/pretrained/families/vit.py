"""The ViT type: ViT, DeiT and DINOv2 with or without registers, pre-norm encoders of images.

ViT: Dosovitskiy et al. 2021; DeiT: Touvron et al. 2021; DINOv2: Oquab et al. 2023; registers:
Darcet et al. 2024. Images have the size of the checkpoint's position table, which
``Checkpoint.with_image_size`` interpolates. A layer scale is folded into the projections that it
follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_spaces.architecture import Architecture, AttentionSpec, BlockStyle, FfnSpec, LayerSpec
from search_spaces.architecture.style import Activation, BiasStyle, NormStyle, Pooling
from search_spaces.pretrained.families.activations import ACTIVATIONS, NAMES
from search_spaces.pretrained.families.family import (
    Blueprint,
    Family,
    Head,
    Names,
    Piece,
    SizeKeys,
    Stored,
)
from search_spaces.pretrained.families.image_positions import Resizing
from search_spaces.pretrained.files.config import (
    MOST_HEAD_SIZE,
    MOST_HEADS,
    MOST_LAYERS,
    MOST_WIDTH,
    Config,
)
from search_spaces.workload import Workload

_OURS = "layers.{i}"
_MOST_PIXELS, _MOST_CHANNELS, _MOST_REGISTERS = 2**14, 2**10, 2**10
_POOLERS: dict[str, Pooling] = {"tanh": "pooler", "relu": "pooler-relu"}


def _side(config: Config, key: str, default: int) -> tuple[int, int]:
    """Height and width in pixels, which one number or two may say."""
    value = config.take(key)
    if not isinstance(value, list):
        side = config.integer(key, default, most=_MOST_PIXELS)
        return side, side
    is_size = [type(x) is int and 1 <= x <= _MOST_PIXELS for x in value]
    if len(value) != 2 or not all(is_size):
        raise config.error(key, f"one or two integers in 1..{_MOST_PIXELS}", value)
    return value[0], value[1]


def _sizes(config: Config, default_patch: int) -> tuple[tuple[int, int, int], int]:
    """Shape of images, ``(channels, height, width)``, and the side of patches."""
    height, width = _side(config, "image_size", 224)
    patch, other = _side(config, "patch_size", default_patch)
    if patch != other:
        raise config.error("patch_size", "two equal integers", [patch, other])
    if height % patch or width % patch:
        raise config.error("patch_size", f"a divisor of image_size, {height}x{width}", patch)
    return (config.integer("num_channels", 3, most=_MOST_CHANNELS), height, width), patch


def _blueprint(
    config: Config, ffn: FfnSpec, style: BlockStyle, default_patch: int, names: Names
) -> Blueprint:
    width = config.integer("hidden_size")
    heads = config.integer("num_attention_heads", most=MOST_HEADS)
    if "head_dim" not in config and width % heads:
        raise config.error("num_attention_heads", f"a divisor of hidden_size, {width}", heads)
    size = config.integer("head_dim", width // heads, most=MOST_HEAD_SIZE)
    layer = LayerSpec(AttentionSpec(heads, heads, size), ffn)
    shape, patch = _sizes(config, default_patch)
    layers = (layer,) * config.integer("num_hidden_layers", most=MOST_LAYERS)
    return Blueprint(
        Architecture(width, layers, patch, style=style), shape, "image_size", names=names
    )


def _style(
    config: Config, n_prefix: int, pooling: Pooling, epsilon: float, activation: Activation
) -> BlockStyle:
    return BlockStyle(
        NormStyle(epsilon=config.number("layer_norm_eps", epsilon)),
        activation,
        biases=BiasStyle(qkv=config.flag("qkv_bias", True)),
        n_prefix_tokens=n_prefix,
        pooling=pooling,
    )


def _read_vit(config: Config, head: Head) -> Blueprint:
    is_deit = config.take("model_type") == "deit"
    pooling: Pooling = "cls"
    if head.kind == "image_embedding":
        pooler = config.take("pooler_act")
        pooling = "pooler" if pooler is None else config.choice("pooler_act", _POOLERS)
        config.require("pooler_output_size", (config.integer("hidden_size"),))
    elif "head.weight" in head.names:
        pooling = "prefix"
    activation = config.choice("hidden_act", ACTIVATIONS)
    style = _style(config, 1 + is_deit, pooling, 1e-12, activation)
    ffn = FfnSpec(config.integer("intermediate_size"))
    blueprint = _blueprint(config, ffn, style, 16, {})
    if pooling != "prefix":
        return blueprint
    width = blueprint.architecture.d_model
    return Blueprint(
        blueprint.architecture, blueprint.input_shape, blueprint.limit, names=_two_heads(width)
    )


def _write_vit(architecture: Architecture, workload: Workload) -> dict[str, Any]:
    style, (channels, height, width) = architecture.style, workload.input_shape
    return {
        "model_type": "vit",
        "hidden_size": architecture.d_model,
        "hidden_act": NAMES[style.activation],
        "layer_norm_eps": style.norm.epsilon,
        "qkv_bias": style.biases.qkv,
        "image_size": height if height == width else [height, width],
        "patch_size": architecture.patch_size,
        "num_channels": channels,
    }


def _flat_shapes(architecture: Architecture, workload: Workload) -> Mapping[str, tuple[int, ...]]:
    width, side = architecture.d_model, architecture.patch_size
    where = "vit.embeddings"
    return {
        f"{where}.cls_token": (1, 1, width),
        f"{where}.position_embeddings": (1, workload.n_tokens(architecture), width),
        f"{where}.patch_embeddings.projection.weight": (
            *(width, workload.input_shape[0], side, side),
        ),
    }


def _two_heads(width: int) -> Names:
    """The mean of the outputs of two heads, of one token each, as one head on both tokens."""
    one, other = "cls_classifier", "distillation_classifier"
    return {
        "head.weight": (
            Piece(Stored(f"{one}.weight", factor=0.5), 0, width, dim=1),
            Piece(Stored(f"{other}.weight", factor=0.5), width, None, dim=1),
        ),
        "head.bias": (
            Piece(Stored(f"{one}.bias", factor=0.5)),
            Piece(Stored(f"{other}.bias", factor=0.5)),
        ),
    }


def _read_dinov2(config: Config, head: Head) -> Blueprint:
    has_registers = config.take("model_type") == "dinov2_with_registers"
    registers = 0
    if has_registers:
        registers = config.integer("num_register_tokens", 4, least=0, most=_MOST_REGISTERS)
    pooling: Pooling = "cls" if head.kind == "image_embedding" else "cls-mean"
    width = config.integer("hidden_size")
    is_gated = config.flag("use_swiglu_ffn", False)
    inner = _inner_width(width, config.number("mlp_ratio", 4), is_gated)
    activation = config.choice("hidden_act", ACTIVATIONS)
    if is_gated:
        activation = "silu"
    if not 1 <= inner <= MOST_WIDTH:
        raise config.error("mlp_ratio", f"hidden_size's share of 1..{MOST_WIDTH}", inner)
    style = _style(config, 1 + registers, pooling, 1e-6, activation)
    style = BlockStyle.from_dict(style.to_dict() | {"is_gated": is_gated})
    prefix = f"{config.take('model_type')}."
    height, breadth = _side(config, "image_size", 224)
    if height != breadth:
        # Its class would interpolate the positions, as if the table were of a square.
        raise config.error("image_size", "of a square", [height, breadth])
    blueprint = _blueprint(config, FfnSpec(inner), style, 16 if has_registers else 14, {})
    patches = (height // blueprint.architecture.patch_size) ** 2
    names = {**_feed_forward(prefix, is_gated=is_gated)}
    if registers:
        names |= _with_registers(prefix, registers, patches)
    return Blueprint(blueprint.architecture, blueprint.input_shape, blueprint.limit, names=names)


def _inner_width(width: int, ratio: float, is_gated: bool) -> int:
    inner = int(width * ratio)
    # Two thirds, so that three matrices have the size of two, in whole eights.
    return (int(inner * 2 / 3) + 7) // 8 * 8 if is_gated else inner


def _whole_ratio(d_ff: int, width: int, is_gated: bool) -> int | None:
    """The whole ``mlp_ratio`` of a width; the configuration's class refuses other numbers."""
    ratios = range(1, 2 * d_ff // width + 3)
    return next((r for r in ratios if _inner_width(width, r, is_gated) == d_ff), None)


def _feed_forward(prefix: str, *, is_gated: bool) -> Names:
    layer = f"{prefix}encoder.layer.{{i}}"
    scale = f"{layer}.layer_scale2.lambda1"
    if not is_gated:
        return {
            f"{_OURS}.ffn.up": f"{layer}.mlp.fc1",
            f"{_OURS}.ffn.down": Stored(f"{layer}.mlp.fc2", scale=scale),
        }
    return {
        f"{_OURS}.ffn.gate": Stored(f"{layer}.mlp.weights_in", 0, 2),
        f"{_OURS}.ffn.up": Stored(f"{layer}.mlp.weights_in", 1, 2),
        f"{_OURS}.ffn.down": Stored(f"{layer}.mlp.weights_out", scale=scale),
    }


def _with_registers(prefix: str, registers: int, patches: int) -> Names:
    """Registers stand between the class token and the patches, and have no positions."""
    where = f"{prefix}embeddings"
    positions = f"{where}.position_embeddings"
    return {
        "prefix_ND": (
            Piece(Stored(f"{where}.cls_token", is_flat=True), 0, 1),
            Piece(Stored(f"{where}.register_tokens", is_flat=True), 1),
        ),
        "position_TD": (
            Piece(Stored(positions, is_flat=True, rest=patches), 0, 1),
            Piece(Stored(positions, is_flat=True, skip=1), 1 + registers),
        ),
    }


def _names(prefix: str) -> Names:
    """Names that all these have, by the first part of theirs."""
    embeddings, layer = f"{prefix}embeddings", f"{prefix}encoder.layer.{{i}}"
    projection = f"{embeddings}.patch_embeddings.projection"
    return {
        "embed.project.weight": Stored(f"{projection}.weight", is_flat=True),
        "embed.project.bias": f"{projection}.bias",
        "prefix_ND": Stored(f"{embeddings}.cls_token", is_flat=True),
        "position_TD": Stored(f"{embeddings}.position_embeddings", is_flat=True),
        f"{_OURS}.attention.q": f"{layer}.attention.attention.query",
        f"{_OURS}.attention.k": f"{layer}.attention.attention.key",
        f"{_OURS}.attention.v": f"{layer}.attention.attention.value",
        "norm": f"{prefix}layernorm",
    }


def _vit_names(prefix: str) -> Names:
    layer = f"{prefix}encoder.layer.{{i}}"
    return {
        **_names(prefix),
        f"{_OURS}.attention_norm": f"{layer}.layernorm_before",
        f"{_OURS}.attention.o": f"{layer}.attention.output.dense",
        f"{_OURS}.ffn_norm": f"{layer}.layernorm_after",
        f"{_OURS}.ffn.up": f"{layer}.intermediate.dense",
        f"{_OURS}.ffn.down": f"{layer}.output.dense",
    }


def _dinov2(name: str, first: str, resizing: Resizing) -> Family:
    layer = f"{name}.encoder.layer.{{i}}"
    return Family(
        name=name,
        classes={name: first},
        resizing=resizing,
        heads={
            "Model": Head("image_embedding"),
            "ForImageClassification": Head("image_classification", {"head": "classifier"}),
        },
        read=_read_dinov2,
        sizes=SizeKeys(
            d_ff="mlp_ratio",
            d_head="head_dim",
            ffn_value=_whole_ratio,
            ffn_rule="a width of a whole mlp_ratio",
            of_depth=("stage_names", "out_features", "out_indices"),
        ),
        names={
            **_names(f"{name}."),
            f"{_OURS}.attention_norm": f"{layer}.norm1",
            f"{_OURS}.attention.o": Stored(
                f"{layer}.attention.output.dense", scale=f"{layer}.layer_scale1.lambda1"
            ),
            f"{_OURS}.ffn_norm": f"{layer}.norm2",
        },
        prefix=f"{name}.",
        spare=_SPARE,
        # Of feature maps for other networks, and of training.
        harmless=_DROPOUTS
        | {
            "apply_layernorm",
            "drop_path_rate",
            "layerscale_value",
            "out_features",
            "out_indices",
            "reshape_hidden_states",
            "stage_names",
            "use_mask_token",
        },
    )


_SPARE = ("embeddings.mask_token", "pooler.dense.weight", "pooler.dense.bias")
_DROPOUTS = frozenset({"attention_probs_dropout_prob", "hidden_dropout_prob"})
_UNUSED = _DROPOUTS | {"encoder_stride", "pooler_act", "pooler_output_size"}

VIT = Family(
    name="vit",
    classes={"vit": "ViT"},
    resizing=Resizing(),
    heads={
        "Model": Head("image_embedding", {"pooler": "vit.pooler.dense"}),
        "ForImageClassification": Head("image_classification", {"head": "classifier"}),
    },
    read=_read_vit,
    write=_write_vit,
    flat_shapes=_flat_shapes,
    sizes=SizeKeys(d_head="head_dim"),
    names=_vit_names("vit."),
    prefix="vit.",
    spare=_SPARE,
    harmless=_UNUSED,
)
_DEIT_PREFIX = (
    Piece(Stored("deit.embeddings.cls_token", is_flat=True), 0, 1),
    Piece(Stored("deit.embeddings.distillation_token", is_flat=True), 1),
)
DEIT = Family(
    name="deit",
    classes={"deit": "DeiT"},
    resizing=Resizing(),
    heads={
        "Model": Head("image_embedding", {"pooler": "deit.pooler.dense"}),
        "ForImageClassification": Head("image_classification", {"head": "classifier"}),
        # Its names depend on the width: ``_two_heads``.
        "ForImageClassificationWithTeacher": Head(
            "image_classification", {"head.weight": "cls_classifier.weight"}
        ),
    },
    read=_read_vit,
    sizes=SizeKeys(d_head="head_dim"),
    names={**_vit_names("deit."), "prefix_ND": _DEIT_PREFIX},
    prefix="deit.",
    spare=_SPARE,
    harmless=_UNUSED,
)
DINOV2 = _dinov2("dinov2", "Dinov2", Resizing(in_fp32=True))
DINOV2_WITH_REGISTERS = _dinov2(
    "dinov2_with_registers", "Dinov2WithRegisters", Resizing(antialias=True, in_fp32=True)
)
