"""Bits per byte of a language model in each runtime and precision, by its converted files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from nas.core.scratch import scratch
from nas.tasks.sequences.passages import Passage
from nas.tasks.sequences.windows import Windows, cut_windows
from nas.tasks.text.tokenize import TextEncoder
from search_spaces.architecture import Precision
from search_spaces.compression.apply import compress, run_eagerly
from search_spaces.pretrained import Checkpoint
from search_spaces.runtimes import serve
from search_spaces.runtimes.base import Form
from search_spaces.runtimes.registry import CONVERTERS

# A runtime and a precision.
FormName = tuple[str, Precision]
# Maps tokens ``(1, T)`` to scores of the next tokens ``(1, T, V)``.
Call = Callable[[torch.Tensor], torch.Tensor]


def bits_of(
    checkpoint: Checkpoint, text: Path, forms: Iterable[FormName], *, length: int, n_windows: int
) -> dict[FormName, float]:
    """Return the bits per byte of ``text`` in each form, over ``n_windows`` spread windows of it.

    Each window has ``length`` tokens of context and is read by itself, as a whole.

    Raises:
        ValueError: the tokenizer does not give the text back, or it is too short.
        RuntimeRefusal: a runtime does not hold the network.
    """
    windows = _windows(checkpoint, text, length, n_windows)
    sized = checkpoint.with_length(length)
    found: dict[FormName, float] = {}
    for runtime, precision in dict.fromkeys(forms):
        network = sized.build().eval()
        architecture = sized.architecture.in_precision(precision)
        if runtime not in CONVERTERS:
            call: Call = run_eagerly(compress(network, architecture)).call
        else:
            plain = compress(network, sized.architecture.in_precision("fp32"))
            call = _converted(runtime, plain, Form.of(architecture), length)
        found[runtime, precision] = _bits(call, windows)
    return found


def _windows(checkpoint: Checkpoint, text: Path, length: int, n_windows: int) -> Windows:
    content = json.dumps(checkpoint.files["tokenizer.json"])
    encoder = TextEncoder.from_json(content, length, shift=0, where=str(checkpoint.folder))
    passage = Passage("test", text, 1, text.read_text(encoding="utf-8"))
    whole = cut_windows([passage], encoder, length)
    rows = np.unique(np.linspace(0, len(whole.tokens) - 1, n_windows).astype(int))
    return Windows(
        whole.tokens[rows],
        whole.passages[rows],
        whole.starts[rows],
        whole.ends[rows],
        whole.n_tokens,
    )


def _converted(runtime: str, network: torch.nn.Module, form: Form, length: int) -> Call:
    converter = CONVERTERS[runtime]
    example = torch.ones(1, length, dtype=torch.int64)
    with scratch("bits") as folder:
        converter.convert(network, (example,), form, folder)
        path = folder / converter.file(form.precision)
        served = serve.load(runtime, path, precision=form.precision)
        # Files of weights may be mapped when they are first read.
        served.call([example.numpy()])
    return lambda tokens: torch.from_numpy(served.call([tokens.numpy()])[0])


def _bits(call: Call, windows: Windows) -> float:
    nats = 0.0
    with torch.no_grad():
        for row in torch.from_numpy(windows.tokens):
            scores = call(row[None, :-1])[0].double()
            nats += float(torch.nn.functional.cross_entropy(scores, row[1:], reduction="sum"))
    return nats / math.log(2) / int((windows.ends - windows.starts).sum())
