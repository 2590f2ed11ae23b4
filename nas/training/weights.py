"""Save and load trained weights as safetensors files, written atomically. No pickle."""

from __future__ import annotations

from dataclasses import dataclass

from safetensors.torch import load_model, save_model
from torch import nn

from nas.core.files import Place, as_local, read_json, size_of, write_atomic
from search_spaces.architecture import Architecture
from search_spaces.cost.counting import count
from search_spaces.models.build import build, build_network
from search_spaces.models.transformer import Transformer
from search_spaces.workload import Workload

# Files of a trained network in an artifact's folder.
WEIGHTS, ARCHITECTURE, WORKLOAD = "model.safetensors", "architecture.json", "workload.json"


def save_weights(model: nn.Module, path: Place) -> None:
    """Write the parameters of ``model``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda temporary: save_model(model, str(temporary)))


def load_weights(model: nn.Module, path: Place) -> nn.Module:
    """Load weights that ``save_weights`` wrote into ``model``.

    Raises:
        ValueError: the file is missing, corrupt, or contains another model's weights.
    """
    if not path.is_file():
        raise ValueError(f"weights {path} must exist, and do not")
    with as_local(path) as local:
        try:
            load_model(model, str(local))
        except Exception as error:
            # safetensors raises its own error type and RuntimeError for mismatched names.
            raise ValueError(
                f"weights {path} must fit the architecture: {str(error).splitlines()[0]}"
            ) from error
    return model


@dataclass(frozen=True, slots=True)
class Network:
    """A trained fp32 network, not compressed, with its architecture and workload."""

    model: Transformer
    architecture: Architecture
    workload: Workload


def load_network(folder: Place) -> Network:
    """Load the Transformer whose architecture, workload and weights are in ``folder``.

    Raises:
        ValueError: a file is missing, corrupt or does not fit the others.
    """
    architecture, workload = read_description(folder)
    check_size(architecture, workload, folder / WEIGHTS)
    model = build(architecture, workload)
    load_weights(model, folder / WEIGHTS)
    return Network(model, architecture, workload)


def load_any_network(folder: Place) -> nn.Module:
    """Load the network in ``folder``, of any family.

    Raises:
        ValueError: a file is missing, corrupt or does not fit the others, or the family is not
            registered.
    """
    architecture, workload = read_description(folder)
    check_size(architecture, workload, folder / WEIGHTS)
    return load_weights(build_network(architecture, workload), folder / WEIGHTS)


def check_size(architecture: Architecture, workload: Workload, weights: Place) -> None:
    """Check the size of a weights file before the network is built.

    Untrusted input may describe a network that does not fit into memory.

    Raises:
        ValueError: the file is missing, or has less than one bit for each parameter.
    """
    if not weights.is_file():
        raise ValueError(f"weights {weights} must exist, and do not")
    params, size = count(architecture, workload).params, size_of(weights)
    if size < params / 8:
        raise ValueError(
            f"weights {weights} must be those of {params:,} parameters, got a file of {size} bytes"
        )


def read_description(folder: Place) -> tuple[Architecture, Workload]:
    """Read the architecture and the workload of the network in ``folder``.

    Raises:
        ValueError: a file is missing or corrupt.
    """
    return (
        Architecture.from_dict(read_json(folder / ARCHITECTURE)),
        Workload.from_dict(read_json(folder / WORKLOAD)),
    )
