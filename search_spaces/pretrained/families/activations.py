"""Activations by their names in configurations."""

from __future__ import annotations

from search_spaces.architecture.style import Activation

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
# Of each activation the first name.
NAMES: dict[Activation, str] = {kind: name for name, kind in reversed(ACTIVATIONS.items())}
