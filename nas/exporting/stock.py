"""Verify an exported checkpoint in a fresh process without JouleNAS, by a stock class."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from nas.exporting import stock_worker
from nas.exporting.artifact import ExportError
from nas.exporting.fresh_process import findings_of
from search_spaces.models.transformer import Transformer
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor

    from search_spaces.architecture import BlockStyle

# Allowed difference of an output, relative to the largest: stock classes sum in another order.
_TOLERANCE = 1e-4
_TIMEOUT_S = 1800.0
_LENGTHS, _MOST_TOKENS, _BATCH = (1, 7), 128, 2
_CLASSES = {
    "image_classification": "AutoModelForImageClassification",
    "image_embedding": "AutoModel",
    "language_modelling": "AutoModelForCausalLM",
    "masked_language_modelling": "AutoModelForMaskedLM",
    "question_answering": "AutoModelForQuestionAnswering",
    "text_classification": "AutoModelForSequenceClassification",
    "text_embedding": "AutoModel",
}


@dataclass(frozen=True, slots=True)
class Proof:
    """Result of comparing outputs in a fresh process.

    Attributes:
        stock_class: The class that ``auto_class`` chose, or ``model.py``.
        auto_class: For example ``AutoModelForCausalLM``; ``None`` for the folder's own module.
        version: Name and version of the library that ran the network.
        output_difference: The largest absolute difference of an output.
        output_tolerance: The allowed difference.
        missing: Tensors that the class has and the folder lacks; no output depends on them.
    """

    stock_class: str
    auto_class: str | None
    version: str
    output_difference: float
    output_tolerance: float
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def check_transformers() -> None:
    """Raise ``ValueError`` unless ``transformers`` is installed."""
    if find_spec("transformers") is None:
        raise ValueError(
            "exporting a checkpoint requires transformers, which is not installed: "
            "pip install 'joulenas[checkpoints]'"
        )


@torch.no_grad()
def prove(
    folder: Path, workload: Workload, style: BlockStyle, network: Transformer, *, by_stock: bool
) -> Proof:
    """Load ``folder`` in a fresh process and compare outputs in fp32.

    Inputs are random: tokens of several lengths, with padding if the network masks it, or pixels.
    If a class has no head, its vectors are pooled as the network pools them.

    Args:
        folder: Was written by ``write_checkpoint``, or has ``python/model.py``.
        workload: The network's workload.
        style: The network's style.
        network: The fp32 network, in evaluation mode.
        by_stock: Load the folder by ``transformers``, else by ``python/model.py``.

    Raises:
        ExportError: the folder cannot be loaded, or outputs differ.
    """
    auto_class = _CLASSES[workload.kind] if by_stock else None
    with tempfile.TemporaryDirectory(prefix="nas-proof-") as scratch:
        path, n_batches = Path(scratch) / "batches.safetensors", 0
        tensors: dict[str, Tensor] = {}
        for inputs, keep in _batches(workload):
            outputs = network(inputs)
            if workload.kind == "question_answering":
                outputs = outputs.transpose(1, 2)
            tensors[f"inputs.{n_batches}"] = inputs
            tensors[f"outputs.{n_batches}"] = outputs.float().contiguous()
            if keep is not None:
                tensors[f"keep.{n_batches}"] = keep
            n_batches += 1
        save_file(tensors, path)
        findings = _run(
            {
                "folder": str(folder),
                "class": auto_class,
                "kind": workload.kind,
                "pooling": style.pooling,
                "has_unit_vectors": style.has_unit_vectors,
                "is_per_token": workload.predicts_tokens or workload.kind == "question_answering",
                "batches": str(path),
                "n_batches": n_batches,
            }
        )
    difference, allowed = findings["output_difference"], _TOLERANCE * findings["largest_output"]
    # ``not <=`` rather than ``>``, since NaN must fail.
    if not difference <= allowed:
        raise ExportError(
            f"outputs of {findings['class']} ({findings['version']}) differ by "
            f"{difference:.3g}, allowed {allowed:.3g}"
        )
    return Proof(
        findings["class"],
        auto_class,
        findings["version"],
        difference,
        allowed,
        tuple(findings["missing"]),
    )


def _run(job: dict[str, Any]) -> dict[str, Any]:
    """Run ``stock_worker`` on ``job`` and return its findings."""
    # A script with ``-P``: nothing can be imported from its folder or the working directory.
    command = [sys.executable, "-P", str(Path(stock_worker.__file__).resolve())]
    return findings_of(command, job, "the folder", timeout_s=_TIMEOUT_S)


def _batches(workload: Workload) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield batches of inputs, each with its mask (true: no padding) if it has padding."""
    generator = torch.Generator().manual_seed(0)
    if workload.is_image:
        yield torch.randn((_BATCH, *workload.input_shape), generator=generator), None
        return
    longest, vocabulary = min(workload.input_shape[0], _MOST_TOKENS), workload.vocab_size or 1
    padding = workload.padding_token if workload.has_padding else None
    has_padding = padding is not None and padding < vocabulary
    # Some classes refuse batches of texts without a padding token.
    size = 1 if workload.has_padding and not has_padding else _BATCH
    for length in sorted({*(n for n in _LENGTHS if n < longest), longest}):
        tokens = torch.randint(vocabulary, (size, length), generator=generator)
        if has_padding and padding is not None:
            tokens = torch.where(tokens == padding, (padding + 1) % vocabulary, tokens)
        yield tokens, None
    if has_padding and padding is not None and longest > 1:
        keep = torch.arange(longest) < torch.tensor([[longest], [longest // 2]])
        yield torch.where(keep, tokens, padding), keep
