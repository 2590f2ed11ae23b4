"""``huggingface/``: a folder for the Hugging Face hub.

It contains ``config.json``, ``model.safetensors``, a model card and the stand-alone ``model.py``.
The ``transformers`` library has no class for these networks: ``model.py`` loads them, not
``AutoModel``.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from nas.core.files import write_json
from nas.exporting.formats.python import SOURCE, STORED, PythonFormat, read_labels
from nas.tasks.base.artifact_files import LABELS, PREPROCESSING, TOKENIZER, VOCABULARY
from nas.training.weights import read_description

CONFIG = "config.json"
_FOLDER = "huggingface"
_TASK_FILES = (LABELS, TOKENIZER, PREPROCESSING, VOCABULARY)
_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


class HuggingFaceFormat(PythonFormat):
    """The ``python`` format with a configuration, the task's files and a model card."""

    name = "huggingface"
    title = "a folder for the Hugging Face hub"
    folder = _FOLDER
    files: ClassVar[tuple[str, ...]] = tuple(f"{_FOLDER}/{n}" for n in (CONFIG, STORED, SOURCE))
    # Users of this folder alone need them to make inputs.
    optional_files = tuple(f"{_FOLDER}/{n}" for n in _TASK_FILES)
    card_file = f"{_FOLDER}/README.md"

    def write(self, folder: Path) -> Mapping[str, Any]:
        """See ``ExportFormat.write``."""
        facts = super().write(folder)
        architecture, workload = read_description(folder)
        labels = read_labels(folder) or []
        config = {
            "model_type": "joulenas-transformer",
            "architectures": ["Model"],
            "torch_dtype": _DTYPES[architecture.stream_precision],
            "hidden_size": architecture.d_model,
            "num_hidden_layers": architecture.depth,
            "num_labels": workload.n_classes,
            "vocab_size": workload.vocab_size,
            "id2label": {str(index): label for index, label in enumerate(labels)},
            "label2id": {label: index for index, label in enumerate(labels)},
            "joulenas": {"architecture": architecture.to_dict(), "workload": workload.to_dict()},
        }
        write_json(folder / self.folder / CONFIG, config)
        for name in _TASK_FILES:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, folder / self.folder / name)
        return facts
