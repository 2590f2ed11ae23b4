"""A table of graphs whose encodings repeat each other, with made-up accuracies and joules.

The rows are the cells of NAS-Bench-101 (Ying et al. 2019) with at most five vertices: directed
acyclic graphs of labelled operations, each isomorphism class once, 2,532 in all. The columns are
the ten possible edges and the operations of three inner vertices, a grid of 65,536 encodings. As
in a table that others publish, each graph has one of its encodings, and rows are in no order.
Accuracy follows from a law in closed form plus an effect of each row that no law explains; joules
follow from a count of operations.
"""

from __future__ import annotations

from itertools import combinations, permutations, product

import numpy as np
import pandas as pd

OPERATIONS = ("conv1x1", "conv3x3", "maxpool")
ABSENT = "none"
_VERTICES, _MOST_EDGES = 5, 9
_PAIRS = tuple(combinations(range(_VERTICES), 2))
_STRENGTH = {"conv1x1": 0.45, "conv3x3": 1.0, "maxpool": 0.25}
_COST = {"conv1x1": 1.0, "conv3x3": 9.0, "maxpool": 0.3}
_ROW_SD, _SEED = 0.005, 0

# Operations of the inner vertices, then the edges between input 0, inner vertices 1, 2, ... and
# the output, which has the largest number.
Graph = tuple[tuple[str, ...], frozenset[tuple[int, int]]]


def canonical(graph: Graph) -> Graph | None:
    """Return one form of all graphs that compute the same, ``None`` without a path to the output.

    Vertices that lie on no path from input to output are removed; of the orders of the others the
    least is taken.
    """
    graph_pruned = _pruned(graph)
    if graph_pruned is None:
        return None
    return min(_orders(graph_pruned), key=lambda form: (form[0], sorted(form[1])))


def _orders(graph: Graph) -> list[Graph]:
    """Return the graph in each order of its inner vertices that keeps edges ascending."""
    operations, edges = graph
    n, forms = len(operations), []
    for order in permutations(range(1, n + 1)):
        place = {0: 0, n + 1: n + 1} | {old: new for new, old in enumerate(order, 1)}
        moved = frozenset((place[a], place[b]) for a, b in edges)
        if all(a < b for a, b in moved):
            forms.append((tuple(operations[old - 1] for old in order), moved))
    return forms


def _pruned(graph: Graph) -> Graph | None:
    operations, edges = graph
    last = len(operations) + 1
    from_input, to_output = {0}, {last}
    for a, b in sorted(edges):
        if a in from_input:
            from_input.add(b)
    for a, b in sorted(edges, reverse=True):
        if b in to_output:
            to_output.add(a)
    alive = sorted(from_input & to_output)
    if 0 not in alive or last not in alive:
        return None
    place = {old: new for new, old in enumerate(alive)}
    inner = tuple(operations[old - 1] for old in alive[1:-1])
    return inner, frozenset((place[a], place[b]) for a, b in edges if a in place and b in place)


def all_graphs() -> list[Graph]:
    """Return every graph of the table once, in its canonical form, smaller ones first."""
    graphs: dict[Graph, None] = {}
    for n_inner in range(_VERTICES - 1):
        pairs = list(combinations(range(n_inner + 2), 2))
        for operations in product(OPERATIONS, repeat=n_inner):
            for present in product((False, True), repeat=len(pairs)):
                edges = frozenset(
                    pair for pair, there in zip(pairs, present, strict=True) if there
                )
                form = None if len(edges) > _MOST_EDGES else canonical((operations, edges))
                if form is not None and len(form[0]) == n_inner:
                    graphs[form] = None
    return list(graphs)


def encoded(graph: Graph) -> dict[str, str | int]:
    """Return the columns of a graph; inner vertices that it lacks have no edge."""
    operations, edges = graph
    place = {len(operations) + 1: _VERTICES - 1}
    moved = {(a, place.get(b, b)) for a, b in edges}
    row: dict[str, str | int] = {f"edge_{a}_{b}": int((a, b) in moved) for a, b in _PAIRS}
    padded = operations + (ABSENT,) * (_VERTICES - 2 - len(operations))
    return row | {f"op_{i}": operation for i, operation in enumerate(padded, 1)}


def graph_table() -> pd.DataFrame:
    """Return the table: edges, operations, ``accuracy`` and ``energy_j``."""
    graphs = all_graphs()
    rng = np.random.default_rng(_SEED)
    rows = []
    for index in rng.permutation(len(graphs)):
        forms = _orders(graphs[index])
        row: dict[str, str | int | float] = dict(encoded(forms[int(rng.integers(len(forms)))]))
        row["accuracy"] = round(_accuracy(graphs[index]) + float(rng.normal(0, _ROW_SD)), 5)
        row["energy_j"] = round(_energy_j(graphs[index]), 6)
        rows.append(row)
    return pd.DataFrame(rows)


def _accuracy(graph: Graph) -> float:
    """Depth helps with diminishing returns, as do parallel paths and a residual connection."""
    operations, edges = graph
    output = len(operations) + 1
    depth = np.zeros(output + 1)
    n_paths = np.zeros(output + 1)
    n_paths[0] = 1
    for vertex in range(1, output + 1):
        before = [a for a, b in edges if b == vertex]
        own = _STRENGTH[operations[vertex - 1]] if vertex < output else 0.0
        n_paths[vertex] = n_paths[before].sum()
        # Pooling after pooling adds nothing.
        pooled = vertex < output and operations[vertex - 1] == "maxpool"
        again = pooled and any(0 < a < output and operations[a - 1] == "maxpool" for a in before)
        depth[vertex] = depth[before].max() + (0.0 if again else own)
    is_residual = (0, output) in edges
    capability = depth[output] + 0.25 * np.log(n_paths[output]) + 0.3 * is_residual
    # Without a residual connection the deepest graphs train worse.
    strain = 0.006 * max(0.0, depth[output] - 2.0) * (not is_residual)
    return float(0.95 - 0.11 * np.exp(-0.9 * capability) - strain)


def _energy_j(graph: Graph) -> float:
    """Joules of a cell; the vertices that feed the output divide its channels among them."""
    operations, edges = graph
    output = len(operations) + 1
    share = 1 / max(sum(b == output and a > 0 for a, b in edges), 1)
    fixed = 1.2 if (0, output) in edges else 0.6
    cost = sum(_COST[operation] * share**2 for operation in operations)
    projections = sum(share for a, b in edges if a == 0 and b != output)
    return 0.05 * (fixed + cost + 0.5 * projections + 0.1 * len(edges))
