"""Text files of a task that an artifact contains beside its weights, so that it reads raw inputs.

``labels.json``: ``labels``, the names of the outputs in order; with a tokenizer its ``shift``;
``texts``, the columns that ``separator`` joins, if there are several.
``tokenizer.json``: the tokenizer. Language models, whose outputs are tokens, have that alone.
``preprocessing.json``: ``mean`` and ``deviation`` along ``axis`` of an input standardise it;
``of`` describes how a file becomes values.
``prompt.json``: the ``prefix`` that is put before each text, where there is one.
``vocabulary.json``: the ``words`` of a question answering network, token by token from ``first``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nas.core.files import read_json
from nas.tasks.base import Task

# Some inputs of an artifact, and their expected outputs.
CHECK = "check.safetensors"
LABELS, TOKENIZER, PREPROCESSING = "labels.json", "tokenizer.json", "preprocessing.json"
VOCABULARY, PROMPT = "vocabulary.json", "prompt.json"


def artifact_files_of(task: Task) -> Mapping[str, str]:
    """Return ``task.artifact_files()``, whose names must be plain.

    Raises:
        ValueError: a name is a path or hidden.
    """
    files = task.artifact_files()
    for name in files:
        if "/" in name or "\\" in name or name.startswith("."):
            raise ValueError(f"a task's file in an artifact must have a plain name, got {name!r}")
    return files


def read_prefix(folder: Path) -> str:
    """Return what the artifact in ``folder`` puts before each text, empty if it names nothing.

    Raises:
        ValueError: the file is invalid.
    """
    path = folder / PROMPT
    if not path.is_file():
        return ""
    data = read_json(path)
    prefix = data.get("prefix") if isinstance(data, dict) else None
    if not isinstance(prefix, str):
        raise ValueError(f"prefix in {path} must be a text, got {prefix!r}")
    return prefix
