"""HW-GPT-Bench (Sukthanker et al. 2024) through the reader packed with its surrogates.

The folder holds ``oracle.py``, which is code: it is imported, so give the path of a folder that
you trust. Rows are random architectures of one scale, labelled by the surrogate.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.tables.table import Table

_TOKENS = 1024.0
_VOCABULARY = 50_257.0


def load_oracle(folder: Path) -> Any:
    """The module ``oracle.py`` in ``folder``.

    Raises:
        ValueError: there is none.
    """
    path = folder / "oracle.py"
    spec = importlib.util.spec_from_file_location("hwgpt_oracle", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"folder {folder} must hold oracle.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_hwgpt(
    folder: Path, *, scale: str = "s", device: str = "h100", n: int = 3000, seed: int = 0
) -> Table:
    """``n`` random architectures with the surrogate's energy on ``device`` (relative units)."""
    module = load_oracle(folder)
    oracle, rng = module.Oracle(scale), np.random.default_rng(seed)
    models = [module.sample(rng, scale) for _ in range(n)]
    target = np.asarray(oracle.hw_metric(models, device=device, metric="energies"), dtype=float)
    terms, counts = [], []
    for width, depth, ratios, heads, _ in models:
        ffn = 2 * width * width * sum(ratios) * _TOKENS
        project = 4 * width * width * depth * _TOKENS
        attend = 2 * _TOKENS * _TOKENS * width * depth
        output = width * _VOCABULARY * _TOKENS
        macs = ffn + project + attend + output
        moved = [_TOKENS * width * sum(ratios), _TOKENS * width * depth, sum(heads) * _TOKENS**2]
        terms.append([ffn, project, attend, output, 1.0, depth, *moved, sum(heads)])
        counts.append([np.log(macs), np.log(ffn), np.log(project), sum(ratios), sum(heads)])
    values = np.array(terms, dtype=float)
    return Table(
        name=f"hwgpt {scale} {device} energy",
        raw=np.asarray(module.hw_features(models, scale), dtype=float),
        counts=np.array(counts, dtype=float),
        terms=values,
        term_groups={"compute": (0, 1, 2, 3)},
        flops=values[:, :4].sum(axis=1),
        target=target,
        relative_sd=np.full(n, 0.01),
        groups=np.arange(n),
    )
