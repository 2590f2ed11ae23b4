"""Verify in a fresh process without JouleNAS that a folder loads and gives equal outputs."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nas.exporting.formats import stock_worker
from nas.exporting.formats.base import ExportError
from nas.exporting.formats.fresh_process import findings_of
from search_spaces.models.transformer import Transformer
from search_spaces.pretrained.load import load_checkpoint
from search_spaces.pretrained.writing.folder import save_tensors
from search_spaces.pretrained.writing.loadable import stored_precision
from search_spaces.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor, nn

    from search_spaces.architecture import Architecture, BlockStyle
    from search_spaces.pretrained import Checkpoint

# Largest difference of an output, relative to the largest output: sums are in another order.
_TOLERANCE = 1e-4
# The same where weights are quantised: products in bf16 are rounded in other places, and int8
# activations may be one step off. The weights are compared to the bit.
QUANTISED_TOLERANCE = 0.1
_TIMEOUT_S = 1800.0
_LENGTHS, _MOST_TOKENS, _BATCH = (1, 7), 128, 2
CLASSES = {
    "image_classification": "AutoModelForImageClassification",
    "image_embedding": "AutoModel",
    "language_modelling": "AutoModelForCausalLM",
    "masked_language_modelling": "AutoModelForMaskedLM",
    "question_answering": "AutoModelForQuestionAnswering",
    "text_classification": "AutoModelForSequenceClassification",
    "text_embedding": "AutoModel",
}


@dataclass(frozen=True, slots=True)
class LoadVerification:
    """A folder loaded in a fresh process, and its outputs there compared with the network's.

    Attributes:
        stock_class: The class that ``auto_class`` chose; ``model.py`` without one.
        auto_class: Such as ``AutoModelForCausalLM``; ``None`` for the folder's own module.
        version: Library that ran it, with its version.
        output_difference: Largest absolute difference of an output.
        output_tolerance: Largest difference allowed.
        missing: Tensors of the class that the folder lacks; no output depends on them.
        n_exact: Number of quantised weights, each equal to JouleNAS's when dequantised.
    """

    stock_class: str
    auto_class: str | None
    version: str
    output_difference: float
    output_tolerance: float
    missing: tuple[str, ...]
    n_exact: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def check_transformers() -> None:
    """Raise ``ValueError`` unless ``transformers`` is installed."""
    _check_installed("a checkpoint's folder", "transformers", "checkpoints")


def check_transformers_for_gguf() -> None:
    """Raise ``ValueError`` unless all packages are installed by which GGUF is verified."""
    for package in ("transformers", "accelerate"):
        _check_installed("a GGUF file", package, "gguf")


def _check_installed(what: str, package: str, extra: str) -> None:
    if find_spec(package) is None:
        raise ValueError(
            f"{what} is verified by {package}, which is not installed: "
            f"pip install 'joulenas[{extra}]'"
        )


@torch.no_grad()
def verify_folder(
    folder: Path,
    workload: Workload,
    style: BlockStyle,
    network: Transformer,
    *,
    by_stock: bool,
    weights: Mapping[str, Tensor] | None = None,
    gguf_file: str | None = None,
) -> LoadVerification:
    """Load ``folder`` in a fresh process and compare outputs, in fp32 if nothing is quantised.

    Texts have random tokens, of several lengths, and padding where the network masks it; images
    have random pixels. Vectors of a class without a head are pooled as the network pools them.

    Args:
        folder: A folder of ``write_checkpoint``, or with ``python/model.py``.
        workload: The network's.
        style: The network's.
        network: The network in evaluation mode, in fp32, or with quantised weights.
        by_stock: Load it by ``transformers``, else by ``python/model.py``.
        weights: Values of the dequantised weights, by the class's parameters.
        gguf_file: Name of the GGUF file that ``transformers`` loads; ``None`` for safetensors.

    Raises:
        ExportError: the folder cannot be loaded, or outputs differ.
    """
    auto_class = CLASSES[workload.kind] if by_stock else None
    with tempfile.TemporaryDirectory(prefix="nas-verify-") as scratch:
        path, n_batches = Path(scratch) / "batches.safetensors", 0
        tensors: dict[str, Tensor] = {}
        for inputs, keep in _batches(workload):
            if workload.is_image:
                inputs = inputs.to(next(network.parameters()).dtype)
            outputs = network(inputs)
            if workload.kind == "question_answering":
                outputs = outputs.transpose(1, 2)
            tensors[f"inputs.{n_batches}"] = inputs
            tensors[f"outputs.{n_batches}"] = outputs.float().contiguous()
            if keep is not None:
                tensors[f"keep.{n_batches}"] = keep
            n_batches += 1
        save_tensors(tensors, path)
        exact = Path(scratch) / "weights.safetensors"
        if weights is not None:
            save_tensors(weights, exact)
        findings = run(
            {
                "folder": str(folder),
                "class": auto_class,
                "dtype": str(next(network.parameters()).dtype).removeprefix("torch."),
                "weights": None if weights is None else str(exact),
                "gguf_file": gguf_file,
                "kind": workload.kind,
                "pooling": style.pooling,
                "has_unit_vectors": style.has_unit_vectors,
                "is_per_token": workload.predicts_tokens or workload.kind == "question_answering",
                "batches": str(path),
                "n_batches": n_batches,
            }
        )
    difference, allowed = findings["output_difference"], findings["largest_output"]
    allowed *= _TOLERANCE if weights is None else QUANTISED_TOLERANCE
    # ``not <=`` rather than ``>``, since NaN must fail.
    if not difference <= allowed:
        raise ExportError(
            f"outputs of {findings['class']} ({findings['version']}) differ by "
            f"{difference:.3g}, allowed {allowed:.3g}"
        )
    return LoadVerification(
        findings["class"],
        auto_class,
        findings["version"],
        difference,
        allowed,
        tuple(findings["missing"]),
        len(weights or ()),
    )


def verify_written(
    folder: Path, network: nn.Module, architecture: Architecture
) -> LoadVerification:
    """Reload a stock folder, by our reader and by ``transformers``, and compare.

    Raises:
        ExportError: the folder cannot be read, or parameters or outputs differ from ``network``'s.
    """
    read, written = reload(folder, network, architecture)
    return verify_folder(folder, written.workload, written.architecture.style, read, by_stock=True)


def reload(
    folder: Path, network: nn.Module, architecture: Architecture
) -> tuple[Transformer, Checkpoint]:
    """Read a stock folder by our reader; return its network and its checkpoint.

    Raises:
        ExportError: the folder cannot be read, or parameters differ from ``network``'s.
    """
    try:
        written = load_checkpoint(folder)
        read = written.build()
    except ValueError as error:
        raise ExportError(f"the folder cannot be reloaded: {error}") from None
    is_bf16 = stored_precision(architecture) == "bf16"
    values = dict(read.named_parameters())
    for name, parameter in network.named_parameters():
        expected = parameter.detach()
        if is_bf16:
            expected = expected.bfloat16().float()
        if name not in values or not torch.equal(values[name], expected):
            raise ExportError(f"{name} differs in the reloaded folder")
    return read, written


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job by ``stock_worker`` in a fresh process and return its findings.

    Raises:
        ExportError: it failed, or reached the timeout.
    """
    # ``-P`` and a script's path: neither this folder nor that of the script can be imported from.
    command = [sys.executable, "-P", str(Path(stock_worker.__file__).resolve())]
    return findings_of(command, job, "the folder", timeout_s=_TIMEOUT_S)


def _batches(workload: Workload) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield batches of inputs, each with the mask of tokens, ``None`` without padding."""
    generator = torch.Generator().manual_seed(0)
    if workload.is_image:
        yield torch.randn((_BATCH, *workload.input_shape), generator=generator), None
        return
    longest, vocabulary = min(workload.input_shape[0], _MOST_TOKENS), workload.vocab_size or 1
    padding = workload.padding_token if workload.has_padding else None
    has_padding = padding is not None and padding < vocabulary
    # Without a padding token some classes take a single text.
    size = 1 if workload.has_padding and not has_padding else _BATCH
    for length in sorted({*(n for n in _LENGTHS if n < longest), longest}):
        tokens = torch.randint(vocabulary, (size, length), generator=generator)
        if has_padding and padding is not None:
            tokens = torch.where(tokens == padding, (padding + 1) % vocabulary, tokens)
        yield tokens, None
    if has_padding and padding is not None and longest > 1:
        keep = torch.arange(longest) < torch.tensor([[longest], [longest // 2]])
        yield torch.where(keep, tokens, padding), keep
