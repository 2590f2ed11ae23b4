"""Write how vectors are made of a network's stream, as sentence-transformers stores it.

The format is that of sentence-transformers 2 to 5: ``modules.json`` lists the network, its pooling
and perhaps the division by lengths; ``pretrained.sentences`` reads it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nas.core.files import write_json
from search_spaces.architecture import Architecture
from search_spaces.architecture.style import Pooling
from search_spaces.pretrained.sentences import (
    MODULES,
    POOLING,
    SENTENCE_BERT,
    SENTENCES,
    is_stored,
)
from search_spaces.workload import Workload

SENTENCE_FILES = (MODULES, POOLING, SENTENCES, SENTENCE_BERT)
_FLAGS: Mapping[Pooling, str] = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "last": "pooling_mode_lasttoken",
}
_MODULE = "sentence_transformers.models"


def write_sentence_files(
    architecture: Architecture, workload: Workload, to: Path, prompts: Mapping[str, str]
) -> tuple[str, ...]:
    """Write the files into the existing folder ``to``; return their names.

    Nothing is written for a pooling that sentence-transformers does not have, such as a pooler's.
    The first of ``prompts``, texts by name, is put before each text.

    Raises:
        OSError: the folder cannot be written.
    """
    style = architecture.style
    if not is_stored(style.pooling):
        return ()
    names = ["Transformer", "Pooling", *(["Normalize"] if style.has_unit_vectors else [])]
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{name}" if index else "",
            "type": f"{_MODULE}.{name}",
        }
        for index, name in enumerate(names)
    ]
    pooling = {"word_embedding_dimension": architecture.d_model}
    pooling |= {flag: mode == style.pooling for mode, flag in _FLAGS.items()}
    (to / POOLING).parent.mkdir(exist_ok=True)
    write_json(to / MODULES, modules)
    write_json(to / POOLING, pooling)
    write_json(
        to / SENTENCES,
        {
            "prompts": dict(prompts),
            "default_prompt_name": next(iter(prompts), None),
            "similarity_fn_name": "cosine",
        },
    )
    # The tokenizer says already whether texts are in lower case.
    write_json(
        to / SENTENCE_BERT,
        {"max_seq_length": workload.input_shape[0], "do_lower_case": False},
    )
    return SENTENCE_FILES
