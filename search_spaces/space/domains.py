"""Typed finite domains: what values one gene may take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from search_spaces.architecture import PRECISIONS, SPARSITIES, STYLES
from search_spaces.architecture.stacks import DECODER

Value = int | float | str | None


@dataclass(frozen=True, slots=True)
class Choice:
    """A non-empty tuple of distinct values, in the order given.

    Raises:
        ValueError: no value, or one value twice.
    """

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        """Refuse empty domains and duplicates."""
        object.__setattr__(self, "values", tuple(self.values))
        if not self.values:
            raise ValueError("a domain must hold one or more values, got none")
        for index, value in enumerate(self.values):
            if value in self.values[:index]:
                raise ValueError(f"a domain must hold distinct values, got {value!r} twice")

    def __contains__(self, value: object) -> bool:
        """Whether ``value`` is allowed."""
        return value in self.values

    def __iter__(self) -> Iterator[Value]:
        """The values in order."""
        return iter(self.values)

    def __len__(self) -> int:
        """Number of values."""
        return len(self.values)

    def index_of(self, value: Value) -> int:
        """Position of ``value``.

        Raises:
            ValueError: the value is not in the domain.
        """
        if value not in self.values:
            allowed = ", ".join(str(v) for v in self.values)
            raise ValueError(f"value must be one of {allowed}, got {value!r}")
        return self.values.index(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 64


def _is_rank(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and 0 < value < 1)


@dataclass(frozen=True, slots=True)
class GeneType:
    """The allowed values of one gene, in words and as a check."""

    allowed: str
    check: Callable[[object], bool]
    default: tuple[Value, ...] | None = None


_COUNT = "integers >= 1"
_RANK = "null (full rank) or fractions of d_model in (0, 1)"
_PRECISION = f"among {', '.join(PRECISIONS)}"
_SPARSITY = f"among {', '.join(SPARSITIES)}"

# In canonical order. Genes without a default are required.
GENE_TYPES: dict[str, GeneType] = {
    "d_model": GeneType(_COUNT, _is_count),
    "depth": GeneType(_COUNT, _is_count),
    "patch_size": GeneType(_COUNT, _is_count, (1,)),
    "resolution": GeneType(
        "integers >= 1 or null (the samples' own)", lambda v: v is None or _is_count(v), (None,)
    ),
    "blocks": GeneType(
        f"among {', '.join(STYLES)}", lambda v: isinstance(v, str) and v in STYLES, ("default",)
    ),
    "n_heads": GeneType(_COUNT, _is_count),
    "n_kv_heads": GeneType(_COUNT, _is_count),
    "ffn_ratio": GeneType("numbers in (0, 64]", _is_positive),
    "attention_rank": GeneType(_RANK, _is_rank, (None,)),
    "ffn_rank": GeneType(_RANK, _is_rank, (None,)),
    "attention_precision": GeneType(_PRECISION, lambda v: v in PRECISIONS, ("fp32",)),
    "ffn_precision": GeneType(_PRECISION, lambda v: v in PRECISIONS, ("fp32",)),
    "attention_sparsity": GeneType(_SPARSITY, lambda v: v in SPARSITIES, ("dense",)),
    "ffn_sparsity": GeneType(_SPARSITY, lambda v: v in SPARSITIES, ("dense",)),
}

# Genes of encoder-decoders only, of the same type as the encoder's gene with the same ending.
DECODER_GENE_TYPES: dict[str, GeneType] = {
    gene: next(kind for end, kind in reversed(GENE_TYPES.items()) if gene.endswith(end))
    for gene in (DECODER.d_model, DECODER.depth, *DECODER.layer_genes)
}
ALL_GENE_TYPES = GENE_TYPES | DECODER_GENE_TYPES


def make_domain(gene: str, data: Any) -> Choice:
    """The domain of ``gene`` from a list, or from ``{low, high, step}`` for whole numbers.

    Raises:
        ValueError: a wrong form or value; the message names the gene and what is allowed.
    """
    kind = ALL_GENE_TYPES[gene]
    if isinstance(data, dict):
        data = _expand(gene, data)
    if gene == "blocks" and isinstance(data, str):
        data = [data]
    if not isinstance(data, list | tuple):
        raise ValueError(f"{gene} must be a list of {kind.allowed}, got {data!r}")
    for value in data:
        if not kind.check(value):
            raise ValueError(f"{gene} must be {kind.allowed}, got {value!r}")
    try:
        return Choice(tuple(data))
    except ValueError as error:
        raise ValueError(f"{gene}: {error}") from None


def _expand(gene: str, data: dict[Any, Any]) -> list[int]:
    if not {"low", "high"} <= data.keys() <= {"low", "high", "step"}:
        raise ValueError(f"{gene} must be a list or have the keys low, high, step, got {data!r}")
    low, high, step = data["low"], data["high"], data.get("step", 1)
    if not all(_is_count(bound) for bound in (low, high, step)) or high < low:
        raise ValueError(f"{gene} must have integers 1 <= low <= high and step >= 1, got {data!r}")
    if (high - low) // step >= 10_000:
        raise ValueError(f"{gene} must have at most 10000 values, got {data!r}")
    return list(range(low, high + 1, step))
