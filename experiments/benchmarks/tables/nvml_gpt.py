"""NVML readings of GPT-like networks: raw readings of HW-GPT-Bench (Sukthanker et al. 2024).

One row is a decoder that reads a batch of 8 x 1,024 tokens in bf16 autocast: the median and the
quartiles of joules a forward over 50 readings. The watts of a reading are one poll of
``nvidia-smi`` beside the forward. If a forward is short, the poll averages over idle time: a V100
shows 290 W in forwards of 240 ms, 220 W in those of 120 ms, and 77 W in those of 80 ms.
``NvmlRows.trusted`` leaves such rows out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.benchmarks.tables.frame import check_columns, check_filled, read_frame
from experiments.benchmarks.tables.table import Array
from predictors.energy.models import Observation
from search_spaces.architecture import (
    Architecture,
    AttentionSpec,
    BlockStyle,
    FfnSpec,
)
from search_spaces.architecture.blocks import Compression, LayerSpec
from search_spaces.architecture.style import BiasStyle, PositionStyle
from search_spaces.workload import Workload

_NUMBERS = (
    "d_model",
    "depth",
    "bias",
    "batch",
    "tokens",
    "energy_j_median",
    "energy_j_q25",
    "energy_j_q75",
    "power_w_median",
    "n_readings",
)
_TEXTS = ("gpu", "scale", "session", "heads", "mlp_ratios")
# The vocabulary is padded, and heads have 64 dimensions whatever the width.
_VOCABULARY = 50_304
_D_HEAD = 64
# Rows are left out below these seconds a forward and this share of a GPU's watts under load, and
# above this distance of the quartiles from each other, as a share of the median.
LEAST_SECONDS = 0.05
LEAST_POWER_SHARE = 0.5
MOST_QUARTILE_RANGE = 0.1
# Standard error of a normal sample's median over the distance of its quartiles, for one reading.
_SE_PER_RANGE = 1.2533 / 1.349


@dataclass(frozen=True)
class NvmlRows:
    """Rows of one GPU: architectures, joules a sample, and the measuring file of each row.

    ``seconds`` are of one forward. ``quartile_range`` is that of the readings of a row, over their
    median; ``relative_sd`` is the median's standard error.
    """

    gpu: str
    workload: Workload
    architectures: tuple[Architecture, ...]
    energy_j: Array
    quartile_range: Array
    relative_sd: Array
    seconds: Array
    power_w: Array
    session: NDArray[np.str_]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.energy_j)

    def rows(self, selection: NDArray[np.bool_] | NDArray[np.int64]) -> NvmlRows:
        """The rows that a mask or positions select."""
        positions = np.arange(len(self))[selection]
        return NvmlRows(
            self.gpu,
            self.workload,
            tuple(self.architectures[i] for i in positions),
            *(getattr(self, name)[positions] for name in _COLUMNS),
        )

    @property
    def trusted(self) -> NvmlRows:
        """Rows whose watts were read under load.

        A forward must take ``LEAST_SECONDS`` and draw ``LEAST_POWER_SHARE`` of the GPU's watts
        under load (their 95th percentile). Quartiles of its readings must be within
        ``MOST_QUARTILE_RANGE``: where they are not, some polls were beside the forward.
        """
        loaded_w = float(np.quantile(self.power_w, 0.95))
        is_loaded = self.power_w >= LEAST_POWER_SHARE * loaded_w
        agrees = self.quartile_range <= MOST_QUARTILE_RANGE
        return self.rows((self.seconds >= LEAST_SECONDS) & is_loaded & agrees)

    def observations(self) -> list[Observation]:
        """The rows as the predictor takes them; the measuring file is the group."""
        return [
            Observation(a, self.workload, float(e), float(sd), str(s), "cuda")
            for a, e, sd, s in zip(
                self.architectures, self.energy_j, self.relative_sd, self.session, strict=True
            )
        ]


_COLUMNS = ("energy_j", "quartile_range", "relative_sd", "seconds", "power_w", "session")


def read_nvml_gpt(path: Path) -> dict[str, NvmlRows]:
    """All rows by GPU, in lower case, in the order of the file.

    Raises:
        ValueError: a column is missing, or a cell is empty or not of that form.
    """
    data = read_frame(path)
    check_columns(data, (*_NUMBERS, *_TEXTS))
    check_filled(path, data, (*_NUMBERS, *_TEXTS))
    sizes = {(int(b), int(t)) for b, t in zip(data.batch, data.tokens, strict=True)}
    if len(sizes) > 1:
        raise ValueError(f"table {path} must have one batch size and length, got {sorted(sizes)}")
    ((batch_size, n_tokens),) = sizes
    workload = Workload(
        "gpt", "language_modelling", (n_tokens,), _VOCABULARY, batch_size, vocab_size=_VOCABULARY
    )
    found = {}
    for gpu, part in data.groupby(data.gpu.str.lower(), sort=False):
        energy_j = part.energy_j_median.to_numpy(float)
        power_w = part.power_w_median.to_numpy(float)
        spread = (part.energy_j_q75 - part.energy_j_q25).to_numpy(float) / energy_j
        found[str(gpu)] = NvmlRows(
            str(gpu),
            workload,
            tuple(_architecture(path, row) for row in part.itertuples()),
            energy_j / batch_size,
            spread,
            _SE_PER_RANGE * spread / np.sqrt(part.n_readings.to_numpy(float)),
            energy_j / power_w,
            power_w,
            (part.scale + " " + part.session).to_numpy(str),
        )
    return found


def _architecture(path: Path, row: Any) -> Architecture:
    """The decoder of a row: GPT-NeoX's blocks, with or without biases in every layer."""
    try:
        heads = [int(n) for n in row.heads.split("-")]
        ratios = [int(n) for n in row.mlp_ratios.split("-")]
    except ValueError:
        raise ValueError(
            f"table {path} must list whole numbers as 8-16-8, got {row.heads!r} and "
            f"{row.mlp_ratios!r}"
        ) from None
    if len(heads) != row.depth or len(ratios) != row.depth:
        raise ValueError(
            f"table {path} must list heads and ratios of each of {row.depth} layers, got "
            f"{len(heads)} and {len(ratios)}"
        )
    has_bias, width, bf16 = bool(row.bias), int(row.d_model), Compression("bf16")
    layers = tuple(
        LayerSpec(
            AttentionSpec(n, n, _D_HEAD, compression=bf16),
            FfnSpec(ratio * width, compression=bf16),
        )
        for n, ratio in zip(heads, ratios, strict=True)
    )
    style = BlockStyle(
        positions=PositionStyle("rotary"),
        biases=BiasStyle(qkv=has_bias, o=has_bias, ffn=has_bias, head=False),
    )
    return Architecture(width, layers, style=style)
