"""Problems by the text that names them, so that workers can make their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from experiments.benchmarks.sampling.problems.canonical import CanonicalForm, load_canonical
from experiments.benchmarks.sampling.problems.cells import cell_table
from experiments.benchmarks.sampling.problems.dtlz import dtlz2
from experiments.benchmarks.sampling.problems.graphs import graph_table
from experiments.benchmarks.sampling.problems.hwgpt import hwgpt
from experiments.benchmarks.sampling.problems.noise import MeasurementNoise
from experiments.benchmarks.sampling.problems.problem import Problem
from experiments.benchmarks.sampling.problems.scoring import DIRECTIONS, SCALES, Scoring
from experiments.benchmarks.sampling.problems.sparse import sparse_table
from experiments.benchmarks.sampling.problems.synthetic import layers, mixed
from experiments.benchmarks.sampling.problems.tabular import read_table, table_problem
from nas.samplers.objectives import doubt, usual_direction


@dataclass(frozen=True)
class ProblemName:
    """``kind`` is ``hwgpt`` (energy of ``device``), ``dtlz2``, ``table`` or in ``MADE_UP``.

    With ``noise``, costs are seen with this relative standard deviation, and rates as those of
    ``validation_size`` samples.
    """

    kind: str
    path: Path = Path()
    objectives: tuple[str, str] = ("", "")
    directions: tuple[str, str] = ("min", "min")
    scales: tuple[str, str] = ("linear", "linear")
    ignore: tuple[str, ...] = ()
    device: str = "h100"
    canonical: tuple[Path, str] | None = None
    n_objectives: int = 2
    noise: float = 0.0
    validation_size: int = 0

    @property
    def doubtful(self) -> list[str]:
        """Questions about objectives whose direction is not the usual one, by their names."""
        pairs = zip(self.objectives, self.directions, strict=True)
        questions = [doubt(name, maximize=way == "max") for name, way in pairs]
        return [question for question in questions if question is not None]


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
    likely = [usual_direction(name) or "min" for name in objectives]
    if directions is None and "max" in likely:
        raise ValueError(
            f"table {path}: {objectives[likely.index('max')]!r} would be minimised; add "
            f":{','.join(likely)} if more of it is better, or :min,min if not"
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


@cache
def make_problem(name: ProblemName) -> Problem:
    """The problem of a name; read or built once in a process.

    Raises:
        ValueError: there is none, or its files cannot be read.
    """
    if name.noise:
        problem = make_problem(replace(name, noise=0.0))
        return _with_noise(problem, name.noise, name.validation_size)
    match name.kind:
        case "hwgpt":
            return hwgpt(name.path, name.device, name.n_objectives)
        case "dtlz2":
            return dtlz2(name.n_objectives)
        case "table":
            problem = read_table(
                name.path, name.objectives, name.directions, name.scales, name.ignore
            )
            return problem if name.canonical is None else _with_canonical(problem, name.canonical)
    if name.kind not in MADE_UP:
        raise ValueError(
            f"kind must be hwgpt, dtlz2, table or one of {', '.join(MADE_UP)}, got {name.kind!r}"
        )
    return MADE_UP[name.kind]()


def _with_noise(problem: Problem, relative_sd: float, n_samples: int) -> Problem:
    """Return the problem with measurements in place of exact values.

    Raises:
        ValueError: the losses are not known to be a rate and a cost.
    """
    if problem.measured is None:
        raise ValueError(
            f"--noise must be of a rate from 0 to 1, scored linearly, and of a positive cost that "
            f"is minimised, in this order, and problem {problem.name} has others"
        )
    return replace(
        problem,
        name=f"{problem.name}-noise-{100 * relative_sd:g}",
        about=f"{problem.about}; costs are seen with {100 * relative_sd:g}% of noise, rates as of "
        f"{n_samples:,} samples; scored by the true losses of what was measured best",
        noise=MeasurementNoise(problem.measured, relative_sd, n_samples),
        is_scored_by_front=True,
    )


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


def _cells(scale: str) -> Problem:
    name = "cells" if scale == "linear" else f"cells-{scale}"
    scoring = Scoring(("accuracy", "energy_j"), ("max", "min"), ("linear", scale))
    return table_problem(Path(name), cell_table(), scoring)


SYNTHETIC = ("layers", "mixed")
MADE_TABLES = ("graphs", "sparse", "cells", "cells-log")
MADE_UP: dict[str, Callable[[], Problem]] = {
    "layers": layers,
    "mixed": mixed,
    "graphs": _graphs,
    "sparse": _sparse,
    "cells": lambda: _cells("linear"),
    "cells-log": lambda: _cells("log"),
}
