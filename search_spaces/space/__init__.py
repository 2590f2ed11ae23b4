"""A search space: a finite domain for each gene, and which genes differ between layers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from nas.core.names import check_name, runtime_names
from nas.core.nearest import did_you_mean
from nas.core.plain_yaml import read_yaml
from search_spaces.architecture import STYLES, TRANSFORMER, Architecture, BlockStyle
from search_spaces.architecture.stacks import DECODER, ENCODER, STACKS, Heads, StackGenes, stack_of
from search_spaces.space.domains import (
    ALL_GENE_TYPES,
    DECODER_GENE_TYPES,
    GENE_TYPES,
    Choice,
    make_domain,
)
from search_spaces.space.loadable import loadable_domains
from search_spaces.space.of_parent import are_cut_heads, check_parent, no_heads
from search_spaces.workload import Workload

GLOBAL_GENES = ("d_model", "depth", "patch_size", "resolution", "blocks")
# Mixed precision between layers multiplies a space by itself; a space opts in by sharing less.
DEFAULT_SHARED = frozenset(
    gene for gene in ENCODER.layer_genes if gene.endswith(("precision", "sparsity"))
)
_DECODER_COMPRESSION = frozenset(
    gene for gene in DECODER.layer_genes if gene.endswith(("precision", "sparsity"))
)
# Genes that another family may leave out, and genes that it must not have.
_IDLE = frozenset({"n_heads", "n_kv_heads", "ffn_ratio"})
_FIXED = ("blocks", *(gene for gene in ENCODER.layer_genes if gene not in _IDLE))
_OTHER_KEYS = ("shared", "family", "extra", "loadable", "parent", "runtime")
_MAX_YAML_BYTES = 100_000
_MAX_DEPTH = 256
# Genes that a space with this one value has not, so that its vectors and hashes do not change.
_LEFT_OUT: Mapping[str, tuple[Any, ...]] = {"resolution": (None,), "blocks": ("default",)}


@dataclass(frozen=True)
class SearchSpace:
    """The architectures that a search may propose.

    ``n_heads`` must divide ``d_model`` (``d_head`` is the quotient, and even in a space with a
    style of rotary positions) and ``n_kv_heads`` must divide ``n_heads``; combinations that break
    this are not members. ``blocks`` are names of ``STYLES``. Ranks are fractions of ``d_model``,
    rounded to whole numbers. Every patch size must divide every resolution. A gene in ``shared``
    has one value for all layers, another has one for each layer. Members are of ``family``;
    ``extra`` are genes of its own (``search_spaces.cost.families``). With ``loadable``
    (``transformers``) all layers are alike, dense and of one type, fp32 or bf16
    (``search_spaces.space.loadable``).

    With a ``parent`` members are cuts of it: of its width, head size, patch size and style, and of
    no more layers, heads, key-value heads and channels. No key-value head then serves more queries
    than the parent's, and heads need not divide the width (``search_spaces.space.of_parent``).

    With ``decoder_depth`` members are encoder-decoders, and both stacks have genes of their own
    (``search_spaces.architecture.stacks``). Their blocks are fp32 and dense: compression does not
    support decoders.

    ``runtime`` are names of runtimes (``search_spaces.runtimes``), in each of which a search
    measures members; empty where the search chooses. It is no gene of an architecture.

    Raises:
        ValueError: the domains do not make a space; the message names the gene and what is wrong.
    """

    name: str
    domains: Mapping[str, Choice]
    shared: frozenset[str] = DEFAULT_SHARED
    family: str = TRANSFORMER
    extra: Mapping[str, Choice] = field(default_factory=dict)
    loadable: str | None = None
    parent: Architecture | None = None
    runtime: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Validate the genes, fill in defaults, and check that every width has heads."""
        check_name("name", self.name)
        object.__setattr__(self, "runtime", runtime_names(self.runtime))
        for key in self.domains:
            _check_key("space", key, ALL_GENE_TYPES)
            if key in DECODER_GENE_TYPES and not self.has_decoder:
                raise ValueError(f"space must have {DECODER.depth} to have {key}")
        filled: dict[str, Choice] = {}
        for gene, kind in (ALL_GENE_TYPES if self.has_decoder else GENE_TYPES).items():
            if gene in self.domains:
                filled[gene] = make_domain(gene, tuple(self.domains[gene]))
            elif kind.default is not None:
                filled[gene] = Choice(kind.default)
            elif self.family != TRANSFORMER and gene in _IDLE:
                # A family may have no heads.
                filled[gene] = Choice((1,))
            else:
                raise ValueError(f"space lacks {gene}, a list of {kind.allowed}")
        object.__setattr__(self, "domains", filled)
        object.__setattr__(self, "shared", frozenset(self.shared))
        self._check_family()
        if self.parent is not None:
            check_parent(self.parent, self)
        if self.has_decoder:
            self._check_plain()
            object.__setattr__(self, "shared", self.shared | _DECODER_COMPRESSION)
        if self.loadable is not None:
            object.__setattr__(self, "domains", loadable_domains(self))
            object.__setattr__(self, "shared", frozenset(ENCODER.layer_genes))
        layer_genes = [gene for stack in self.stacks for gene in stack.layer_genes]
        for key in sorted(self.shared, key=str):
            _check_key("shared", key, layer_genes)
        for stack in self.stacks:
            self._check_stack(stack)
        for block in ("attention", "ffn"):
            # Four-bit weights take no mask: their zero point is a real number.
            if (
                "int4wo" in self.domains[f"{block}_precision"]
                and "dense" not in self.domains[f"{block}_sparsity"]
            ):
                raise ValueError(
                    f"{block}_sparsity must offer dense with {block}_precision int4wo, "
                    f"got {self.values(f'{block}_sparsity')}"
                )
        for resolution in self.values("resolution"):
            odd = [p for p in self.values("patch_size") if resolution and resolution % p]
            if odd:
                raise ValueError(
                    f"resolution must be a multiple of every patch_size, got {resolution} with "
                    f"{odd[0]}"
                )

    def __hash__(self) -> int:
        """Equal spaces hash equal."""
        extra = tuple(self.extra.items())
        return hash((self.name, tuple(self.domains.items()), self.shared, self.family, extra))

    def _check_stack(self, stack: StackGenes) -> None:
        """Raise ``ValueError`` unless the heads and depths of one stack go together."""
        deepest = self.deepest(stack)
        if deepest > _MAX_DEPTH:
            raise ValueError(f"{stack.depth} must be at most {_MAX_DEPTH}, got {deepest}")
        for heads in stack.heads:
            if (heads.n_heads in self.shared) != (heads.n_kv_heads in self.shared):
                raise ValueError(
                    f"shared must hold both or none of {heads.n_heads} and {heads.n_kv_heads}"
                )
            for d_model in self.values(stack.d_model):
                if not self.head_pairs(d_model, heads):
                    if self.parent is not None:
                        raise ValueError(no_heads(self.parent, heads.n_heads, self.domains))
                    raise ValueError(
                        f"{stack.d_model} {d_model} must be divisible by one of {heads.n_heads} "
                        f"{self.values(heads.n_heads)} that one of {heads.n_kv_heads} "
                        f"{self.values(heads.n_kv_heads)} divides"
                        f"{', with an even quotient for rotary blocks' * self.is_rotary}"
                    )

    def _check_plain(self) -> None:
        if self.family != TRANSFORMER:
            raise ValueError(f"{DECODER.depth} must be left out for family {self.family}")
        for gene in (*DEFAULT_SHARED, *_DECODER_COMPRESSION):
            plain = ALL_GENE_TYPES[gene].default
            if self.values(gene) != plain:
                raise ValueError(
                    f"{gene} must be {list(plain or ())} in a space with {DECODER.depth}, got "
                    f"{list(self.values(gene))}"
                )

    def _check_family(self) -> None:
        if not isinstance(self.family, str) or not self.family:
            raise ValueError(f"family must be a name, got {self.family!r}")
        check_name("family", self.family)
        if self.family == TRANSFORMER:
            if self.extra:
                raise ValueError(f"extra must be left out for family {TRANSFORMER}")
            return
        for gene in _FIXED:
            plain = GENE_TYPES[gene].default
            if self.values(gene) != plain:
                raise ValueError(
                    f"{gene} must be {list(plain or ())} for family {self.family}, got "
                    f"{list(self.values(gene))}"
                )
        extra = {}
        for name, values in self.extra.items():
            if not isinstance(name, str) or not name.isidentifier() or name in GENE_TYPES:
                raise ValueError(f"extra must have names of its own, got {name!r}")
            given = tuple(values) if isinstance(values, list | tuple | Choice) else (None,)
            if not all(type(value) in (int, float, str) for value in given):
                raise ValueError(
                    f"extra {name} must be a list of numbers or texts, got {values!r}"
                )
            for value in given:
                if isinstance(value, str):
                    check_name(f"a value of extra {name}", value)
            extra[name] = Choice(given)
        object.__setattr__(self, "extra", dict(sorted(extra.items())))

    def values(self, gene: str) -> tuple[Any, ...]:
        """The values of one gene."""
        return self.domains[gene].values

    @property
    def has_decoder(self) -> bool:
        """Whether members are encoder-decoders."""
        return DECODER.depth in self.domains

    @property
    def stacks(self) -> tuple[StackGenes, ...]:
        """The stacks of layers that members have."""
        return STACKS if self.has_decoder else (ENCODER,)

    @property
    def is_rotary(self) -> bool:
        """Whether a style of the space has rotary positions, which rotate pairs of features."""
        return any(style.is_rotary for style in self.styles)

    @property
    def styles(self) -> tuple[BlockStyle, ...]:
        """The styles of members, in the order of ``blocks``; the parent's where there is one."""
        if self.parent is not None:
            return (self.parent.style,)
        return tuple(STYLES[name] for name in self.values("blocks"))

    def d_head(self, d_model: int, n_heads: int) -> int:
        """Size of a head: the parent's, or the width divided by the number of heads."""
        if self.parent is not None:
            return self.parent.layers[0].attention.d_head
        return d_model // n_heads

    def deepest(self, stack: StackGenes) -> int:
        """Largest depth of a stack."""
        return int(max(self.values(stack.depth)))

    def layers_of(self, gene: str) -> range:
        """Layers in which a gene has a value of its own: the first alone, if it is shared."""
        return range(1 if gene in self.shared else self.deepest(stack_of(gene)))

    def head_pairs(self, d_model: int, heads: Heads = ENCODER.heads[0]) -> list[tuple[int, int]]:
        """Return the valid ``(n_heads, n_kv_heads)`` of a kind of attention at ``d_model``."""
        if self.parent is not None:
            pairs = product(self.values(heads.n_heads), self.values(heads.n_kv_heads))
            return [pair for pair in pairs if are_cut_heads(*pair, self.parent)]
        multiple = 2 if self.is_rotary else 1
        return [
            (n_heads, n_kv_heads)
            for n_heads in self.values(heads.n_heads)
            if d_model % (n_heads * multiple) == 0
            for n_kv_heads in self.values(heads.n_kv_heads)
            if n_heads % n_kv_heads == 0
        ]

    def genes(self) -> dict[str, Choice]:
        """Return all genes in order; one that differs between layers as ``layer3.n_heads``."""
        genes = {
            gene: self.domains[gene]
            for gene in GLOBAL_GENES
            if self.values(gene) != _LEFT_OUT.get(gene)
        }
        genes |= self.extra
        for stack in self.stacks:
            if stack is DECODER:
                genes |= {gene: self.domains[gene] for gene in (stack.d_model, stack.depth)}
            genes |= {
                gene: self.domains[gene] for gene in stack.layer_genes if gene in self.shared
            }
            for layer in range(self.deepest(stack)):
                for gene in stack.layer_genes:
                    if gene not in self.shared:
                        genes[f"{stack.layer}{layer}.{gene}"] = self.domains[gene]
        return genes

    def gene_name(self, gene: str, layer: int) -> str:
        """Name of ``gene`` in ``layer``, as ``genes`` has it."""
        return gene if gene in self.shared else f"{stack_of(gene).layer}{layer}.{gene}"

    def contains(self, architecture: Architecture) -> bool:
        """Whether ``architecture`` is a member."""
        from search_spaces.space.encoding import encode

        try:
            encode(architecture, self)
        except ValueError:
            return False
        return True

    def size(self) -> int:
        """Number of valid gene combinations, without those of layers beyond the depth.

        This is an upper bound on the number of distinct models: two combinations name one model
        where a rank saves nothing, two ratios round to one width, or a stock class ties genes.
        """
        total = math.prod(len(self.domains[g]) for g in ("patch_size", "resolution", "blocks"))
        for stack in self.stacks:
            total *= sum(
                self._n_stacks(stack, d_model, depth)
                for d_model in self.values(stack.d_model)
                for depth in self.values(stack.depth)
            )
        return total * math.prod(len(domain) for domain in self.extra.values())

    def _n_stacks(self, stack: StackGenes, d_model: int, depth: int) -> int:
        """Number of valid combinations of the genes of one stack's layers."""
        options = {gene: len(self.domains[gene]) for gene in stack.layer_genes}
        for heads in stack.heads:
            options[heads.n_heads] = len(self.head_pairs(d_model, heads))
            del options[heads.n_kv_heads]
        return math.prod(n if gene in self.shared else n**depth for gene, n in options.items())

    def restrict(
        self,
        *,
        precisions: Collection[str] | None = None,
        sparsities: Collection[str] | None = None,
    ) -> SearchSpace:
        """Return the subspace of the given precisions and sparsities.

        Raises:
            ValueError: a gene would have no value left.
        """
        domains = dict(self.domains)
        for suffix, offered in (("precision", precisions), ("sparsity", sparsities)):
            for block in ("attention", "ffn"):
                gene = f"{block}_{suffix}"
                if offered is None:
                    continue
                left = tuple(v for v in domains[gene] if v in offered)
                if not left:
                    raise ValueError(
                        f"{gene} must offer one of {', '.join(sorted(offered))}, the only ones "
                        f"offered on this device, got {domains[gene].values}"
                    )
                domains[gene] = Choice(left)
        return replace(self, domains=domains)

    def for_samples_of(self, workload: Workload) -> SearchSpace:
        """Return the space with resolutions that read whole samples written as ``null``.

        Those are the image's height in pixels, or at least the tokens of a text.
        """
        size = workload.input_shape[1 if workload.is_image else 0]
        longest = None if workload.is_image else size
        named = dict.fromkeys(
            None if r == size or (r and longest and r > longest) else r
            for r in self.values("resolution")
        )
        return replace(self, domains={**self.domains, "resolution": Choice(tuple(named))})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON or YAML; ``from_dict`` reads it back."""
        return {
            "name": self.name,
            **{
                gene: list(domain.values)
                for gene, domain in self.domains.items()
                if domain.values != _LEFT_OUT.get(gene)
            },
            "shared": sorted(self.shared),
            **({} if self.loadable is None else {"loadable": self.loadable}),
            **({} if self.parent is None else {"parent": self.parent.to_dict()}),
            **({"runtime": list(self.runtime)} if self.runtime else {}),
            **(
                {}
                if self.family == TRANSFORMER
                else {
                    "family": self.family,
                    "extra": {name: list(domain.values) for name, domain in self.extra.items()},
                }
            ),
        }

    @classmethod
    def from_dict(cls, data: Any) -> SearchSpace:
        """Read ``to_dict``'s form; genes with a default may be left out.

        Raises:
            ValueError: a key is unknown or missing, or a value not allowed.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"space must be a mapping of genes to lists, got {data!r}")
        for key in data:
            _check_key("space", key, ("name", *ALL_GENE_TYPES, *_OTHER_KEYS))
        if "name" not in data:
            raise ValueError("space lacks name, a non-empty string")
        shared = data.get("shared", sorted(DEFAULT_SHARED))
        if not isinstance(shared, list) or not all(isinstance(s, str) for s in shared):
            raise ValueError(f"shared must be a list of genes, got {shared!r}")
        extra = data.get("extra", {})
        if not isinstance(extra, Mapping):
            raise ValueError(f"extra must be a mapping of genes to lists, got {extra!r}")
        return cls(
            name=data["name"],
            domains={g: make_domain(g, data[g]) for g in ALL_GENE_TYPES if g in data},
            shared=frozenset(shared),
            family=data.get("family", TRANSFORMER),
            extra=extra,
            loadable=data.get("loadable"),
            parent=None if data.get("parent") is None else Architecture.from_dict(data["parent"]),
            runtime=_runtime_values(data),
        )

    @classmethod
    def from_yaml(cls, path: Path) -> SearchSpace:
        """Read a space from a YAML file.

        Raises:
            ValueError: the file is missing, not YAML, or not a space; one line that names it.
        """
        try:
            return cls.from_dict(read_yaml(path, max_bytes=_MAX_YAML_BYTES))
        except ValueError as error:
            raise ValueError(f"space file {path}: {error}") from None


def _runtime_values(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the runtimes that a space's data name; a key without one names none."""
    values = data.get("runtime", ())
    if "runtime" in data and not values:
        raise ValueError(f"runtime must be a list of runtimes or left out, got {values!r}")
    return runtime_names(values)


def _check_key(where: str, key: object, allowed: Collection[str]) -> None:
    if key not in allowed:
        hint = did_you_mean(key, allowed)
        raise ValueError(f"{where} has unknown key {key!r}{hint}; allowed: {', '.join(allowed)}")
