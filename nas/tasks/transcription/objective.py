"""Objective of transcription: CTC, and error rates of decoded texts.

Shape legend: B batch, N utterances, T steps, C classes, L tokens of the longest transcript.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.tasks.text.bootstrap import bootstrap_error
from nas.tasks.transcription.ctc import decode
from nas.tasks.transcription.error_rates import Floats, error_figures
from search_spaces.workload import BLANK_TOKEN

if TYPE_CHECKING:
    from torch import Tensor

Texts = Callable[[NDArray[np.int64]], list[str]]


class TranscriptionObjective:
    """An ``Objective``; targets are ``(B, L + 1)``: tokens, padding, the index of the reference.

    Padded steps write blanks for certain (``search_spaces.models.transformer``), so that all steps
    of a batch take part. Labels are not smoothed.
    """

    def __init__(
        self, references: Sequence[str], texts: Texts, *, metric: str, beam_size: int
    ) -> None:
        """``texts`` decodes rows of tokens, padded."""
        self._references, self.texts_of = references, texts
        self._metric, self._beam_size = metric, beam_size

    def loss(self, outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
        """The mean over tokens; transcripts with more tokens than steps count as 0."""
        import torch
        import torch.nn.functional as F

        tokens = targets[:, :-1]
        lengths_B = (tokens != BLANK_TOKEN).sum(dim=1)
        losses_B = F.ctc_loss(
            outputs.float().log_softmax(dim=-1).transpose(0, 1),
            tokens[:, : int(lengths_B.max())],
            torch.full_like(lengths_B, outputs.shape[1]),
            lengths_B,
            blank=BLANK_TOKEN,
            reduction="none",
            zero_infinity=True,
        )
        return losses_B.sum() / lengths_B.sum()

    def outputs(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """The logits of each step."""
        return model(inputs)

    def texts(self, outputs: Tensor) -> list[str]:
        """Decode logits ``(B, T, C)``."""
        return decoded_texts(outputs, self.texts_of, self._beam_size)

    def figures(
        self, outputs: Tensor, targets: NDArray[np.int64], sizes_B: NDArray[np.int64] | None
    ) -> Floats:
        """Errors, and words or characters, of each utterance."""
        references = [self._references[int(i)] for i in targets[:, -1]]
        return error_figures(self._metric, self.texts(outputs), references)

    def quality(self, figures: Floats) -> Floats:
        """One minus the error rate; 0 where there are more errors than words."""
        rates = figures[..., 0] / figures[..., 1]
        quality: Floats = np.clip(1 - rates, 0, 1)
        return quality

    def standard_error(self, figures_NS: Floats) -> float:
        """Bootstrap standard error over utterances; see ``bootstrap_error``."""
        n_words = float(figures_NS[:, 1].mean()) if len(figures_NS) else 1.0
        added = np.array([[0.0, n_words], [n_words, n_words]])
        return bootstrap_error(figures_NS, self.quality, added)


def decoded_texts(outputs: Tensor, texts: Texts, beam_size: int) -> list[str]:
    """Decode logits ``(B, T, C)`` into texts."""
    logits_BTC = outputs.float().cpu().numpy().astype(np.float64)
    rows = [decode(logits_TC, beam_size) for logits_TC in logits_BTC]
    longest = max([1, *map(len, rows)])
    padded = np.full((len(rows), longest), BLANK_TOKEN, np.int64)
    for row, tokens in enumerate(rows):
        padded[row, : len(tokens)] = tokens
    return [" ".join(text.split()) for text in texts(padded)]
