"""Problems by the text that names them, so that workers can make their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.sampling.problems.architectures import Architectures, Values, stack
from experiments.benchmarks.sampling.problems.canonical import CanonicalForm, load_canonical
from experiments.benchmarks.sampling.problems.graphs import graph_table
from experiments.benchmarks.sampling.problems.problem import Array, Problem
from experiments.benchmarks.sampling.problems.scoring import DIRECTIONS, SCALES, Scoring
from experiments.benchmarks.sampling.problems.space import Config, choice
from experiments.benchmarks.sampling.problems.sparse import sparse_table
from experiments.benchmarks.sampling.problems.synthetic import layers, mixed
from experiments.benchmarks.sampling.problems.tabular import read_table, table_problem
from experiments.benchmarks.tables.hwgpt import load_oracle
from search_spaces.space.batch import ArchitectureBatch
from search_spaces.workload import Workload

# The best-known front's hypervolume at this reference point, as others' shares were counted.
_HWGPT_REFERENCE, _HWGPT_BEST = (41.848, -3.1852), 3.5092
# Words of a column's name: more of the first is better, unless one of the others is there as well.
_MAXIMISED = frozenset(
    ("accuracy", "acc", "auc", "auroc", "f1", "bleu", "chrf", "recall", "iou", "miou", "score")
    + ("psnr", "ssim", "throughput", "fps")
)
_MINIMISED = frozenset(("error", "err", "loss", "drop", "gap", "regret"))
# What NSGA-II reaches in 1,000 evaluations.
_HWGPT_MILESTONE = 0.946


@dataclass(frozen=True)
class ProblemName:
    """``kind`` is ``hwgpt`` (energy of ``device``), ``table`` or a name in ``MADE_UP``."""

    kind: str
    path: Path = Path()
    objectives: tuple[str, str] = ("", "")
    directions: tuple[str, str] = ("min", "min")
    scales: tuple[str, str] = ("linear", "linear")
    ignore: tuple[str, ...] = ()
    device: str = "h100"
    canonical: tuple[Path, str] | None = None

    @property
    def doubtful(self) -> list[str]:
        """Objectives that are minimised although more of them is better by their name."""
        pairs = zip(self.objectives, self.directions, strict=True)
        return [name for name, way in pairs if way == "min" and _is_maximised(name)]


def parse_table(text: str, ignore: Sequence[str] = ()) -> ProblemName:
    """``FILE.csv:objective1,objective2[:max,min[:linear,log]]``; the path may have colons.

    Raises:
        ValueError: it has another form, or no direction for what is rarely minimised.
    """
    rest, scales = _scales(text)
    path, names, directions = _parts(rest)
    objectives, ways = tuple(names.split(",")), tuple((directions or "min,min").split(","))
    if not path or len(objectives) != 2 or not all(objectives) or len(ways) != 2:
        raise ValueError(
            f"--table must be FILE.csv:objective1,objective2[:max,min[:linear,log]], got {text!r}"
        )
    if objectives[0] == objectives[1]:
        raise ValueError(f"table {path}: objectives must be two columns, got {names!r}")
    problem = ProblemName("table", Path(path), objectives, ways, scales, tuple(ignore))
    doubtful = problem.doubtful
    if doubtful and directions is None:
        likely = ",".join("max" if name in doubtful else "min" for name in objectives)
        raise ValueError(
            f"table {path}: {doubtful[0]!r} would be minimised; add :{likely} if more of it is "
            f"better, or :min,min if not"
        )
    return problem


def _scales(text: str) -> tuple[str, tuple[str, str]]:
    """The text without its scales, and the scales, linear where there are none."""
    rest, _, last = text.rpartition(":")
    words = last.split(",")
    ways = rest.rpartition(":")[2].split(",")
    # After directions come scales, mistyped ones too; ``Scoring`` rejects those by name.
    is_scale = set(words) <= set(SCALES) or (len(ways) == 2 and set(ways) <= set(DIRECTIONS))
    if rest and len(words) == 2 and is_scale:
        return rest, (words[0], words[1])
    return text, ("linear", "linear")


def _parts(text: str) -> tuple[str, str, str | None]:
    """Path, objectives, and directions where there are any, split from the right."""
    rest, _, last = text.rpartition(":")
    before, _, names = rest.rpartition(":")
    is_direction = set(last.split(",")) <= {"max", "min"}
    # A mistyped direction is one, too, unless what stands before it is a file.
    if before and (is_direction or ("," in names and not Path(rest).is_file())):
        return before, names, last
    return rest, last, None


def _is_maximised(name: str) -> bool:
    words = set(re.findall(r"[A-Z]?[a-z]+\d*|[A-Z]+\d*", name.replace("_", " ")))
    lower = {word.lower() for word in words}
    return bool(lower & _MAXIMISED) and not lower & _MINIMISED


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
            problem = read_table(
                name.path, name.objectives, name.directions, name.scales, name.ignore
            )
            return problem if name.canonical is None else _with_canonical(problem, name.canonical)
    if name.kind not in MADE_UP:
        raise ValueError(
            f"kind must be hwgpt, table or one of {', '.join(MADE_UP)}, got {name.kind!r}"
        )
    return MADE_UP[name.kind]()


def _with_canonical(problem: Problem, function: tuple[Path, str]) -> Problem:
    """Return the problem in which each proposal, whoever's, has its canonical form's values."""
    path, name = function
    form = CanonicalForm(load_canonical(path, name), problem.parameters)
    return replace(
        problem,
        name=f"{problem.name}-canonical",
        about=f"{problem.about}; proposals have the values of their canonical form by {name}, "
        "which ours is told",
        truth=lambda configs: problem.truth([form.filled(config) for config in configs]),
        row=lambda config: problem.row_of(form.filled(config)),
        canonical_rows=form.rows,
    )


def parse_canonical(text: str | None) -> tuple[Path, str] | None:
    """``FILE.py:FUNCTION``.

    Raises:
        ValueError: it has another form.
    """
    if text is None:
        return None
    path, _, name = text.rpartition(":")
    if not path or not name.isidentifier():
        raise ValueError(f"--canonical must be FILE.py:FUNCTION, got {text!r}")
    return Path(path), name


def _graphs() -> Problem:
    return table_problem(
        Path("graphs"), graph_table(), Scoring(("accuracy", "energy_j"), ("max", "min"))
    )


def _sparse() -> Problem:
    return table_problem(Path("sparse"), sparse_table(), Scoring(("error", "energy_j")))


MADE_UP: dict[str, Callable[[], Problem]] = {
    "layers": layers,
    "mixed": mixed,
    "graphs": _graphs,
    "sparse": _sparse,
}


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

    def batch_of(columns: Values) -> ArchitectureBatch:
        layers = range(max(sizes["layer"]))
        heads, ratios = (
            np.stack([columns[f"{part}_{i}"] for i in layers], axis=1) for part in ("head", "mlp")
        )
        return stack(columns["embed"], columns["n_layer"], heads, ratios)

    return Problem(
        name=f"hwgpt-s-{device}",
        about="perplexity and log10 energy by the surrogates (front: best known, not proven)",
        parameters=tuple(parameters),
        truth=truth,
        reference=_HWGPT_REFERENCE,
        best=lambda: _HWGPT_BEST,
        milestone=_HWGPT_MILESTONE,
        architectures=Architectures(
            Workload("hwgpt", "language_modelling", (1024,), 50_257, 1, vocab_size=50_257),
            batch_of,
            # Biases change perplexity by 0.04 of 20 and no joules.
            fixed={"bias": True},
            error_scale=1e-3,
        ),
    )
