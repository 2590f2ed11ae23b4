"""The style of a network's blocks: norms, feed-forward, positions, biases, inputs and outputs.

A network has one style for all its layers. The default is the block of ``nas`` from the start:
pre-norm LayerNorm, exact GELU, learned positions, biases everywhere. ``STYLES`` has those of
common checkpoints by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, get_args

from search_spaces.architecture.blocks import require_positive_int
from search_spaces.architecture.plain_data import check_keys

NormKind = Literal["layer", "rms"]
NormPlace = Literal["pre", "post"]
Activation = Literal["gelu", "gelu-tanh", "relu", "silu"]
Positions = Literal["learned", "rotary", "none"]
Scaling = Literal["linear", "llama3"]
Pooling = Literal["mean", "cls", "last", "pooler", "pooler-relu", "cls-mean", "prefix"]


def _check_among(name: str, value: object, kind: Any) -> None:
    allowed = get_args(kind)
    if value not in allowed:
        raise ValueError(f"style.{name} must be one of {', '.join(allowed)}, got {value!r}")


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"style.{name} must be true or false, got {value!r}")


def _number_above(name: str, value: Any, least: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= least:
        raise ValueError(f"style.{name} must be a finite number above {least}, got {value!r}")
    # One form of a number, so that equal styles hash equal.
    return float(value)


@dataclass(frozen=True, slots=True)
class NormStyle:
    """Norms of the residual stream, and where they are.

    ``pre`` norms feed each block and, after the last layer, the head; ``post`` norms follow each
    addition to the stream. ``on_queries_and_keys`` norms the features of each head.
    """

    kind: NormKind = "layer"
    epsilon: float = 1e-5
    place: NormPlace = "pre"
    after_embeddings: bool = False
    on_queries_and_keys: bool = False

    def __post_init__(self) -> None:
        """Validate every field."""
        _check_among("norm.kind", self.kind, NormKind)
        _check_among("norm.place", self.place, NormPlace)
        object.__setattr__(self, "epsilon", _number_above("norm.epsilon", self.epsilon, 0))
        _check_flag("norm.after_embeddings", self.after_embeddings)
        _check_flag("norm.on_queries_and_keys", self.on_queries_and_keys)


@dataclass(frozen=True, slots=True)
class RotaryScaling:
    """Frequencies of rotary positions for contexts longer than those of pretraining.

    ``linear`` divides all by ``factor`` (Chen et al. 2023). ``llama3`` divides low ones, whose
    wavelength is above ``original_length / low_frequency_factor``, leaves those below
    ``original_length / high_frequency_factor``, and interpolates between.
    """

    kind: Scaling = "linear"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_length: int = 8192

    def __post_init__(self) -> None:
        """Validate every field."""
        where = "positions.scaling"
        _check_among(f"{where}.kind", self.kind, Scaling)
        for name, least in (
            ("factor", 0),
            ("low_frequency_factor", 0),
            ("high_frequency_factor", self.low_frequency_factor),
        ):
            number = _number_above(f"{where}.{name}", getattr(self, name), least)
            object.__setattr__(self, name, number)
        require_positive_int(f"style.{where}.original_length", self.original_length)


@dataclass(frozen=True, slots=True)
class PositionStyle:
    """How tokens get their positions: a learned table, rotated queries and keys, or not at all.

    Rotary positions: Su et al. 2021; the two halves of a head's features are rotated together.
    """

    kind: Positions = "learned"
    theta: float = 10_000.0
    scaling: RotaryScaling | None = None

    def __post_init__(self) -> None:
        """Validate every field; only rotary positions have angles."""
        _check_among("positions.kind", self.kind, Positions)
        object.__setattr__(self, "theta", _number_above("positions.theta", self.theta, 1))
        if self.scaling is not None and not isinstance(self.scaling, RotaryScaling):
            raise ValueError(
                f"style.positions.scaling must be a RotaryScaling or null, got {self.scaling!r}"
            )
        if self.kind != "rotary" and (self.theta != 10_000.0 or self.scaling is not None):
            raise ValueError(
                f"style.positions.theta and scaling must be left out for {self.kind} positions, "
                f"got {self.theta} and {self.scaling!r}"
            )


@dataclass(frozen=True, slots=True)
class BiasStyle:
    """Which linear maps have a bias: of queries, keys and values; of their output; others."""

    qkv: bool = True
    o: bool = True
    ffn: bool = True
    head: bool = True

    def __post_init__(self) -> None:
        """Validate every field."""
        for each in fields(self):
            _check_flag(f"biases.{each.name}", getattr(self, each.name))


@dataclass(frozen=True)
class BlockStyle:
    """The choices of a network that all its layers share.

    With ``is_gated`` the feed-forward block is ``down(activation(gate(x)) * up(x))`` (Shazeer
    2020). ``n_token_types`` embeds the segment of each token of a text; ``n_prefix_tokens``
    learned tokens stand before an image's patches (class, distillation, register tokens). With
    ``is_causal`` tokens attend to themselves and those before them in every workload; padding
    must then be at the end of a text.

    ``pooling`` makes one vector of a sample where the workload has one output for each:

    * ``mean``: the mean over tokens, without padding and without prefix tokens;
    * ``cls``, ``last``: the first token; the last that is no padding;
    * ``pooler``, ``pooler-relu``: a linear map of the first token, then tanh (BERT) or ReLU
      (DistilBERT);
    * ``cls-mean``: the first token joined with the mean over patches (DINOv2);
    * ``prefix``: all prefix tokens, joined (DeiT's class and distillation tokens).

    Where outputs are over a vocabulary, the output layer is the embedding with ``is_head_tied``,
    and reads a linear map, activation and norm of each token with ``has_head_transform`` (BERT's
    masked language modelling).

    Raises:
        ValueError: a field is out of range; the message names field, value and what is allowed.
    """

    norm: NormStyle = field(default_factory=NormStyle)
    activation: Activation = "gelu"
    is_gated: bool = False
    positions: PositionStyle = field(default_factory=PositionStyle)
    biases: BiasStyle = field(default_factory=BiasStyle)
    n_token_types: int = 0
    n_prefix_tokens: int = 0
    pooling: Pooling = "mean"
    is_head_tied: bool = False
    has_head_transform: bool = False
    is_causal: bool = False

    def __post_init__(self) -> None:
        """Validate every field."""
        for name, kind in _PARTS.items():
            if not isinstance(getattr(self, name), kind):
                raise ValueError(
                    f"style.{name} must be a {kind.__name__}, got {getattr(self, name)!r}"
                )
        _check_among("activation", self.activation, Activation)
        _check_among("pooling", self.pooling, Pooling)
        for name in ("is_gated", "is_head_tied", "has_head_transform", "is_causal"):
            _check_flag(name, getattr(self, name))
        for name in ("n_token_types", "n_prefix_tokens"):
            n = getattr(self, name)
            if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 2**16:
                raise ValueError(f"style.{name} must be an integer in 0..65535, got {n!r}")
        if self.pooling in ("cls-mean", "prefix") and not self.n_prefix_tokens:
            raise ValueError(
                f"style.n_prefix_tokens must be >= 1 for the pooling {self.pooling}, got 0"
            )

    @property
    def is_rotary(self) -> bool:
        """Whether queries and keys are rotated by their positions."""
        return self.positions.kind == "rotary"

    @property
    def is_pre_norm(self) -> bool:
        """Whether blocks read a norm of the stream, and the head another."""
        return self.norm.place == "pre"

    @property
    def has_pooler(self) -> bool:
        """Whether pooling ends with a linear map."""
        return self.pooling in ("pooler", "pooler-relu")

    @property
    def n_pooled(self) -> int:
        """Number of vectors of the stream's width that pooling joins."""
        return {"cls-mean": 2, "prefix": self.n_prefix_tokens}.get(self.pooling, 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON without the default values; ``from_dict`` reads it back."""
        return _changes(self)

    @classmethod
    def from_dict(cls, data: object) -> BlockStyle:
        """Read ``to_dict``'s form.

        Raises:
            ValueError: a key is unknown, or its value not allowed.
        """
        values = dict(_checked("style", data, cls))
        for name, kind in _PARTS.items():
            if name in values:
                part = dict(_checked(f"style.{name}", values[name], kind))
                if part.get("scaling") is not None:
                    where = f"style.{name}.scaling"
                    part["scaling"] = RotaryScaling(
                        **_checked(where, part["scaling"], RotaryScaling)
                    )
                values[name] = kind(**part)
        return cls(**values)

    def describe(self) -> str:
        """Name in ``STYLES``, or the nearest one's and the values that differ from it."""
        own = _flat(self)
        differences = {
            name: [f"{key}={value}" for key, value in own.items() if flat.get(key) != value]
            for name, flat in ((name, _flat(style)) for name, style in STYLES.items())
        }
        nearest = min(differences, key=lambda name: len(differences[name]))
        changed = differences[nearest]
        return f"{nearest}({','.join(changed)})" if self != STYLES[nearest] else nearest


_PARTS: dict[str, type] = {"norm": NormStyle, "positions": PositionStyle, "biases": BiasStyle}


def _changes(record: Any) -> dict[str, Any]:
    """Fields of a record that differ from its defaults, as plain data."""
    plain = type(record)()
    changed = {f.name: getattr(record, f.name) for f in fields(record)}
    return {
        name: _changes(value) if is_dataclass(value) else value
        for name, value in changed.items()
        if value != getattr(plain, name)
    }


def _checked(where: str, data: object, kind: type) -> Mapping[str, Any]:
    check_keys(where, data, frozenset(), may_lack={f.name for f in fields(kind)})
    assert isinstance(data, Mapping)
    return data


def _flat(record: Any, prefix: str = "") -> dict[str, Any]:
    """Values of a record and of the records in it, by dotted names."""
    flat: dict[str, Any] = {}
    for each in fields(record):
        value, name = getattr(record, each.name), f"{prefix}{each.name}"
        flat |= _flat(value, f"{name}.") if is_dataclass(value) else {name: value}
    return flat


DEFAULT_STYLE = BlockStyle()
_NO_BIASES = BiasStyle(qkv=False, o=False, ffn=False, head=False)

# Epsilons and angles are those of the checkpoints named.
STYLES: dict[str, BlockStyle] = {
    "default": DEFAULT_STYLE,
    # BERT (Devlin et al. 2019), and with other inputs RoBERTa, MiniLM, E5 and BGE.
    "bert": BlockStyle(
        NormStyle(epsilon=1e-12, place="post", after_embeddings=True),
        n_token_types=2,
        pooling="pooler",
    ),
    # ViT and DeiT (Dosovitskiy et al. 2021).
    "vit": BlockStyle(NormStyle(epsilon=1e-12), n_prefix_tokens=1, pooling="cls"),
    "gpt2": BlockStyle(activation="gelu-tanh", biases=BiasStyle(head=False), is_head_tied=True),
    # Llama (Touvron et al. 2023), SmolLM2, Mistral.
    "llama": BlockStyle(
        NormStyle("rms"),
        "silu",
        is_gated=True,
        positions=PositionStyle("rotary"),
        biases=_NO_BIASES,
        is_head_tied=True,
    ),
    "qwen2": BlockStyle(
        NormStyle("rms", 1e-6),
        "silu",
        is_gated=True,
        positions=PositionStyle("rotary", 1_000_000.0),
        biases=BiasStyle(o=False, ffn=False, head=False),
        is_head_tied=True,
    ),
    "qwen3": BlockStyle(
        NormStyle("rms", 1e-6, on_queries_and_keys=True),
        "silu",
        is_gated=True,
        positions=PositionStyle("rotary", 1_000_000.0),
        biases=_NO_BIASES,
        is_head_tied=True,
    ),
}
