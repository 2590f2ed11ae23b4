"""``huggingface/``: a folder that stock classes of ``transformers`` load.

It contains ``config.json`` and tensors by the names of the network's family, the tokenizer and a
model card. Nothing of this package is needed to use it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nas.core.files import read_json, write_json
from nas.exporting.formats.base import ExportFormat, Loaded, Refusal
from nas.exporting.formats.python import read_labels
from nas.exporting.formats.stock import CLASSES, QUANTISED_TOLERANCE, verify_written
from nas.exporting.formats.stock_quantised import quantise_and_verify
from nas.exporting.formats.stock_worker import load_stock, outputs_of
from nas.tasks.base.artifact_files import (
    LABELS,
    PREPROCESSING,
    TOKENIZER,
    VOCABULARY,
    read_prefix,
)
from nas.tasks.text.tokenize import read_tokenizer
from nas.training.weights import load_any_network, read_description
from search_spaces.architecture import Architecture, Precision
from search_spaces.models.pooling import token_mask
from search_spaces.pretrained.files.folder import CONFIG, WEIGHTS
from search_spaces.pretrained.writing.loadable import WRITTEN_PRECISIONS, quantised_precision
from search_spaces.pretrained.writing.new import described_by, write_new
from search_spaces.pretrained.writing.sentences import SENTENCE_FILES
from search_spaces.pretrained.writing.stock import stock_refusals
from search_spaces.workload import Workload

_FOLDER, _TOKENIZER_CONFIG = "huggingface", "tokenizer_config.json"
# The name of the prompt that is put before each text.
_PROMPT_NAME = "text"
_COPIED = (TOKENIZER, PREPROCESSING, VOCABULARY)
# A refusal begins with the field or the blocks.
_GENE = re.compile(r"layers[.\[]\d+\]?\.([\w.]+)|(resolution|blocks \S+)")
_PADDING = "< padding >"


class HuggingFaceFormat(ExportFormat):
    """Folder of the network's family, verified by ``transformers`` alone when it is written."""

    name = "huggingface"
    title = "a folder for stock classes of transformers"
    files: ClassVar[tuple[str, ...]] = tuple(f"{_FOLDER}/{name}" for name in (CONFIG, WEIGHTS))
    optional_files = tuple(
        f"{_FOLDER}/{name}" for name in (*_COPIED, _TOKENIZER_CONFIG, *SENTENCE_FILES)
    )
    card_file = f"{_FOLDER}/README.md"
    packages = ("transformers",)
    extra = "checkpoints"
    precisions: ClassVar[frozenset[Precision]] = frozenset(WRITTEN_PRECISIONS)

    def refusal(
        self, architecture: Architecture, workload: Workload, device: str
    ) -> Refusal | None:
        """Return the first reason why no stock class supports the network."""
        reasons = stock_refusals(architecture, workload)
        if not reasons:
            return None
        field = _GENE.match(reasons[0])
        return Refusal(f"this network: {reasons[0]}", field and (field[1] or field[2]))

    def output_tolerance(self, architecture: Architecture, largest: float) -> float | None:
        """See ``StoredNetwork.output_tolerance``."""
        if quantised_precision(architecture) is not None:
            return QUANTISED_TOLERANCE * largest
        return super().output_tolerance(architecture, largest)

    def write(self, folder: Path) -> Mapping[str, Any]:
        """See ``ExportFormat.write``."""
        architecture, workload = read_description(folder)
        network, shift = load_any_network(folder).eval(), _shift(folder)
        if shift:
            workload = _renumber(network, workload, shift)
        to = folder / _FOLDER
        to.mkdir()
        prefix = read_prefix(folder)
        write_new(
            network,
            architecture,
            workload,
            to,
            labels=read_labels(folder) or (),
            prompts={_PROMPT_NAME: prefix} if prefix else {},
        )
        for name in _COPIED:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, to / name)
        if (folder / TOKENIZER).is_file():
            write_json(to / _TOKENIZER_CONFIG, _tokenizer_config(folder / TOKENIZER, workload))
        if quantised_precision(architecture) is None:
            verification = verify_written(to, network, architecture)
        else:
            described = described_by(network, architecture, workload)
            verification = quantise_and_verify(to, described, network, architecture)
        return {"needs": list(self.packages), "load_verification": verification.to_dict()}

    def load(self, folder: Path, *, device: str, threads: int) -> Loaded:
        """See ``StoredNetwork.load``."""
        torch.set_num_threads(threads)
        architecture, workload = read_description(folder)
        job = {
            "folder": str(folder / _FOLDER),
            "class": CLASSES[workload.kind],
            "kind": workload.kind,
            "dtype": "auto",
            "pooling": architecture.style.pooling,
            "has_unit_vectors": architecture.style.has_unit_vectors,
        }
        network, facts = load_stock(job)
        assert isinstance(network, nn.Module)
        network.to(device)
        shift, is_span = _shift(folder), workload.kind == "question_answering"

        @torch.no_grad()
        def call(inputs: Tensor) -> Tensor:
            keep = token_mask(inputs, workload.padding_token) if workload.has_padding else None
            if shift:
                inputs = (inputs - shift) % (workload.vocab_size or 1)
            outputs = outputs_of(network, inputs, keep, job).float()
            return outputs.transpose(1, 2) if is_span else outputs

        return Loaded(call, facts["version"])


def _shift(folder: Path) -> int:
    """Return what the network's tokens exceed the tokenizer's numbers by."""
    path = folder / LABELS
    return int(read_json(path).get("shift", 0)) if path.is_file() else 0


@torch.no_grad()
def _renumber(network: nn.Module, workload: Workload, shift: int) -> Workload:
    """Renumber the embedding's rows to the tokenizer's own tokens; return the new workload.

    The padding token, which the tokenizer does not have, becomes the last.
    """
    embedding = network.get_parameter("embed.weight")
    embedding.copy_(embedding.roll(-shift, 0))
    padding = (workload.padding_token - shift) % len(embedding)
    return replace(workload, padding_token=padding)


def _tokenizer_config(path: Path, workload: Workload) -> dict[str, Any]:
    length = workload.input_shape[0]
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
    }
    if workload.has_padding:
        tokenizer, padding = read_tokenizer(path, length, 0).tokenizer, workload.padding_token
        name = tokenizer.id_to_token(padding)
        if name is None and tokenizer.get_vocab_size() == padding:
            # Its class gives a new token the next number.
            name = _PADDING
        if name is not None:
            config["pad_token"] = name
    return config
