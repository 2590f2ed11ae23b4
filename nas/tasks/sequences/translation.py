"""Translation from pairs of sentences, judged by BLEU or chrF. See ``docs/translation.md``."""

from __future__ import annotations

from nas.tasks.sequences.pair_task import PairTask
from nas.tasks.sequences.translation_score import METRICS, CorpusScore


class TranslationTask(PairTask):
    """Sentences and their translations."""

    kind = "translation"
    workload_kind = "translation"
    metrics = METRICS

    def score(self) -> CorpusScore:
        """See ``PairTask.score``."""
        return CorpusScore(self.metric.key)
