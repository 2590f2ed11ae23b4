"""A supernet: one network whose sub-networks are the members of a search space.

Within ``with supernet.active(architecture):``, ``forward`` computes ``architecture``. The active
architecture is a context variable, so that threads may share a supernet. Sources: one network for
all, Cai et al. 2020 (Once-for-All), Wang et al. 2020 (HAT), Chen et al. 2021 (AutoFormer).

All sub-networks share all weights, but each patch size has its own embedding, and each patch size
at each resolution its own positions. Precision and sparsity are applied to extracted networks
(``extract``), not here.

Shape legend: B batch, T tokens, D d_model, N prefix tokens, W pooled width, V vocabulary,
C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.architecture import STYLES, Architecture, is_factorised
from search_spaces.architecture.stacks import ENCODER
from search_spaces.models.elastic import (
    ElasticHeadTransform,
    ElasticLayer,
    ElasticNorm,
    ElasticProjection,
    Sizes,
)
from search_spaces.models.pooling import map_pooled, pool, token_mask
from search_spaces.models.style import (
    Rotations,
    TiedHead,
    UnitLength,
    make_embedding_head,
    position_table,
    prefix_tokens,
    token_embedding,
)
from search_spaces.models.transformer import shrunk, to_patches
from search_spaces.space import SearchSpace
from search_spaces.space.encoding import rank_of, width_of
from search_spaces.workload import AS_IT_IS, Workload

# Keyed by the identity of the supernet; as an attribute it would make modules uncopyable.
_ACTIVE: ContextVar[Mapping[int, Architecture]] = ContextVar(
    "active", default=MappingProxyType({})
)


class Supernet(nn.Module):
    """All members of ``space`` on ``workload``, of which one is active at a time."""

    def __init__(self, space: SearchSpace, workload: Workload) -> None:
        """Build the largest of everything, initialised as a ``Transformer`` is.

        Raises:
            ValueError: a patch size of the space does not fit the workload.
        """
        super().__init__()
        if workload.is_sequence_to_sequence:
            raise ValueError(
                f"supernet must be None for {workload.kind}: decoders are not supported"
            )
        if workload.is_transcription:
            raise ValueError(
                f"supernet must be None for {workload.kind}: patches of other sizes have outputs "
                f"at other times"
            )
        if workload.is_dense:
            raise ValueError(
                f"supernet must be None for {workload.kind}: heads of other patches share nothing"
            )
        if workload.is_detection:
            raise ValueError(
                f"supernet must be None for {workload.kind}: members learn from the "
                f"outputs of the largest, which are those of other patches"
            )
        if len(space.values("blocks")) > 1:
            raise ValueError(
                f"blocks must hold one style for a supernet, as styles share no weights, got "
                f"{', '.join(space.values('blocks'))}"
            )
        self.space, self.workload = space, workload
        style = self.style = STYLES[space.values("blocks")[0]]
        workload.check_style(style)
        widths = sorted(space.values("d_model"))
        for width in widths:
            workload.check_width(style, width)
        d_model, patches = widths[-1], sorted(space.values("patch_size"))
        grids = [(patch, r) for patch in patches for r in space.values("resolution")]
        for grid in grids:
            workload.check_grid(*grid)
        self._d_ff = max(width_of(r, d) for r in space.values("ffn_ratio") for d in widths)
        self._ranks = tuple(
            _largest_rank(space, f"{block}_rank") for block in ("attention", "ffn")
        )
        self.embed = nn.ModuleDict()
        if workload.is_image:
            channels = workload.input_shape[0]
            for patch in patches:
                self.embed[str(patch)] = ElasticProjection(channels * patch**2, d_model, None)
        else:
            self.embed["1"] = token_embedding(workload.vocab_size or 1, d_model)
        grid_sizes = np.array([(patch, resolution or AS_IT_IS) for patch, resolution in grids])
        tokens = workload.n_tokens_batch(grid_sizes[:, 0], grid_sizes[:, 1]).astype(int)
        self.prefix_ND = prefix_tokens(style, d_model)
        self.token_types: nn.Embedding | None = None
        if style.n_token_types:
            self.token_types = token_embedding(style.n_token_types, d_model)
        self.position_TD = nn.ParameterDict()
        for grid, n in zip(grids, tokens, strict=True):
            table = position_table(style, workload, int(n) + style.n_prefix_tokens, d_model)
            if table is not None:
                self.position_TD[grid_key(*grid)] = table
        self.embed_norm = ElasticNorm(style, widths) if style.norm.after_embeddings else None
        head_sizes = sorted({d // heads for d in widths for heads, _ in space.head_pairs(d)})
        sizes = Sizes(style, widths, self._d_ff, (self._ranks[0], self._ranks[1]), head_sizes)
        self.layers = nn.ModuleList(
            ElasticLayer(sizes, is_causal=workload.reads_past_only(style))
            for _ in range(space.deepest(ENCODER))
        )
        self.norm = ElasticNorm(style, widths) if style.is_pre_norm else nn.Identity()
        self.pooler: ElasticProjection | None = None
        if workload.is_pooled and style.has_pooler:
            self.pooler = ElasticProjection(d_model, d_model, None)
        self.head_transform: ElasticHeadTransform | None = None
        if workload.has_head_transform(style):
            self.head_transform = ElasticHeadTransform(style, widths)
        self.head: ElasticProjection | TiedHead | UnitLength | nn.Identity
        if workload.is_embedding:
            self.head = make_embedding_head(style)
        elif workload.has_tied_head(style):
            self.head = TiedHead(workload.n_classes, has_bias=style.biases.head)
        else:
            d_read = d_model * (style.n_pooled if workload.is_pooled else 1)
            has_bias = style.biases.head
            self.head = ElasticProjection(d_read, workload.n_classes, None, has_bias=has_bias)

    @classmethod
    def seeded(cls, space: SearchSpace, workload: Workload, seed: int) -> Supernet:
        """Build with weights from ``seed``, leaving torch's global generator unchanged."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(space, workload)

    @contextmanager
    def active(self, architecture: Architecture) -> Iterator[Supernet]:
        """Activate ``architecture`` within the context.

        Raises:
            ValueError: the architecture has no weights here; the message names the field.
        """
        self.check_holds(architecture)
        token = _ACTIVE.set({**_ACTIVE.get(), id(self): architecture})
        try:
            yield self
        finally:
            _ACTIVE.reset(token)

    @property
    def architecture(self) -> Architecture | None:
        """The active architecture, ``None`` outside of ``active``."""
        return _ACTIVE.get().get(id(self))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of the active architecture; see ``Transformer.forward``.

        Raises:
            RuntimeError: none is active.
        """
        architecture = self.architecture
        if architecture is None:
            raise RuntimeError("a supernet runs only within supernet.active(architecture)")
        if not self.workload.is_image and architecture.resolution is not None:
            inputs = inputs[:, : architecture.resolution]
        workload, keep_BT = self.workload, None
        if workload.has_padding:
            keep_BT = token_mask(inputs, workload.padding_token)
        x_BTD = self._embedded(inputs, architecture)
        rotations = Rotations(self.style, torch.arange(x_BTD.shape[1], device=x_BTD.device))
        for layer, spec in zip(self.layers, architecture.layers, strict=False):
            read_BT = None if workload.reads_past_only(self.style) else keep_BT
            x_BTD = layer(x_BTD, spec, read_BT, rotations.of(spec.attention.d_head))
        x_BTD = self.norm(x_BTD)
        if workload.is_pooled:
            width, pooler = x_BTD.shape[-1], self.pooler
            pooled_BW = pool(x_BTD, keep_BT, self.style)
            views = None if pooler is None else pooler.views(width, width, None)
            return self._outputs(map_pooled(pooled_BW, self.style, views), width)
        if self.head_transform is not None:
            x_BTD = self.head_transform(x_BTD)
        logits = self._outputs(x_BTD, x_BTD.shape[-1])
        return logits.transpose(1, 2) if workload.kind == "question_answering" else logits

    def _outputs(self, x: Tensor, width: int) -> Tensor:
        """Apply the head of networks of ``width``."""
        logits: Tensor
        if isinstance(self.head, UnitLength | nn.Identity):
            logits = self.head(x)
            return logits
        if isinstance(self.head, TiedHead):
            table = self.embed["1"]
            assert isinstance(table, nn.Embedding)
            logits = self.head(x, table.weight[:, :width])
            return logits
        if x.shape[-1] != width:
            # Joined vectors are interleaved, so that the first columns are narrower vectors'.
            x = x.reshape(*x.shape[:-1], -1, width).transpose(-1, -2).flatten(-2)
        return self.head.views(x.shape[-1], self.workload.n_classes, None)(x)

    def _embedded(self, inputs: Tensor, architecture: Architecture) -> Tensor:
        patch, width = architecture.patch_size, architecture.d_model
        embed = self.embed[str(patch)]
        if isinstance(embed, nn.Embedding):
            x_BTD = F.embedding(inputs, embed.weight[:, :width])
        else:
            assert isinstance(embed, ElasticProjection)
            size = self.workload.image_size(architecture)
            patches_BTP = to_patches(shrunk(inputs.to(embed.weight_OI.dtype), size), patch)
            x_BTD = embed.views(patches_BTP.shape[-1], width, None)(patches_BTP)
        if self.prefix_ND is not None:
            prefix_BND = self.prefix_ND[:, :width].expand(x_BTD.shape[0], -1, -1)
            x_BTD = torch.cat([prefix_BND, x_BTD], dim=1)
        if self.token_types is not None:
            x_BTD = x_BTD + self.token_types.weight[0, :width]
        if self.style.positions.kind == "learned":
            table_TD = self.position_TD[grid_key(patch, architecture.resolution)]
            x_BTD = x_BTD + table_TD[: x_BTD.shape[1], :width]
        return x_BTD if self.embed_norm is None else self.embed_norm(x_BTD)

    def check_holds(self, architecture: Architecture) -> None:
        """Raise ``ValueError`` naming the field unless there are weights for ``architecture``."""
        width = architecture.d_model
        if architecture.style != self.style:
            raise ValueError(
                f"style must be {self.style.describe()} (the supernet's), got "
                f"{architecture.style.describe()}"
            )
        _check_among("d_model", width, self.space.values("d_model"))
        _check_among("patch_size", architecture.patch_size, self.space.values("patch_size"))
        _check_among("resolution", architecture.resolution, self.space.values("resolution"))
        _check_at_most("depth", architecture.depth, len(self.layers))
        for index, layer in enumerate(architecture.layers):
            attention, where = layer.attention, f"layers[{index}]"
            if attention.n_heads * attention.d_head != width:
                raise ValueError(
                    f"{where}.attention.d_head must be d_model / n_heads, "
                    f"{width} / {attention.n_heads}, got {attention.d_head}"
                )
            _check_at_most(f"{where}.ffn.d_ff", layer.ffn.d_ff, self._d_ff)
            for name, block, most in (
                ("attention", attention, self._ranks[0]),
                ("ffn", layer.ffn, self._ranks[1]),
            ):
                shapes = block.projections(width).values()
                if any(is_factorised(*shape, block.rank) for shape in shapes):
                    _check_at_most(f"{where}.{name}.rank", block.rank or 0, most or 0)


def _largest_rank(space: SearchSpace, gene: str) -> int | None:
    ranks = [rank_of(f, d) for f in space.values(gene) for d in space.values("d_model")]
    return max((rank for rank in ranks if rank is not None), default=None)


def grid_key(patch: int, resolution: int | None) -> str:
    """Key of the positions of a grid of patches."""
    return str(patch) if resolution is None else f"{patch}_of_{resolution}"


def _check_among(name: str, value: int | None, allowed: tuple[int | None, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {value}")


def _check_at_most(name: str, value: int, most: int) -> None:
    if value > most:
        raise ValueError(f"{name} must be at most {most} (the supernet's), got {value}")
