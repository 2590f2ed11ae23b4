"""A mixed space with everything that stock classes refuse, and workloads of every kind."""

from dataclasses import replace

from style_fakes import ANSWER, IMAGE, LM, SEGMENT, TEXT

from search_spaces.space import SearchSpace
from search_spaces.space.domains import Choice

OBLONG = replace(IMAGE, input_shape=(3, 8, 12))
# The blocks that a class computes, by workload.
HELD = {
    LM: ("gpt2", "llama", "qwen2", "qwen3"),
    TEXT: ("bert",),
    ANSWER: ("bert",),
    OBLONG: ("vit",),
    SEGMENT: (),
}
_GENES = {
    "name": "mixed",
    "d_model": [16, 24, 32],
    "depth": [1, 2, 3],
    "n_heads": [1, 2, 4],
    "n_kv_heads": [1, 2, 4],
    "ffn_ratio": [0.5, 1, 2],
    "attention_rank": [None, 0.25],
    "ffn_rank": [None, 0.25],
    "attention_precision": ["int8", "bf16", "fp32"],
    "ffn_precision": ["fp32", "bf16", "int8"],
    "attention_sparsity": ["dense", "2:4"],
    "ffn_sparsity": ["dense", "2:4"],
}


def mixed(workload, *blocks, **changes):
    """A space of ``blocks``, by default ``default`` and all that are held for ``workload``."""
    genes = _GENES | {"blocks": list(blocks) or ["default", *HELD[workload]]}
    if workload.is_image:
        genes["patch_size"] = [2, 4]
    return SearchSpace.from_dict(genes | changes)


def loadable(workload, *blocks):
    """The loadable part of that space."""
    space = mixed(workload, *(blocks or HELD[workload]), loadable="transformers")
    return replace(space, domains={**space.domains, "blocks": Choice(blocks or HELD[workload])})
