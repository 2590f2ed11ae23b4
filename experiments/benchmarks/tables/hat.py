"""Encoder-decoder latencies of HAT (Wang et al. 2020): the CSV of its latency datasets.

Counts are per sentence of ``_TOKENS`` tokens on both sides; its attention has 512 dimensions
whatever the width, and its decoder runs once a token.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from experiments.benchmarks.tables.table import Table

_TOKENS = 30.0
_D_ATTENTION = 512.0
_VOCABULARY = 32_000.0
_COLUMNS = (
    "encoder_embed_dim",
    "encoder_layer_num",
    "encoder_ffn_embed_dim_avg",
    "encoder_self_attention_heads_avg",
    "decoder_embed_dim",
    "decoder_layer_num",
    "decoder_ffn_embed_dim_avg",
    "decoder_self_attention_heads_avg",
    "decoder_ende_attention_heads_avg",
    "decoder_arbitrary_ende_attn_avg",
)


def read_hat(path: Path) -> Table:
    """The table in a CSV of HAT; the target is milliseconds of encoder and decoder together.

    Raises:
        ValueError: a column is missing.
    """
    data = pd.read_csv(path)
    labels = [f"latency_{kind}_{side}" for kind in ("mean", "std") for side in _SIDES]
    missing = [name for name in (*_COLUMNS, *labels) if name not in data]
    if missing:
        raise ValueError(f"table {path} must have the columns of HAT, lacks {', '.join(missing)}")
    raw = data[list(_COLUMNS)].to_numpy(float)
    d_enc, enc, ff_enc, heads_enc, d_dec, dec, ff_dec, heads_dec, heads_cross, sources = raw.T
    # Encoder layers that each cross-attention reads: its keys are that many times as long.
    sources = np.maximum(sources, 1)
    square = _TOKENS * _TOKENS * _D_ATTENTION
    compute = {
        "encoder": [
            enc * (4 * d_enc * _D_ATTENTION + 2 * d_enc * ff_enc) * _TOKENS,
            enc * 2 * square,
        ],
        "decoder": [
            dec * 6 * d_dec * _D_ATTENTION * _TOKENS,
            dec * 2 * d_dec * ff_dec * _TOKENS,
            dec * 2 * d_enc * _D_ATTENTION * _TOKENS * sources,
            dec * square * (1 + 2 * sources),
        ],
        "output": [d_dec * _VOCABULARY * _TOKENS],
    }
    launches = [np.ones(len(raw)), enc, enc * heads_enc, dec, dec * heads_dec, dec * heads_cross]
    columns = list(launches)
    groups = {}
    for name, found in compute.items():
        groups[name] = tuple(range(len(columns), len(columns) + len(found)))
        columns += found
    macs = sum(column for found in compute.values() for column in found)
    target = data[labels[:2]].sum(axis=1).to_numpy(float)
    counts = [macs, sum(compute["encoder"]), sum(compute["decoder"]), enc * ff_enc, dec * ff_dec]
    return Table(
        name=f"hat {path.stem}",
        raw=raw,
        counts=np.log(np.column_stack(counts)),
        terms=np.column_stack(columns),
        term_groups=groups,
        flops=np.asarray(macs),
        target=target,
        relative_sd=np.hypot(*data[labels[2:]].to_numpy(float).T) / target,
        groups=np.arange(len(raw)),
    )


_SIDES = ("encoder", "decoder")
