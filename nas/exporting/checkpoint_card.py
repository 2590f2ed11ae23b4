"""Model card of an exported checkpoint: its parent, its licence, and the changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from nas.core.markdown import plain
from nas.core.units import format_bytes
from nas.core.versions import described
from nas.exporting.model_card import describe_load


def render_card(card: Mapping[str, Any]) -> str:
    """Return ``README.md`` of ``nas.exporting.checkpoint``'s card."""
    parent, verification = card["parent"], card["load_verification"]
    kind = "gguf" if card["weights"].endswith(".gguf") else "safetensors"
    front: dict[str, Any] = {"tags": ["joulenas", kind]}
    if verification["auto_class"] is not None:
        front["library_name"] = "transformers"
    if parent["license"] is not None:
        front["license"] = parent["license"]
    if "/" in parent["name"]:
        # The hub requires owner/name.
        front["base_model"] = parent["name"]
    licence = (
        f"The parent's card names the licence {plain(parent['license'])}"
        if parent["license"] is not None
        else "The parent's card names no licence: ask its authors"
    )
    changes = [f"- {plain(change)}" for change in card["changed"]] or ["- nothing"]
    size = format_bytes(card["files"][card["weights"]])
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {plain(parent['name'])}, exported by JouleNAS",
        "",
        f"The parent is {plain(parent['name'])}. {licence}.",
        "",
        f"- Parent: {plain(parent['architecture'])}, {parent['params']:,} parameters.",
        f"- This network: {plain(card['architecture'])}, {card['params']:,} parameters, {size}.",
        "",
        "Changed:",
        "",
        *changes,
        "",
        "Layers are evenly spaced over the parent's. Heads and feed-forward channels are those of "
        "the largest weight norms in their layer. **Nothing was trained after pruning, and no "
        "quality was evaluated**: fine-tune it before use.",
        "",
        "```python",
        *_use(verification, card["weights"] if kind == "gguf" else None),
        "```",
        "",
        describe_load(verification),
        "",
        f"Written by {plain(described(card['versions']))}.",
        "",
    ]
    return "\n".join(lines)


def _use(verification: Mapping[str, Any], gguf_file: str | None) -> list[str]:
    """Return lines of code that load the network."""
    auto_class: str | None = verification["auto_class"]
    if auto_class is not None:
        is_quantised = verification["n_exact"] > 0
        more = f', gguf_file="{gguf_file}"' if gguf_file else ', dtype="auto"' * is_quantised
        return [
            f"from transformers import {auto_class}",
            "",
            *(["# torchao must be installed."] if is_quantised else []),
            f'network = {auto_class}.from_pretrained("this folder"{more})',
        ]
    return [
        "import sys",
        "",
        'sys.path.insert(0, "this folder/python")',
        "from model import load",
        "",
        "network = load()",
    ]
