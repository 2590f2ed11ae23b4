"""An artifact: a folder with a trained network and all files that are needed to run it.

* ``model.safetensors``: the trained fp32 weights. Compression is deterministic and applied on
  loading. If a block is compressed, ``compressed.safetensors`` has the compressed weights.
* ``architecture.json``, ``workload.json``: the description of the network.
* ``check.safetensors``: some inputs and their expected outputs.
* ``card.json``, ``README.md``: quality, joules and their conditions.
* ``labels.json``, ``tokenizer.json``, ``prompt.json``, ``preprocessing.json``, if the task has
  them: names of the outputs, and how texts and files become inputs
  (``nas.tasks.base.artifact_files``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from nas.core.files import read_json
from nas.tasks.base.artifact_files import LABELS, PREPROCESSING, TOKENIZER, read_prefix
from nas.tasks.base.columns import TextColumns
from nas.tasks.raw_inputs import RawInputs, size_of_picture
from nas.tasks.text.tokenize import TextEncoder, read_tokenizer
from nas.tasks.vision.boxes import MOST_BOXES, FoundBox, found_boxes, in_pixels
from nas.training.weights import check_size, load_any_network, read_description
from search_spaces.architecture import Architecture
from search_spaces.workload import PADDING_TOKEN, Kind, Workload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

Result = TypeVar("Result")

CARD, README = "card.json", "README.md"
COMPRESSED = "compressed.safetensors"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A loaded artifact.

    ``call`` maps a batch of inputs to logits, and for translation and summarisation a batch of
    sources to the tokens that are written. ``labels`` are the names of the outputs. ``encoder``
    tokenizes texts, ``columns`` joins several texts to one, and ``raw_inputs`` reads files; each
    is ``None`` if the task has none. ``max_boxes`` is the most objects that are found in a
    picture. ``network`` is the torch module, not compiled.
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
    max_boxes: int | None = None

    @overload
    def classify(self, samples: str | Path | bytes | Mapping[str, str]) -> str: ...
    @overload
    def classify(self, samples: Iterable[Any]) -> list[str]: ...
    def classify(self, samples: Any) -> str | list[str]:
        """Return the most likely label of each sample, or the label of a single sample.

        A sample is a text; a mapping or sequence of texts, if several columns were joined; or the
        path of a picture or WAV file, or a picture's bytes.

        Raises:
            ValueError: the artifact has no labels, tokenizer or preprocessing, or a sample has
                another type.
        """
        labels = self.labels
        if labels is None or not self.workload.is_pooled:
            raise ValueError(f"classify requires the artifact of a classifier, with {LABELS}")
        read, kinds = self._reader()

        def label(batch: list[Any]) -> list[str]:
            logits_BC = self._called(read(batch))
            return [labels[i] for i in logits_BC.argmax(dim=-1).tolist()]

        return self._of_each(samples, label, kinds)

    def _reader(self) -> tuple[Callable[[list[Any]], NDArray[Any]], tuple[type, ...]]:
        """Return the function from samples to inputs, and the types of a sample."""
        encoder, columns, raw_inputs = self.encoder, self.columns, self.raw_inputs
        if encoder is not None and columns is not None:
            return (
                lambda batch: encoder.encode(columns.joined(batch)),
                (str, Mapping, list, tuple),
            )
        if encoder is not None:
            return encoder.encode, (str,)
        if raw_inputs is not None:
            return raw_inputs.read, (str, Path, bytes)
        raise ValueError(
            f"classify requires an artifact with {TOKENIZER}, or with {PREPROCESSING} of files; "
            f"for tensors, use call()"
        )

    @overload
    def detect(  # type: ignore[overload-overlap]
        self, pictures: str | Path | bytes, *, least_score: float = ...
    ) -> list[FoundBox]: ...
    @overload
    def detect(
        self, pictures: Iterable[str | Path | bytes], *, least_score: float = ...
    ) -> list[list[FoundBox]]: ...
    def detect(self, pictures: Any, *, least_score: float = 0.3) -> Any:
        """Return the objects in each picture, or in a single one, by falling score.

        A picture is a path or a file's bytes, of any size; boxes are in its own pixels, after it
        was turned upright. Objects of lower scores than ``least_score`` are left out.

        Raises:
            ValueError: the artifact is of no detector, or a picture cannot be read.
        """
        labels, raw_inputs, most = self.labels, self.raw_inputs, self.max_boxes
        if most is None or labels is None or raw_inputs is None:
            raise ValueError(f"detect requires a detector's artifact, with {LABELS}")

        def found(batch: list[Any]) -> list[list[FoundBox]]:
            sizes = [size_of_picture(picture) for picture in batch]
            outputs = self._called(raw_inputs.read(batch)).float().cpu()
            rows = zip(found_boxes(outputs, most, least_score), sizes, strict=True)
            return [in_pixels(found_F6, labels, size) for found_F6, size in rows]

        return self._of_each(pictures, found, (str, Path, bytes))

    @overload
    def translate(self, texts: str) -> str: ...  # type: ignore[overload-overlap]
    @overload
    def translate(self, texts: Iterable[str]) -> list[str]: ...
    def translate(self, texts: str | Iterable[str]) -> str | list[str]:
        """Return a translation of each text, or the translation of a single text.

        Raises:
            ValueError: the artifact does not translate or has no tokenizer, or ``texts`` has
                another type.
        """
        return self._written(texts, "translation", "translate")

    @overload
    def summarise(self, texts: str) -> str: ...  # type: ignore[overload-overlap]
    @overload
    def summarise(self, texts: Iterable[str]) -> list[str]: ...
    def summarise(self, texts: str | Iterable[str]) -> str | list[str]:
        """Return a summary of each text, or the summary of a single text.

        A text is read up to the ``input_shape`` of the workload, in tokens.

        Raises:
            ValueError: the artifact does not summarise or has no tokenizer, or ``texts`` has
                another type.
        """
        return self._written(texts, "summarisation", "summarise")

    def _written(self, texts: str | Iterable[str], kind: Kind, verb: str) -> str | list[str]:
        encoder = self.encoder
        if encoder is None or self.workload.kind != kind:
            raise ValueError(f"{verb} requires an artifact of {kind}, with {TOKENIZER}")
        end = self.workload.n_classes - 1

        def written(batch: list[str]) -> list[str]:
            tokens_BT = self._called(encoder.encode(batch))
            return encoder.decode_rows(
                tokens_BT.masked_fill(tokens_BT == end, PADDING_TOKEN).cpu().numpy()
            )

        return self._of_each(texts, written)

    @overload
    def transcribe(self, files: str | Path, *, beam_size: int = ...) -> str: ...  # type: ignore[overload-overlap]
    @overload
    def transcribe(self, files: Iterable[str | Path], *, beam_size: int = ...) -> list[str]: ...
    def transcribe(self, files: Any, *, beam_size: int = 1) -> str | list[str]:
        """Return the transcript of each WAV file, or of the single one, at any sample rate.

        With a ``beam_size`` above 1 texts are searched for by their probability.

        Raises:
            ValueError: the artifact does not transcribe, ``beam_size`` is below 1, or a file
                cannot be read or is too long; the message names it.
        """
        from nas.tasks.transcription.objective import decoded_texts

        encoder, raw_inputs = self.encoder, self.raw_inputs
        if encoder is None or raw_inputs is None or not self.workload.is_transcription:
            raise ValueError(
                f"transcribe requires an artifact of transcription, with {TOKENIZER} and "
                f"{PREPROCESSING}"
            )
        if beam_size < 1:
            raise ValueError(f"beam_size must be >= 1, got {beam_size}")

        def transcribed(batch: list[Any]) -> list[str]:
            logits_BTC = self._called(raw_inputs.read(batch))
            return decoded_texts(logits_BTC, encoder.decode_rows, beam_size)

        return self._of_each(files, transcribed, (str, Path))

    @overload
    def generate(  # type: ignore[overload-overlap]
        self, prompt: str, n_tokens: int, *, temperature: float = ..., seed: int = ...
    ) -> str: ...
    @overload
    def generate(
        self, prompt: Iterable[str], n_tokens: int, *, temperature: float = ..., seed: int = ...
    ) -> list[str]: ...
    def generate(
        self,
        prompt: str | Iterable[str],
        n_tokens: int,
        *,
        temperature: float = 0.8,
        seed: int = 0,
    ) -> str | list[str]:
        """Return each prompt, or the single one, continued by ``n_tokens`` tokens.

        Prompts that are too long for the context lose their beginning. With ``temperature`` 0 the
        most probable token is taken; otherwise tokens are sampled with ``seed``.

        Raises:
            ValueError: the artifact has no decoder or no tokenizer, a prompt has no token, or
                ``n_tokens`` leaves no room in the context for the prompt.
        """
        import torch

        from search_spaces.models.decoding import generate
        from search_spaces.models.transformer import Transformer

        network, encoder = self.network, self.encoder
        is_decoder = isinstance(network, Transformer) and network.is_decoder
        if encoder is None or not isinstance(network, Transformer) or not is_decoder:
            raise ValueError(f"generate requires a decoder's artifact, with {TOKENIZER}")
        room = self.workload.input_shape[0] - n_tokens
        if n_tokens < 1 or room < 1:
            most = self.workload.input_shape[0] - 1
            raise ValueError(f"n_tokens must be from 1 to {most}, got {n_tokens}")

        def continued(text: str) -> str:
            ((tokens_T, _),) = encoder.encode_whole([text])
            prompt_BT = torch.from_numpy(tokens_T[-room:])[None].to(self.device)
            draws = torch.Generator(self.device).manual_seed(seed)
            new_BT = generate(
                network, prompt_BT, n_tokens, temperature=temperature, generator=draws
            )
            return text + encoder.decode(new_BT[0].tolist())

        return self._of_each(prompt, lambda batch: [continued(text) for text in batch])

    def embed(self, texts: str | Iterable[str]) -> NDArray[np.float32]:
        """Return the vector of each text, ``(N, W)``, or of a single text, ``(W,)``.

        Raises:
            ValueError: the artifact gives no vectors of texts or has no tokenizer, or ``texts``
                has another type.
        """
        import numpy as np

        encoder = self.encoder
        if encoder is None or self.workload.kind != "text_embedding":
            raise ValueError(f"embed requires an artifact of embeddings, with {TOKENIZER}")

        def vectors(batch: list[str]) -> list[NDArray[np.float32]]:
            return list(self._called(encoder.encode(batch)).float().cpu().numpy())

        found = self._of_each(texts, vectors)
        width = self.workload.n_classes
        return np.reshape(found, (-1, width)) if isinstance(found, list) else found

    def _called(self, inputs_N: NDArray[Any]) -> Tensor:
        import torch

        return self.call(torch.from_numpy(inputs_N).to(self.device))

    def _of_each(
        self,
        samples: Any,
        function: Callable[[list[Any]], list[Result]],
        kinds: tuple[type, ...] = (str,),
    ) -> Result | list[Result]:
        """Apply ``function`` batch by batch to several samples, or to a single one."""
        # A list or tuple contains several samples, although a sample may itself be a list.
        if isinstance(samples, kinds) and not isinstance(samples, list | tuple):
            return function([samples])[0]
        # A mapping with values is one sample: its keys are names of columns.
        is_row = isinstance(samples, Mapping) and any(v is not None for v in samples.values())
        is_several = isinstance(samples, Iterable) and not is_row
        rows: list[Any] = list(samples) if is_several else [samples]
        if wrong := [row for row in rows if not isinstance(row, kinds)]:
            what = "texts must be one text" if kinds == (str,) else "samples must be one sample"
            raise ValueError(f"{what} or several, got {wrong[0]!r}")
        size = self.workload.batch_size
        batches = [rows[at : at + size] for at in range(0, len(rows), size)]
        return [result for batch in batches for result in function(batch)]


def load_artifact(folder: str | Path, *, device: str = "cpu", small: bool = False) -> Artifact:
    """Load an artifact for eager execution with any batch size.

    With ``small`` only the compressed file is read; outputs are bit-identical.

    Raises:
        ValueError: the folder is not an artifact, or a file in it is corrupt.
    """
    from search_spaces.compression.apply import compress, run_eagerly
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
    labels = _read_labels(folder, workload)
    return Artifact(
        architecture,
        workload,
        run_eagerly(compressed).call,
        device,
        None if labels is None else tuple(labels["labels"]),
        _read_encoder(folder, workload, 0 if labels is None else labels.get("shift", 0)),
        compressed,
        _read_raw_inputs(folder, workload),
        _read_columns(folder, labels),
        _read_max_boxes(folder, labels) if workload.is_detection else None,
    )


def _read_labels(folder: Path, workload: Workload) -> dict[str, Any] | None:
    path = folder / LABELS
    if not path.is_file():
        return None
    data = read_json(path)
    labels = data.get("labels") if isinstance(data, dict) else None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"{path} must have a list of texts as labels")
    if len(labels) != workload.n_classes:
        raise ValueError(f"{path} must have {workload.n_classes} labels, got {len(labels)}")
    return dict(data)


def _read_max_boxes(folder: Path, labels: dict[str, Any] | None) -> int | None:
    most = None if labels is None else labels.get("max_boxes")
    if most is not None and (type(most) is not int or not 1 <= most <= MOST_BOXES):
        raise ValueError(
            f"max_boxes of {folder / LABELS} must be in 1..{MOST_BOXES}, got {most!r}"
        )
    return most


def _read_columns(folder: Path, labels: dict[str, Any] | None) -> TextColumns | None:
    if labels is None or "texts" not in labels:
        return None
    return TextColumns.of(labels["texts"], labels.get("separator"), str(folder / LABELS))


def _read_raw_inputs(folder: Path, workload: Workload) -> RawInputs | None:
    path = folder / PREPROCESSING
    if not path.is_file() or not workload.is_image:
        return None
    return RawInputs.of(read_json(path), workload.input_shape, str(path))


def _read_encoder(folder: Path, workload: Workload, shift: int) -> TextEncoder | None:
    path = folder / TOKENIZER
    if not path.is_file():
        return None
    encoder = read_tokenizer(path, workload.input_shape[0], shift)
    if workload.is_sequence_to_sequence and encoder.vocab_size + 1 == workload.vocab_size:
        # The user's own tokenizer has no padding token: 0 is added for it.
        encoder = replace(encoder, shift=1)
    prefix = read_prefix(folder)
    encoder = replace(encoder, padding_token=workload.padding_token, prefix=prefix)
    most = workload.n_classes if workload.is_transcription else workload.vocab_size or 0
    if encoder.vocab_size > most:
        raise ValueError(f"tokens of {path} must be < {most}, got {encoder.vocab_size - 1}")
    return encoder
