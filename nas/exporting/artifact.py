"""An artifact: a folder with trained weights and all that is needed to run them elsewhere.

``model.safetensors`` the trained fp32 weights, ``architecture.json`` and ``workload.json`` what
they are, ``check.safetensors`` some inputs with the outputs they must give, ``card.json`` and
``README.md`` what was measured. Where the task has them, ``labels.json`` names the outputs,
``tokenizer.json`` cuts texts and ``preprocessing.json`` says how values become inputs
(``nas.tasks.carried``), so that nothing of the data is needed. Compression is applied on
loading: it is deterministic, so the trained weights are the whole model.
``compressed.safetensors``, where anything is compressed, is the network as it runs, as small as it
is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.files import read_json
from nas.tasks.carried import LABELS, PREPROCESSING, TOKENIZER
from nas.tasks.columns import TextColumns
from nas.tasks.raw_inputs import RawInputs
from nas.tasks.tokenize import TextEncoder, read_carried_tokenizer
from nas.training.checkpoint import check_size, load_any_network, read_description
from search_spaces.architecture import Architecture
from search_spaces.workload import PADDING_TOKEN, Workload

if TYPE_CHECKING:
    from torch import Tensor, nn

CHECK, CARD, README = "check.safetensors", "card.json", "README.md"
COMPRESSED = "compressed.safetensors"


class ExportError(RuntimeError):
    """The artifact does not do what the trial did; nothing was left behind."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A loaded artifact: ``call`` maps a batch of inputs to logits, or sources to translations.

    ``labels`` are the names of its outputs, ``encoder`` cuts texts, ``raw_inputs`` read files and
    ``columns`` joins texts, where it carries them; ``network`` is what runs, op by op.
    """

    architecture: Architecture
    workload: Workload
    call: Callable[[Tensor], Tensor]
    device: str = "cpu"
    labels: tuple[str, ...] | None = None
    encoder: TextEncoder | None = None
    network: nn.Module | None = field(default=None, repr=False)
    raw_inputs: RawInputs | None = field(default=None, repr=False)
    columns: TextColumns | None = None

    def classify(self, samples: Sequence[Any]) -> list[str]:
        """The most likely label of each sample, which is made an input as in training.

        Samples are texts; where several columns were joined, a mapping or sequence of their texts
        each; paths of pictures or WAV files, or pictures' bytes.

        Raises:
            ValueError: the artifact does not say how samples become inputs, carries no labels, or
                a sample is not one.
        """
        import torch

        if self.labels is None or not self.workload.is_pooled:
            raise ValueError(f"classify needs an artifact with {LABELS}, of a classifier")
        if self.encoder is not None:
            texts = samples if self.columns is None else self.columns.joined(samples)
            inputs_N = torch.from_numpy(self.encoder.encode(texts))
        elif self.raw_inputs is not None:
            inputs_N = torch.from_numpy(self.raw_inputs.read(samples))
        else:
            raise ValueError(
                f"classify needs an artifact with {TOKENIZER}, or {PREPROCESSING} of files; "
                f"call() takes tensors"
            )
        found: list[str] = []
        # A compiled network takes batches of exactly the workload's size.
        for batch in torch.split(inputs_N, self.workload.batch_size):
            filler = batch[:1].expand(self.workload.batch_size - len(batch), *batch.shape[1:])
            logits_BC = self.call(torch.cat([batch, filler]).to(self.device))[: len(batch)]
            found += [self.labels[i] for i in logits_BC.argmax(dim=-1).tolist()]
        return found

    def translate(self, texts: Sequence[str]) -> list[str]:
        """A translation of each text.

        Raises:
            ValueError: the artifact does not translate, or carries no tokenizer.
        """
        import torch

        if self.encoder is None or not self.workload.is_translation:
            raise ValueError(f"translate needs an encoder-decoder's artifact with {TOKENIZER}")
        sources_NS = torch.from_numpy(self.encoder.encode(texts))
        end, found = self.workload.n_classes - 1, []
        # A compiled network takes batches of exactly the workload's size.
        for batch in torch.split(sources_NS, self.workload.batch_size):
            filler = batch[:1].expand(self.workload.batch_size - len(batch), -1)
            tokens_BT = self.call(torch.cat([batch, filler]).to(self.device))[: len(batch)]
            tokens_BT = tokens_BT.masked_fill(tokens_BT == end, PADDING_TOKEN)
            found += self.encoder.decode_rows(tokens_BT.cpu().numpy())
        return found

    def generate(
        self, prompt: str, n_tokens: int, *, temperature: float = 0.8, seed: int = 0
    ) -> str:
        """``prompt`` and the ``n_tokens`` tokens that a decoder writes after it.

        Both must have room in the context: of a longer prompt, its end is read. ``temperature`` 0
        takes the most probable token each time; above it tokens are drawn by ``seed``.

        Raises:
            ValueError: the artifact is no decoder with a tokenizer, the prompt has no token, or
                ``n_tokens`` leaves none of the context for it.
        """
        import torch

        from search_spaces.models.decoding import generate
        from search_spaces.models.transformer import Transformer

        network = self.network
        is_decoder = isinstance(network, Transformer) and network.is_causal
        if self.encoder is None or not isinstance(network, Transformer) or not is_decoder:
            raise ValueError(f"generate needs a decoder's artifact with {TOKENIZER}")
        room = self.workload.input_shape[0] - n_tokens
        if n_tokens < 1 or room < 1:
            most = self.workload.input_shape[0] - 1
            raise ValueError(f"n_tokens must be from 1 to {most}, got {n_tokens}")
        ((tokens_T, _),) = self.encoder.encode_whole([prompt])
        prompt_BT = torch.from_numpy(tokens_T[-room:])[None].to(self.device)
        draws = torch.Generator(self.device).manual_seed(seed)
        new_BT = generate(network, prompt_BT, n_tokens, temperature=temperature, generator=draws)
        return prompt + self.encoder.decode(new_BT[0].tolist())


def load_artifact(
    folder: str | Path, *, device: str = "cpu", compiled: bool = False, small: bool = False
) -> Artifact:
    """Load an artifact to run it.

    With ``compiled`` it runs as it was measured, for batches of exactly the workload's shape;
    without, op by op for any batch size. With ``small`` only the compressed file is read, with
    the same outputs to the bit; the trained weights need not be there.

    Raises:
        ValueError: the folder is not an artifact, or a file in it is corrupt.
    """
    import torch

    from search_spaces.compression.apply import compress, prepare_for_inference, run_eagerly
    from search_spaces.compression.store import load_compressed

    folder = Path(folder)
    architecture, workload = read_description(folder)
    compressed: nn.Module
    if small:
        if (folder / COMPRESSED).is_file():
            check_size(architecture, workload, folder / COMPRESSED)
        compressed = load_compressed(architecture, workload, folder / COMPRESSED, device=device)
    else:
        compressed = compress(load_any_network(folder).to(device), architecture)
    if compiled:
        shape = (workload.batch_size, *workload.input_shape)
        example = torch.zeros(
            shape, device=device, dtype=None if workload.is_image else torch.int64
        )
        runner = prepare_for_inference(compressed, architecture, example)
    else:
        runner = run_eagerly(compressed)
    labels, encoder = _read_carried(folder, workload)
    return Artifact(
        architecture,
        workload,
        runner.call,
        device,
        labels,
        encoder,
        compressed,
        _read_raw_inputs(folder, workload),
        _read_columns(folder),
    )


def _read_raw_inputs(folder: Path, workload: Workload) -> RawInputs | None:
    """How files become inputs, where the artifact says it; ``ValueError`` if that does not fit."""
    path = folder / PREPROCESSING
    if not path.is_file() or not workload.is_image:
        return None
    return RawInputs.of(read_json(path), workload.input_shape, str(path))


def _read_columns(folder: Path) -> TextColumns | None:
    """The columns whose texts are joined, where the artifact has several."""
    path = folder / LABELS
    found = read_json(path) if path.is_file() else None
    if not isinstance(found, dict) or "texts" not in found:
        return None
    return TextColumns.of(found["texts"], found.get("separator"), str(path))


def _read_carried(
    folder: Path, workload: Workload
) -> tuple[tuple[str, ...] | None, TextEncoder | None]:
    """Labels and tokenizer, where the artifact has them; ``ValueError`` if they do not fit it."""
    labels, shift = None, 0
    if (folder / LABELS).is_file():
        found = read_json(folder / LABELS)
        named = found.get("labels") if isinstance(found, dict) else None
        if not isinstance(named, list) or not all(isinstance(label, str) for label in named):
            raise ValueError(f"{folder / LABELS} must have labels that are texts")
        if len(named) != workload.n_classes:
            raise ValueError(
                f"{folder / LABELS} must have {workload.n_classes} labels, got {len(named)}"
            )
        labels, shift = tuple(named), found.get("shift", 0)
    if not (folder / TOKENIZER).is_file():
        return labels, None
    encoder = read_carried_tokenizer(folder / TOKENIZER, workload.input_shape[0], shift)
    if workload.is_translation and encoder.vocab_size + 1 == workload.vocab_size:
        # A tokenizer that a user brought leaves no number for padding.
        encoder = replace(encoder, shift=1)
    if encoder.vocab_size > (workload.vocab_size or 0):
        raise ValueError(
            f"{folder / TOKENIZER} must have tokens below {workload.vocab_size}, got "
            f"{encoder.vocab_size - 1}"
        )
    return labels, encoder
