"""The task of a search from a checkpoint: the user's, in the checkpoint's tokens or pixels.

It is a task file of its own beside the checkpoint in the run directory. Paths to data are
absolute, and what the checkpoint defines takes the place of the user's options.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nas.core.files import write_text
from nas.inheriting import TASK
from nas.inheriting.adapt import kind_for, padding_token_of
from nas.tasks.base import SPLITS
from nas.tasks.base.artifact_files import TOKENIZER
from nas.tasks.base.task_file import TaskFile, read_task_file
from nas.tasks.registry import is_task_file
from search_spaces.pretrained import Checkpoint
from search_spaces.pretrained.files.folder import PREPROCESSOR, read_json
from search_spaces.workload import Kind

# Tokens of a text where the task file names no number: checkpoints read more than most texts have.
_TOKENS = 128
_KINDS: dict[str, Kind] = {
    "embeddings": "text_embedding",
    "text_classification": "text_classification",
    "hf": "text_classification",
    "language_modelling": "language_modelling",
    "images": "image_classification",
}
# Keys of paths beside those of the splits.
_OTHER_PATHS = ("validation_pairs", "test_pairs")
# Options that the checkpoint replaces.
_OF_TOKENS = (
    *("tokenizer", "tokens", "max_vocabulary", "lowercase", "word_letters"),
    *("checkpoint", "padding_token", "vocab_size"),
)
_OF_PIXELS = ("mean", "deviation", "channels")
# Values of pixels before a preprocessor scales them.
_LARGEST_PIXEL = 255.0


@dataclass(frozen=True, slots=True)
class ParentTask:
    """Content of the task file, the kind of its workload, and lines on what was replaced."""

    content: dict[str, Any]
    kind: Kind
    notes: tuple[str, ...]

    def write(self, folder: Path) -> Path:
        """Write the file into ``folder``; return its path."""
        path = folder / TASK
        write_text(path, yaml.safe_dump(self.content, sort_keys=False, allow_unicode=True))
        return path


def task_of_parent(checkpoint: Checkpoint, task: str) -> ParentTask:
    """Return the task in the file ``task`` as ``checkpoint`` reads it.

    Raises:
        ValueError: ``task`` is no task file or of another kind, or its sizes are none that the
            checkpoint reads; one line.
    """
    if not is_task_file(task):
        raise ValueError(f"task must be a task file (.yaml) with a checkpoint, got {task!r}")
    path = Path(task).resolve()
    try:
        file = read_task_file(path, default_kind="text_classification")
        if file.kind not in _KINDS or (file.kind == "hf" and "image" in file.options):
            raise ValueError(
                f"kind must be text_classification, language_modelling, embeddings, images or hf "
                f"with a text column for a search from a checkpoint, got {file.kind!r}"
            )
        kind = _KINDS[file.kind]
        kind_for(checkpoint, kind)
        options = {"kind": file.kind, **_absolute(file)}
        if kind == "image_classification":
            own, notes = _pixels(checkpoint, options)
        else:
            own, notes = _tokens(checkpoint, options, kind)
    except ValueError as error:
        raise ValueError(f"task file {path}: {error}") from None
    dropped = _OF_PIXELS if kind == "image_classification" else _OF_TOKENS
    replaced = [key for key in dropped if key in options and key not in own]
    replaced += [key for key in own if key in options and options[key] != own[key]]
    kept = {key: value for key, value in options.items() if key not in dropped}
    if replaced:
        notes.append(f"the checkpoint's own replace {', '.join(dict.fromkeys(replaced))}")
    return ParentTask({**kept, **own}, kind, tuple(notes))


def _absolute(file: TaskFile) -> dict[str, Any]:
    """Return the options of a task file with absolute paths to data."""
    options = dict(file.options)
    for key in ("data", *SPLITS, *_OTHER_PATHS):
        if isinstance(options.get(key), str):
            options[key] = str(file.data_path(key))
        elif isinstance(options.get(key), dict):
            options[key] = {
                name: str((file.path.parent / part).resolve()) if isinstance(part, str) else part
                for name, part in options[key].items()
            }
    dataset = options.get("dataset")
    if file.kind == "hf" and isinstance(dataset, str):
        local = (file.path.parent / dataset).resolve()
        options["dataset"] = str(local) if local.exists() else dataset
    return options


def _tokens(
    checkpoint: Checkpoint, options: dict[str, Any], kind: Kind
) -> tuple[dict[str, Any], list[str]]:
    """Return the options of a text task that the checkpoint defines, and notes."""
    path = checkpoint.tokenizer
    if path is None or (not checkpoint.files and path.name != TOKENIZER):
        raise ValueError(
            f"checkpoint {checkpoint.folder} must have {TOKENIZER}: save its tokenizer by "
            f"transformers' AutoTokenizer, which writes it"
        )
    key = "context_length" if kind == "language_modelling" else "sequence_length"
    longest = checkpoint.longest
    assert longest is not None
    length, notes = options.get(key), []
    if length is None:
        length = min(longest, _TOKENS)
        notes.append(f"texts have {length} of at most {longest} tokens; {key} of the task file "
                     f"changes it")  # fmt: skip
    if type(length) is int and length > longest:
        raise ValueError(
            f"{key} must be at most {longest} ({checkpoint.limit} of the checkpoint), got {length}"
        )
    own: dict[str, Any] = {
        key: length,
        "tokenizer": TOKENIZER,
        "vocab_size": checkpoint.workload.vocab_size,
    }
    if kind != "language_modelling":
        own["padding_token"] = padding_token_of(checkpoint)
    if kind == "text_embedding":
        # The task file is beside the checkpoint's files.
        own["checkpoint"] = "."
    return own, notes


def _pixels(checkpoint: Checkpoint, options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the options of an image task that the checkpoint defines, and notes."""
    channels, height, width = checkpoint.workload.input_shape
    size, notes = options.get("size"), []
    own: dict[str, Any] = {"channels": channels}
    if size is None:
        own["size"] = [height, width]
    else:
        sides = size if isinstance(size, list) else [size, size]
        if len(sides) != 2 or not all(type(side) is int for side in sides):
            raise ValueError(f"size must be pixels or [height, width] of them, got {size!r}")
        checkpoint.with_image_size(sides[0], sides[1])
    scale = _scale(checkpoint, channels)
    if scale is None:
        notes.append(
            f"the checkpoint has no {PREPROCESSOR}: pixels are standardised by the training data"
        )
    else:
        own |= scale
    return own, notes


def _scale(checkpoint: Checkpoint, channels: int) -> dict[str, Any] | None:
    """Return mean and deviation of pixels by the checkpoint's preprocessor, ``None`` without."""
    path = checkpoint.preprocessor
    if path is None:
        return None
    values = read_json(path)
    factor = _LARGEST_PIXEL
    if values.get("do_rescale", True) is not True:
        factor = 1.0
    elif isinstance(values.get("rescale_factor"), float) and values["rescale_factor"] > 0:
        factor = 1.0 / values["rescale_factor"]
    if values.get("do_normalize", True) is not True:
        return {"mean": [0.0] * channels, "deviation": [factor] * channels}
    scale = {}
    for key, name in (("mean", "image_mean"), ("deviation", "image_std")):
        numbers = values.get(name)
        if not isinstance(numbers, list) or len(numbers) != channels:
            raise ValueError(f"{path}: {name} must be {channels} numbers, got {numbers!r}")
        if not all(isinstance(number, int | float) for number in numbers):
            raise ValueError(f"{path}: {name} must be {channels} numbers, got {numbers!r}")
        scale[key] = [float(number) * factor for number in numbers]
    return scale
