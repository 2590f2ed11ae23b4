"""What of a task goes with a network that leaves: so that raw inputs can be given to it.

A task may have ``carried()``, which returns the contents of small text files by their names. An
artifact holds them beside its weights. Some names mean something to whoever loads an artifact:
``labels.json`` has ``labels``, the names of the outputs in their order (and ``shift``, if there is
a tokenizer; ``texts``, the columns that are joined by ``separator``, if there are several), and
``tokenizer.json`` cuts texts into tokens; a language model, whose outputs are tokens, has that
alone. ``preprocessing.json`` says how values become inputs: less the ``mean``, by the
``deviation``, both along ``axis`` of an input; and from what they are made (``of``).
``vocabulary.json`` has the ``words`` of a question's network, token by token from ``first`` on.
"""

from __future__ import annotations

from collections.abc import Mapping

LABELS, TOKENIZER, PREPROCESSING = "labels.json", "tokenizer.json", "preprocessing.json"
VOCABULARY = "vocabulary.json"


def carried_by(task: object) -> Mapping[str, str]:
    """Contents of the files that go with a network of ``task``, by their names.

    Raises:
        ValueError: a name is that of a path.
    """
    made = getattr(task, "carried", None)
    files: Mapping[str, str] = {} if made is None else made()
    for name in files:
        if "/" in name or "\\" in name or name.startswith("."):
            raise ValueError(f"a file that a task carries must have a plain name, got {name!r}")
    return files
