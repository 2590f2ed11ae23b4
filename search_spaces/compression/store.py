"""Compressed networks on disk, in compressed form: safetensors, no pickle.

Plain tensors are stored by parameter name, the parts of a quantised weight as ``name:part``, and
2:4 weights as ``name:values`` and ``name:positions``: the two non-zero weights of each four, with
two bits of position each. The kind of each weight follows from the architecture: loading builds
the network and fills it.

Trained fp32 weights and ``apply.compress`` give the same network on any device; this form is
smaller to ship. The layout of 4-bit weights is of one kind of device (and on CPUs of one
instruction set), and loads only there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nas.core.files import write_atomic
from search_spaces.architecture import Architecture
from search_spaces.compression.apply import compress, device_of
from search_spaces.models.build import build
from search_spaces.models.transformer import Transformer
from search_spaces.workload import Workload

_FORMAT = "joulenas-compressed-1"
_VALUES, _POSITIONS = "values", "positions"


def save_compressed(model: Transformer, architecture: Architecture, path: Path) -> None:
    """Write a network of ``apply.compress`` atomically.

    Raises:
        ValueError: a weight is of a kind without a stored form; nothing is written.
    """
    tensors = stored_tensors(model, architecture)
    metadata = {
        "format": _FORMAT,
        "architecture": architecture.hash,
        "layout": _layout(architecture, device_of(model)),
    }
    write_atomic(path, lambda temporary: save_file(tensors, str(temporary), metadata))


def load_compressed(
    architecture: Architecture, workload: Workload, path: Path, *, device: str = "cpu"
) -> Transformer:
    """Read what ``save_compressed`` wrote; outputs are the same to the bit.

    Raises:
        ValueError: the file is missing, corrupt, of another architecture, or laid out for
            another kind of device.
    """
    if not path.is_file():
        raise ValueError(f"compressed weights {path} must exist, and do not")
    try:
        with safe_open(str(path), framework="pt", device=device) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"compressed weights {path} must be safetensors: {error}") from None
    required = {
        "format": _FORMAT,
        "architecture": architecture.hash,
        "layout": _layout(architecture, torch.device(device).type),
    }
    for key, value in required.items():
        if metadata.get(key) != value:
            raise ValueError(
                f"compressed weights {path} must have {key} {value!r}, got {metadata.get(key)!r}"
            )
    model = compress(build(architecture, workload, generator_seed=0).to(device), architecture)
    _fill(model, architecture, tensors, path)
    return model


def stored_tensors(model: Transformer, architecture: Architecture) -> dict[str, Tensor]:
    """Return the tensors that ``save_compressed`` writes, by name.

    Raises:
        ValueError: a weight is of a kind without a stored form.
    """
    sparse = _sparse_weights(model, architecture)
    stored: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        data = parameter.data
        dense = data.to_dense() if _is_semi_structured(data) else data
        for part, tensor in _parts(name, dense):
            if name in sparse and part in ("", "qdata"):
                values, positions = pack_2_4(tensor)
                prefix = f"{name}:{part}" if part else name
                stored[f"{prefix}:{_VALUES}"] = values
                stored[f"{prefix}:{_POSITIONS}"] = positions
            else:
                stored[f"{name}:{part}" if part else name] = tensor.contiguous()
    return stored


def pack_2_4(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Return values ``(d_out, d_in / 2)`` and positions, a byte for each two groups of four.

    Raises:
        ValueError: a group of four has more than two non-zero values.
    """
    groups_G4 = weight_OI.reshape(-1, 4)
    present_G4 = groups_G4 != 0
    if bool((present_G4.sum(dim=1) > 2).any()):
        raise ValueError("weights must hold two values of each four, got more")
    selected_G2 = present_G4.to(torch.uint8).topk(2, dim=1).indices.sort(dim=1).values
    values = groups_G4.gather(1, selected_G2).reshape(weight_OI.shape[0], -1)
    codes_G = (selected_G2[:, 0] | selected_G2[:, 1] << 2).to(torch.uint8)
    if len(codes_G) % 2:
        codes_G = torch.cat([codes_G, codes_G.new_zeros(1)])
    return values.contiguous(), codes_G[0::2] | codes_G[1::2] << 4


def unpack_2_4(values: Tensor, positions: Tensor) -> Tensor:
    """Invert ``pack_2_4``: ``(d_out, d_in)``."""
    values_G2 = values.reshape(-1, 2)
    codes_G = torch.stack([positions & 15, positions >> 4], dim=1).flatten()[: len(values_G2)]
    selected_G2 = torch.stack([codes_G & 3, codes_G >> 2], dim=1).long()
    groups_G4 = values.new_zeros(len(values_G2), 4).scatter_(1, selected_G2, values_G2)
    return groups_G4.reshape(values.shape[0], -1)


def _fill(
    model: Transformer, architecture: Architecture, tensors: Mapping[str, Tensor], path: Path
) -> None:
    """Copy stored values into a network of the same architecture."""
    from torch.sparse import to_sparse_semi_structured

    required = stored_tensors(model, architecture)
    for name in sorted(required.keys() | tensors.keys()):
        mine, theirs = (
            (tuple(t[name].shape), t[name].dtype) if name in t else None
            for t in (required, tensors)
        )
        if mine != theirs:
            raise ValueError(f"compressed weights {path} must hold {mine} as {name}, got {theirs}")
    sparse = _sparse_weights(model, architecture)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            for part, own in _parts(name, parameter.data):
                prefix = f"{name}:{part}" if part else name
                if name in sparse and part in ("", "qdata"):
                    value = unpack_2_4(
                        tensors[f"{prefix}:{_VALUES}"], tensors[f"{prefix}:{_POSITIONS}"]
                    )
                else:
                    value = tensors[prefix]
                if not _is_semi_structured(own):
                    own.copy_(value)
                    continue
                weight = nn.Parameter(to_sparse_semi_structured(value), requires_grad=False)
                owner, _, attribute = name.rpartition(".")
                setattr(model.get_submodule(owner), attribute, weight)


def _parts(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and values of the plain tensors that ``tensor`` consists of."""
    if type(tensor) is Tensor or _is_semi_structured(tensor):
        yield "", tensor
    elif type(tensor).__module__.startswith("torchao."):
        optional = getattr(tensor, "optional_tensor_data_names", [])
        for part in [*tensor.tensor_data_names, *optional]:  # type: ignore[attr-defined]
            inner = getattr(tensor, part)
            if inner is not None:
                yield part, inner
    else:
        raise ValueError(f"{name} must be a plain, sparse or torchao tensor, got {type(tensor)}")


def _is_semi_structured(tensor: Tensor) -> bool:
    from torch.sparse import SparseSemiStructuredTensor

    return isinstance(tensor, SparseSemiStructuredTensor)


def _sparse_weights(model: nn.Module, architecture: Architecture) -> set[str]:
    """Return the names of the 2:4 weights."""
    return {
        f"{placed.path}.{name}.weight"
        for placed in architecture.placed_blocks
        if placed.spec.compression.sparsity == "2:4"
        for name, module in model.get_submodule(placed.path).named_modules()
        if isinstance(module, nn.Linear)
    }


def _layout(architecture: Architecture, device_type: str) -> str:
    """Kind of device that the stored form is for; ``any`` without 4-bit weights."""
    if all(block.compression.precision != "int4wo" for block in architecture.blocks):
        return "any"
    if device_type == "cpu":
        # The packed order of 4-bit weights follows the width of the vector registers.
        return f"cpu {torch.backends.cpu.get_cpu_capability()}"
    return device_type
