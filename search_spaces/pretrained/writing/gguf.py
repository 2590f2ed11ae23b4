"""Write a network of the Llama type as one GGUF file, for llama.cpp and ``transformers``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture
from search_spaces.pretrained.checkpoint import Checkpoint
from search_spaces.pretrained.families.family import SizeKeys
from search_spaces.pretrained.files.folder import (
    MOST_TOKENIZER,
    TOKENIZERS,
    Folder,
    read_json,
)
from search_spaces.pretrained.files.tensors import interleaved_rows
from search_spaces.pretrained.gguf.configuration import CLASSES, hyperparameters
from search_spaces.pretrained.gguf.names import interleaved_heads, stored_name
from search_spaces.pretrained.gguf.package import (
    Written,
    dequantised,
    file_type,
    quantised,
    type_named,
    write_file,
)
from search_spaces.pretrained.gguf.tokenizer_metadata import tokenizer_metadata
from search_spaces.pretrained.writing.folder import configuration_of
from search_spaces.pretrained.writing.loadable import family_named, refusals
from search_spaces.pretrained.writing.tensors import stored_tensors

_FAMILY = "llama"
# Type of vectors, such as norms and biases, as in llama.cpp's own files.
_VECTORS = "F32"
# transformers reads heads of this size from Qwen3 files, whatever their metadata say.
_QWEN3_HEAD = 128
_TOKENIZER, _TOKENIZER_CONFIG = TOKENIZERS[0], "tokenizer_config.json"


def gguf_kind(checkpoint: Checkpoint) -> str:
    """Return GGUF's name of the checkpoint's architecture: Mistral's is ``llama``."""
    return checkpoint.model_type if checkpoint.model_type in CLASSES else "llama"


def check_gguf(checkpoint: Checkpoint, architecture: Architecture, kind: str) -> None:
    """Raise ``ValueError`` with the first reason why GGUF does not support ``architecture``.

    Args:
        checkpoint: The parent.
        architecture: The network's.
        kind: Type of the weights, such as ``Q8_0``.
    """
    reasons = gguf_refusals(checkpoint, architecture, kind)
    if reasons:
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise ValueError(f"{reasons[0]}{more}")
    tokenizer_of(checkpoint)


def gguf_refusals(
    checkpoint: Checkpoint, architecture: Architecture, kind: str
) -> tuple[str, ...]:
    """Return the reasons why GGUF does not support ``architecture``, empty if it does.

    Args:
        checkpoint: The parent, or the description of a network without one.
        architecture: The network's.
        kind: Type of the weights, such as ``Q8_0``.
    """
    return tuple(_gguf_refusals(checkpoint, architecture, kind))


def _gguf_refusals(checkpoint: Checkpoint, architecture: Architecture, kind: str) -> Iterator[str]:
    if checkpoint.family != _FAMILY:
        yield (
            f"the checkpoint is of the family {checkpoint.family}, and GGUF is supported for the "
            f"Llama type only ({', '.join(family_named(_FAMILY).classes)})"
        )
        return
    if checkpoint.workload.kind != "language_modelling":
        yield (
            f"the checkpoint's head is for {checkpoint.workload.kind.replace('_', ' ')}, and "
            f"GGUF files of the Llama type have that of language modelling"
        )
        return
    name = gguf_kind(checkpoint)
    yield from _style(checkpoint, name)
    keys = SizeKeys(
        depth=f"{name}.block_count",
        heads=f"{name}.attention.head_count",
        d_ff=f"{name}.feed_forward_length",
        kv_heads=f"{name}.attention.head_count_kv",
        d_head=f"{name}.attention.key_length",
    )
    yield from refusals(checkpoint, architecture, keys=keys, place="GGUF")
    for placed in architecture.placed_blocks:
        precision = placed.spec.compression.precision
        if precision != "fp32":
            yield (
                f"{placed.path}.precision is {precision}, and must be fp32: --gguf-type sets the "
                f"type of the weights"
            )
    yield from _sizes(architecture, name, kind)


def _style(checkpoint: Checkpoint, name: str) -> Iterator[str]:
    """Yield the reasons in the style, which all layers share."""
    style = checkpoint.architecture.style
    if style.activation != "silu":
        yield f"style.activation is {style.activation}, and GGUF files of {name} have silu"
    if style.positions.scaling is not None:
        yield (
            f"style.positions.scaling is {style.positions.scaling.kind}, which transformers does "
            f"not read from GGUF, so that outputs could not be compared"
        )
    if style.biases.o or style.biases.ffn or (style.biases.qkv and name != "qwen2"):
        yield (
            f"style.biases are on, which transformers does not read from GGUF files of {name}, so "
            f"that outputs could not be compared"
        )
    numbers = {"norm.epsilon": style.norm.epsilon, "positions.theta": style.positions.theta}
    for field, value in numbers.items():
        if float(str(np.float32(value))) != value:
            yield f"style.{field} is {value!r}, and GGUF stores numbers of 32 bits"


