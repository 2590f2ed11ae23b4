"""Metrics: a task's quality in its own unit.

Searches maximise one number in [0, 1], recorded as ``quality``, so that gates, surrogates and
hypervolumes need no other form. A ``Metric`` converts it:

=========== ================= =============================
scale       quality           shown
=========== ================= =============================
percent     itself            ``95.00%``
hundred     a hundredth       ``31.20`` (BLEU, ROUGE, correlations)
bits        ``2**-b``         ``b``, such as bits per byte
errors      1 minus the rate  ``12.00`` percent (WER)
=========== ================= =============================
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import Literal, get_args

from nas.core.names import check_name
from nas.core.units import parse_number

Scale = Literal["percent", "hundred", "bits", "errors"]

# The largest score of each scale.
_MOST: dict[Scale, float] = {
    "percent": 1.0,
    "hundred": 100.0,
    "bits": math.inf,
    "errors": 100.0,
}


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure of quality; ``key`` is for files, ``name`` for people.

    Raises:
        ValueError: a field is not allowed.
    """

    key: str
    name: str
    scale: Scale = "percent"

    def __post_init__(self) -> None:
        check_name("key", self.key)
        check_name("name", self.name)
        if self.scale not in get_args(Scale):
            raise ValueError(
                f"scale must be one of {', '.join(get_args(Scale))}, got {self.scale!r}"
            )

    @property
    def falls(self) -> bool:
        """Whether less is better in the metric's own unit."""
        return self.scale in ("bits", "errors")

    def score(self, share: float) -> float:
        """A share in the metric's own unit; percent stay shares, as files keep them."""
        if self.scale == "bits":
            return -math.log2(share) if share > 0 else math.inf
        if self.scale == "errors":
            return 100 * (1 - share)
        return 100 * share if self.scale == "hundred" else share

    def score_error(self, share: float, share_error: float) -> float:
        """A standard error of ``share`` in the metric's own unit, by the delta method."""
        if self.scale == "bits":
            return share_error / (share * math.log(2)) if share > 0 else math.inf
        return 100 * share_error if self.scale in ("hundred", "errors") else share_error

    def share(self, score: float) -> float:
        """The share of a score in the metric's own unit.

        Raises:
            ValueError: no share has that score.
        """
        most = _MOST[self.scale]
        if not (math.isfinite(score) and 0 <= score <= most):
            span = "a number >= 0" if self.scale == "bits" else f"in [0, {most:g}]"
            raise ValueError(f"{self.name} must be {span}, got {score!r}")
        if self.scale == "bits":
            return float(2.0**-score)
        return 1 - score / most if self.scale == "errors" else score / most

    def parse(self, value: float | str, name: str | None = None) -> float:
        """The share of a score as people write it: ``84%``, ``0.84``, ``2.7 bits``, ``21 BLEU``.

        A number, as text or not, is in the metric's own unit, as with ``share``; ``name`` is what
        errors call it.

        Raises:
            ValueError: it is no score of this metric.
        """
        name = self.name if name is None else name
        if isinstance(value, bool):
            raise ValueError(f"{name} must be {self._allowed}, got {value!r}")
        score, is_percent = value, False
        if isinstance(value, str):
            text = unicodedata.normalize("NFKC", value).strip()
            for unit in ("%", *self._unit_names):
                if text.casefold().endswith(unit.casefold()):
                    text, is_percent = text[: -len(unit)].rstrip(), unit == "%"
                    break
            score = parse_number(text, 0.01 if is_percent else 1.0)
        try:
            if is_percent and self.scale == "errors":
                return self.share(100 * float(score))
            if is_percent and self.scale != "percent":
                raise ValueError(f"{self.name} must be a number, not a percentage")
            return self.share(float(score))
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"{name} must be {self._allowed}, got {value!r}") from None

    @property
    def _unit_names(self) -> tuple[str, ...]:
        """What a score may be followed by."""
        return (self.name, self.key, *(("bits",) if self.scale == "bits" else ()))

    @property
    def _allowed(self) -> str:
        return {
            "percent": f"a share in [0, 1] or a percentage ({self.name} such as 0.84 or 84%)",
            "hundred": f"in [0, 100] ({self.name} such as 21)",
            "bits": f"a number >= 0 ({self.name} such as 2.7)",
            "errors": f"in [0, 100] ({self.name} such as 12)",
        }[self.scale]

    def text(self, share: float, share_error: float | None = None, *, digits: int = 2) -> str:
        """A share for people, with its standard error where there is one.

        ``digits`` are those of a percentage; bits per byte have one more.
        """
        score = self.score(share)
        if share_error is None:
            return self._number(score, digits)
        error = self.score_error(share, share_error)
        return f"{self._number(score, digits)} ± {self._number(error, digits)}"

    def _number(self, score: float, digits: int) -> str:
        if self.scale == "percent":
            return f"{score:.{digits}%}"
        return f"{score:.{digits + (self.scale == 'bits')}f}"


ACCURACY = Metric("accuracy", "accuracy")
BITS_PER_BYTE = Metric("bits_per_byte", "bits per byte", "bits")

METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        ACCURACY,
        BITS_PER_BYTE,
        Metric("bleu", "BLEU", "hundred"),
        Metric("chrf", "chrF", "hundred"),
        Metric("rougeL", "ROUGE-L", "hundred"),
        Metric("rouge1", "ROUGE-1", "hundred"),
        Metric("rouge2", "ROUGE-2", "hundred"),
        Metric("wer", "WER", "errors"),
        Metric("cer", "CER", "errors"),
        Metric("f1", "F1"),
        Metric("exact_match", "exact match"),
        Metric("miou", "mean IoU"),
        Metric("map", "mAP@[0.5:0.95]"),
        Metric("map50", "mAP@0.5"),
        Metric("recall1", "recall@1"),
        Metric("recall5", "recall@5"),
        Metric("recall10", "recall@10"),
        Metric("spearman", "Spearman correlation", "hundred"),
        Metric("pairs", "Spearman correlation of pairs", "hundred"),
    )
}


def get_metric(key: str) -> Metric:
    """Return the metric called ``key``.

    Raises:
        ValueError: there is none.
    """
    if key not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {key!r}")
    return METRICS[key]
