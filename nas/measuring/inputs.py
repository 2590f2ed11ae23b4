"""Real inputs of a task for a checkpoint, in the checkpoint's own tokens.

Shape legend: N samples, T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.measuring.subject import Subject
from nas.tasks.base import Task
from nas.tasks.base.artifact_files import TOKENIZER, artifact_files_of
from nas.tasks.base.problems import Problems
from nas.tasks.embeddings.task import Embeddings
from nas.tasks.sequences.language_modelling import LanguageModelling
from nas.tasks.text.classification import TextClassification
from nas.tasks.text.tokenize import TextEncoder, read_tokenizer

# Characters that fill a token, but for rare ones.
_MOST_CHARACTERS = 10


@dataclass(frozen=True, slots=True)
class Inputs:
    """A batch, ``None`` for random inputs; ``note`` says why."""

    batch: NDArray[Any] | None
    note: str = ""


def inputs_of(task: Task, subject: Subject) -> Inputs:
    """Return a batch of the task's validation split, texts cut by the checkpoint's tokenizer.

    Raises:
        ValueError: the task's data or the tokenizer are invalid.
    """
    workload = subject.workloads[0]
    if workload.is_image:
        samples = task.split("validation").inputs
        rows = np.resize(np.arange(len(samples)), workload.batch_size)
        return Inputs(np.asarray(samples[rows], dtype=np.float32))
    path, made = subject.checkpoint.tokenizer, subject.checkpoint.files.get(TOKENIZER)
    if path is None or (made is None and path.name != TOKENIZER):
        folder = subject.checkpoint.folder.name
        return Inputs(None, f"tokens are random: {folder} has no {TOKENIZER}")
    texts = _texts(task, workload.input_shape[0])
    if texts is None:
        return Inputs(None, f"tokens are random: task {task.name} has no raw texts")
    chosen = list(islice(texts, workload.batch_size))
    chosen = [chosen[i % len(chosen)] for i in range(workload.batch_size)]
    length = workload.input_shape[0]
    if made is None:
        encoder = read_tokenizer(path, length, shift=0)
    else:
        text = json.dumps(made)
        encoder = TextEncoder.from_json(text, length, shift=0, where=str(path))
    tokens_NT, lengths_N = encoder.encode_measured(chosen)
    is_padding_NT = np.arange(tokens_NT.shape[1]) >= lengths_N[:, None]
    tokens_NT[is_padding_NT] = workload.padding_token
    vocab_size = workload.vocab_size or 0
    if tokens_NT.max() >= vocab_size:
        raise ValueError(
            f"{path} must have tokens below the checkpoint's vocabulary of {vocab_size}, got "
            f"{tokens_NT.max()}"
        )
    return Inputs(tokens_NT)


def write_inputs(inputs: Inputs, folder: Path) -> Path | None:
    """Write the batch as ``inputs.npy`` into ``folder``."""
    if inputs.batch is None:
        return None
    path = folder / "inputs.npy"
    np.save(path, inputs.batch)
    return path


def _texts(task: Task, length: int) -> Iterator[str] | None:
    """Return the validation texts of a task, ``None`` if it has none.

    Passages of language modelling are joined to fill ``length`` tokens.
    """
    if isinstance(task, TextClassification | Embeddings):
        problems = Problems()
        rows = task.read(problems)
        problems.check()
        prefix = task.options.prefix if isinstance(task, Embeddings) else ""
        return (f"{prefix}{row.text}" for row in rows["validation"])
    if isinstance(task, LanguageModelling):
        samples = task.split("validation").inputs
        text = artifact_files_of(task)[TOKENIZER]
        encoder = TextEncoder.from_json(text, samples.shape[1], shift=0, where=TOKENIZER)
        n_joined = -(-_MOST_CHARACTERS * length // samples.shape[1])
        return (
            "".join(encoder.decode(row.tolist()) for row in samples[start : start + n_joined])
            for start in range(0, len(samples), n_joined)
        )
    return None