def _sizes(architecture: Architecture, name: str, kind: str) -> Iterator[str]:
    """Yield the reasons in sizes, which are equal in all layers."""
    layer, width = architecture.layers[0], architecture.d_model
    heads, size = layer.attention.n_heads, layer.attention.d_head
    read = {"qwen2": width // heads, "qwen3": _QWEN3_HEAD}.get(name, size)
    if read != size:
        yield (
            f"layers[0].attention has {heads} heads of size {size}, and transformers reads heads "
            f"of {read} from GGUF files of {name}, so that outputs could not be compared"
        )
    block = type_named(kind).block_values
    rows = {
        "d_model": width,
        "layers[0].attention.n_heads * d_head": heads * size,
        "layers[0].ffn.d_ff": layer.ffn.d_ff,
    }
    for field, n_values in rows.items():
        if n_values % block:
            yield f"{field} is {n_values}, and must be a multiple of {block} with {kind}"


def tokenizer_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the metadata of the checkpoint's tokenizer.

    Raises:
        ValueError: GGUF does not support it.
    """
    content, use = None, {}
    if checkpoint.files:
        content = checkpoint.files.get(_TOKENIZER)
        use = dict(checkpoint.files.get(_TOKENIZER_CONFIG, {}))
    elif checkpoint.tokenizer is not None:
        if checkpoint.tokenizer.name != _TOKENIZER:
            raise ValueError(
                f"{checkpoint.tokenizer} is not supported in GGUF: save it as {_TOKENIZER}"
            )
        content = read_json(checkpoint.tokenizer, most=MOST_TOKENIZER)
        path = Folder(checkpoint.folder).find(_TOKENIZER_CONFIG)
        use = {} if path is None else read_json(path)
    vocab_size = checkpoint.workload.vocab_size or 0
    where = checkpoint.tokenizer or checkpoint.folder
    return tokenizer_metadata(content, use, configuration_of(checkpoint), vocab_size, where)


def write_gguf(
    checkpoint: Checkpoint,
    network: nn.Module,
    architecture: Architecture,
    path: Path,
    *,
    kind: str,
    metadata: Mapping[str, Any],
) -> None:
    """Write ``network`` to the file ``path``.

    Args:
        checkpoint: The parent.
        network: The dense fp32 network of ``architecture``.
        architecture: One that ``check_gguf`` allows.
        path: The new file.
        kind: Type of weights, ``F32``, ``F16`` or ``Q8_0``; vectors are F32.
        metadata: Texts and numbers about the file, whose keys begin with ``general.``.

    Raises:
        ValueError: GGUF does not support the network, or a value is not finite in ``kind``.
        OSError: the file cannot be written.
    """
    check_gguf(checkpoint, architecture, kind)
    name, vocab_size = gguf_kind(checkpoint), checkpoint.workload.vocab_size or 0
    values = {
        **metadata,
        "general.type": "model",
        "general.file_type": file_type(kind),
        **hyperparameters(architecture, name, vocab_size, checkpoint.longest or 1),
        **tokenizer_of(checkpoint),
    }
    attention = architecture.layers[0].attention
    tensors = []
    for stored, tensor in stored_tensors(checkpoint, network).items():
        if stored.endswith(family_named(checkpoint.family).spare):
            continue
        heads = interleaved_heads(stored, name, attention.n_heads, attention.n_kv_heads)
        rows = tensor[interleaved_rows(len(tensor), heads)] if heads else tensor
        tensors.append(
            Written(stored_name(stored, name), _type_of(tensor, kind), rows.float().numpy())
        )
    write_file(path, name, values, tensors)


def rounded(parameter: Tensor, kind: str) -> Tensor:
    """Return the values that a parameter has in a file whose weights have the type ``kind``."""
    of_tensor = _type_of(parameter, kind)
    if of_tensor == "F32":
        return parameter.detach()
    rows = quantised(parameter.detach().numpy(), of_tensor)
    return torch.from_numpy(dequantised(rows.view(np.uint8), of_tensor))


def _type_of(tensor: Tensor, kind: str) -> str:
    return _VECTORS if tensor.dim() == 1 else kind
