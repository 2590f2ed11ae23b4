"""Problems by the text that names them, so that workers can make their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.search.problem import Array, Problem
from experiments.benchmarks.search.space import Config, choice
from experiments.benchmarks.search.synthetic import layers, mixed
from experiments.benchmarks.search.tabular import read_table
from experiments.benchmarks.tables.hwgpt import load_oracle

# The best-known front's hypervolume at this reference point, as others' shares were counted.
_HWGPT_REFERENCE, _HWGPT_BEST = (41.848, -3.1852), 3.5092
# What NSGA-II reaches in 1,000 evaluations.
_HWGPT_MILESTONE = 0.946


@dataclass(frozen=True)
class ProblemName:
    """``kind`` is ``hwgpt`` (energy of ``device``), ``table``, ``layers`` or ``mixed``."""

    kind: str
    path: Path = Path()
    objectives: tuple[str, str] = ("", "")
    directions: tuple[str, str] = ("min", "min")
    ignore: tuple[str, ...] = ()
    device: str = "h100"


def parse_table(text: str, ignore: Sequence[str] = ()) -> ProblemName:
    """``FILE.csv:objective1,objective2[:max,min]``.

    Raises:
        ValueError: it has another form.
    """
    path, _, rest = text.partition(":")
    names, _, directions = rest.partition(":")
    objectives, ways = tuple(names.split(",")), tuple((directions or "min,min").split(","))
    if len(objectives) != 2 or not all(objectives) or len(ways) != 2:
        raise ValueError(f"--table must be FILE.csv:objective1,objective2[:max,min], got {text!r}")
    return ProblemName("table", Path(path), objectives, ways, tuple(ignore))


@cache
def make_problem(name: ProblemName) -> Problem:
    """The problem of a name; read or built once in a process.

    Raises:
        ValueError: there is none, or its files cannot be read.
    """
    match name.kind:
        case "hwgpt":
            return _hwgpt(name.path, name.device)
        case "table":
            return read_table(name.path, name.objectives, name.directions, name.ignore)
        case "layers":
            return layers()
        case "mixed":
            return mixed()
    raise ValueError(f"kind must be hwgpt, table, layers or mixed, got {name.kind!r}")


def _hwgpt(folder: Path, device: str) -> Problem:
    module = load_oracle(folder)
    oracle: Any = module.Oracle("s")
    if device not in oracle.devices():
        raise ValueError(f"device must be one of {', '.join(oracle.devices())}, got {device!r}")
    sizes = module.SPACE["s"]
    parameters = [
        choice("embed", *sizes["embed"]),
        choice("n_layer", *sizes["layer"]),
        choice("bias", True, False),
    ]
    for part in ("mlp", "head"):
        parameters += [
            choice(f"{part}_{i}", *sizes[part], above=("n_layer", i))
            for i in range(max(sizes["layer"]))
        ]

    def truth(configs: Sequence[Config]) -> Array:
        models = [
            (
                c["embed"],
                c["n_layer"],
                [c[f"mlp_{i}"] for i in range(c["n_layer"])],
                [c[f"head_{i}"] for i in range(c["n_layer"])],
                c["bias"],
            )
            for c in configs
        ]
        energy = np.asarray(oracle.hw_metric(models, device=device, metric="energies"))
        return np.column_stack([np.asarray(oracle.perplexity(models)), np.log10(energy)])

    return Problem(
        name=f"hwgpt-s-{device}",
        about="perplexity and log10 energy by the surrogates (front: best known, not proven)",
        parameters=tuple(parameters),
        truth=truth,
        reference=_HWGPT_REFERENCE,
        best=lambda: _HWGPT_BEST,
        milestone=_HWGPT_MILESTONE,
    )
