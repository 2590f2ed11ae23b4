"""The samplers that are compared, all by ask and tell, and how each is set up.

What is not installed is named with its pip line when it is asked for.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol, cast

from experiments.benchmarks.sampling.problems.problem import Problem
from experiments.benchmarks.sampling.problems.space import Config
from experiments.results.sheet import ROOT

OURS, SEARCH = "ours", "search"
_PACKAGE = "experiments.benchmarks.sampling.peers."
_OURS_SOURCES = ("nas/samplers/*.py", "nas/pareto/dominance.py", "nas/pareto/hypervolume.py")
# What a search's sampler depends on besides.
_SEARCH_SOURCES = (
    "nas/searching/gating/*.py",
    "nas/searching/controller/sampler_by_name.py",
    "nas/searching/controller/loss_models.py",
    "predictors/energy/*.py",
)


class Searcher(Protocol):
    """One search of one problem."""

    def ask(self) -> Config:
        """Propose a candidate: its active parameters."""
        ...

    def tell(self, number: int, losses: Sequence[float]) -> None:
        """Record the losses of proposal ``number``, counted from 0.

        A sampler without ``Peer.is_parallel`` receives them before it proposes again.
        """
        ...


@dataclass(frozen=True)
class Peer:
    """A sampler: made by ``function`` of ``module`` for a problem and a seed.

    ``is_dear`` ones are run when they are named only: they are slow, or need architectures.
    ``is_parallel`` ones can propose again before they know the losses of earlier proposals.
    """

    name: str
    about: str
    module: str
    function: str
    distribution: str
    is_dear: bool = False
    is_parallel: bool = False

    def make(self, problem: Problem, seed: int) -> Searcher:
        """A fresh search."""
        module = importlib.import_module(_PACKAGE + self.module)
        return cast(Searcher, getattr(module, self.function)(problem, seed))

    def version(self) -> str:
        """What results depend on: the package's version; of ours, its code.

        Raises:
            ValueError: the package is not installed.
        """
        if self.name in (OURS, SEARCH):
            digest = hashlib.sha256()
            for pattern in (*_OURS_SOURCES, *_SEARCH_SOURCES * (self.name == SEARCH)):
                for path in sorted(ROOT.glob(pattern)):
                    digest.update(without_words(path.read_text()).encode())
            return digest.hexdigest()[:12]
        try:
            return f"{self.distribution} {version(self.distribution)}"
        except PackageNotFoundError:
            raise ValueError(
                f"sampler {self.name} needs {self.distribution}: pip install 'joulenas[peers]'"
            ) from None


def without_words(source: str) -> str:
    """Code without comments, docstrings and layout, on which no result depends."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        is_documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if is_documented and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()
    return ast.dump(tree)


_ALL = (
    Peer(
        OURS,
        "EhviSampler, told whether each candidate has values of its own, without noise",
        "optuna_peers",
        "ours",
        "joulenas",
        is_parallel=True,
    ),
    Peer(
        SEARCH,
        "EhviSampler as a search makes it, on architectures",
        "search_peer",
        "search",
        "joulenas",
        is_dear=True,
    ),
    Peer(
        "random",
        "Optuna RandomSampler",
        "optuna_peers",
        "random",
        "optuna",
        is_parallel=True,
    ),
    Peer(
        "nsga2",
        "Optuna NSGAIISampler (population 50)",
        "optuna_peers",
        "nsga2",
        "optuna",
        is_parallel=True,
    ),
    Peer(
        "nsga3",
        "Optuna NSGAIIISampler (population 50)",
        "optuna_peers",
        "nsga3",
        "optuna",
        is_parallel=True,
    ),
    Peer(
        "tpe",
        "Optuna TPESampler (multivariate)",
        "optuna_peers",
        "tpe",
        "optuna",
        is_parallel=True,
    ),
    Peer(
        "tpe-group",
        "Optuna TPESampler (multivariate, group: for conditional spaces)",
        "optuna_peers",
        "tpe_group",
        "optuna",
        is_parallel=True,
    ),
    Peer(
        "pymoo-nsga2",
        "pymoo NSGA-II (mixed variables, population 50)",
        "pymoo_peer",
        "nsga2",
        "pymoo",
    ),
    Peer(
        "syne-morea",
        "Syne Tune MultiObjectiveRegularizedEvolution (population 50)",
        "syne_peers",
        "regularized_evolution",
        "syne-tune",
    ),
    Peer(
        "gp",
        "Optuna GPSampler",
        "optuna_peers",
        "gp",
        "optuna",
        is_dear=True,
        is_parallel=True,
    ),
    Peer(
        "qlognehvi",
        "BoTorch qLogNEHVI (10 Sobol starts, mixed alternating optimiser)",
        "botorch_peer",
        "qlognehvi",
        "botorch",
        is_dear=True,
    ),
)
PEERS = {peer.name: peer for peer in _ALL}
CHEAP = tuple(peer.name for peer in _ALL if not peer.is_dear)
