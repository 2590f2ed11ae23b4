"""Word and character error rates of transcripts, by the package ``jiwer``.

The rate of a split is the number of substituted, deleted and inserted words (or characters) over
that of the references, summed over utterances: long ones count more.

Shape legend: N utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
METRICS = ("wer", "cer")


def check_installed() -> None:
    """Raise ``ValueError``, with the remedy, unless the package is installed."""
    if find_spec("jiwer") is None:
        raise ValueError("kind transcription needs: pip install 'joulenas[transcription]'")


def error_figures(metric: str, texts: Sequence[str], references: Sequence[str]) -> Floats:
    """The errors and the words (or characters) of each reference, ``(N, 2)``."""
    import jiwer

    process = jiwer.process_words if metric == "wer" else jiwer.process_characters
    rows = []
    for text, reference in zip(texts, references, strict=True):
        output = process(reference, text)
        n_errors = output.substitutions + output.deletions + output.insertions
        rows.append((n_errors, output.hits + output.substitutions + output.deletions))
    return np.array(rows, dtype=np.float64).reshape(-1, 2)
