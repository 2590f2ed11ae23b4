"""Rules that split texts before byte pairs are merged, by the names of ``tokenizer.ggml.pre``.

llama.cpp defines the rules of each name in its code. These are the equivalent rules of the
``tokenizers`` library, as in the models' own ``tokenizer.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """Rules for one name.

    Attributes:
        pattern: Regular expression of pieces; ``None`` for GPT-2's.
        has_single_digits: Whether each digit is a piece before ``pattern`` is applied.
        is_composed: Whether characters are composed first (NFC).
        ignores_merges: Whether a piece that is a token is not split further.
        adds_begin: Whether a begin token is added if the file does not decide it.
    """

    pattern: str | None = None
    has_single_digits: bool = False
    is_composed: bool = False
    ignores_merges: bool = False
    adds_begin: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the ``pre_tokenizer`` of a ``tokenizer.json``."""
        steps: list[dict[str, Any]] = []
        if self.has_single_digits:
            steps.append({"type": "Digits", "individual_digits": True})
        if self.pattern is not None:
            steps.append(
                {
                    "type": "Split",
                    "pattern": {"Regex": self.pattern},
                    "behavior": "Isolated",
                    "invert": False,
                }
            )
        steps.append(
            {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": True,
                "use_regex": self.pattern is None,
            }
        )
        return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


_LLAMA3 = PreTokenizer(
    rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}", ignores_merges=True, adds_begin=True
)
_QWEN2 = PreTokenizer(rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}", is_composed=True)
# Of names with equal rules, files are written with the first.
PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "gpt-2": PreTokenizer(),
    "smollm": PreTokenizer(has_single_digits=True),
    "starcoder": PreTokenizer(has_single_digits=True),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
}
