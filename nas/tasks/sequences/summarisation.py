"""Summaries of documents, judged by ROUGE. See ``docs/summarisation.md``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.tasks.base.file_task import Rows
from nas.tasks.base.problems import Problems
from nas.tasks.base.sources import Sources
from nas.tasks.sequences.pair_task import PairOptions, PairTask
from nas.tasks.sequences.parallel import Pair
from nas.tasks.sequences.summary_score import (
    METRICS,
    ROUGE_TOKENS,
    RougeScore,
    RougeTokens,
    check_installed,
    share_not_english,
)

# Warn where the English tokenization drops more of the letters: names have some such letters.
_MANY_DROPPED = 0.01


@dataclass(frozen=True, slots=True)
class SummaryOptions(PairOptions):
    """Options of pairs; ``rouge_tokens`` is how ROUGE cuts texts (``summary_score``).

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    sequence_length: int = 512
    target_length: int = 64
    rouge_tokens: RougeTokens = "english"

    def __post_init__(self) -> None:
        # Without arguments `super` names the class as it was before it had slots.
        super(SummaryOptions, self).__post_init__()
        if self.rouge_tokens not in ROUGE_TOKENS:
            raise ValueError(
                f"rouge_tokens must be one of {', '.join(ROUGE_TOKENS)}, got {self.rouge_tokens!r}"
            )


class SummarisationTask(PairTask):
    """Documents and their summaries."""

    kind = "summarisation"
    workload_kind = "summarisation"
    noun = "documents"
    options_type = SummaryOptions
    not_cached = (*PairTask.not_cached, "rouge_tokens")
    metrics = METRICS
    # What a network never reads it cannot summarise.
    many_cut = 0.0
    options: SummaryOptions

    def __init__(self, name: str, sources: Sources, options: SummaryOptions) -> None:
        """Read nothing yet; raises ``ValueError`` without the package of the metric."""
        check_installed()
        super().__init__(name, sources, options)

    def score(self) -> RougeScore:
        """See ``PairTask.score``."""
        return RougeScore(self.metric.key, self.options.rouge_tokens)

    def write(self, rows: Rows[Pair], folder: Path, problems: Problems) -> dict[str, Any]:
        """See ``FileTask.write``; adds the share of letters that are not English."""
        about = super().write(rows, folder, problems)
        dropped = share_not_english(str(pair.label) for pair in rows["train"])
        return {**about, "not_english": dropped}

    def warnings(self) -> list[str]:
        """Add a warning of letters that ROUGE does not count."""
        lines, dropped = super().warnings(), self.about()["not_english"]
        if self.options.rouge_tokens == "english" and dropped > _MANY_DROPPED:
            lines.append(
                f"rouge: {dropped:.0%} of the letters of the training targets are not a to z, "
                f"and rouge_tokens: english does not count them: rouge_tokens: words does, or "
                f"characters where no spaces are between words"
            )
        return lines
