"""Translation from pairs of sentences, judged by BLEU or chrF."""

from __future__ import annotations

from nas.tasks.sequences.pair_task import PairTask
from nas.tasks.sequences.translation_score import METRICS


class TranslationTask(PairTask):
    """Sentences and their translations."""

    kind = "translation"
    metrics = METRICS
