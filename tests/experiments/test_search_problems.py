"""The spaces and fronts that samplers are judged on."""

from itertools import product

import numpy as np
import pytest

from experiments.benchmarks.sampling.problems.evolve import best_front
from experiments.benchmarks.sampling.problems.flat import active, from_unit, grid, to_unit
from experiments.benchmarks.sampling.problems.problem import MINIMISED
from experiments.benchmarks.sampling.problems.registry import (
    ProblemName,
    make_problem,
    parse_table,
)
from experiments.benchmarks.sampling.problems.space import Parameter, choice, walk
from experiments.benchmarks.sampling.problems.synthetic import (
    columns_of,
    layer_losses,
    layers,
    mixed,
    mixed_losses,
    mixed_optimum,
)
from experiments.benchmarks.sampling.problems.tabular import Snapping, read_table
from nas.pareto.dominance import non_dominated_mask


def random_configs(problem, n, seed=0):
    rng = np.random.default_rng(seed)

    def ask(parameter):
        if parameter.values:
            return parameter.values[int(rng.integers(len(parameter.values)))]
        return from_unit(parameter, rng.random())

    return [walk(problem.parameters, ask) for _ in range(n)]


def test_a_conditional_parameter_is_there_when_it_is_active():
    space = (choice("depth", 1, 2), choice("a_0", 5, 6, above=("depth", 0)))
    space += (choice("a_1", 5, 6, above=("depth", 1)),)
    flat = {"depth": 1, "a_0": 5, "a_1": 6}
    assert active(space, flat) == {"depth": 1, "a_0": 5}
    assert active(space, flat | {"depth": 2}) == {"depth": 2, "a_0": 5, "a_1": 6}


@pytest.mark.parametrize(
    ("parameter", "value", "unit"),
    [
        (choice("c", 2, 4, 8), 4, 0.5),
        (Parameter("f", low=1e-4, high=1.0, log=True), 1e-2, 0.5),
        (Parameter("i", low=1, high=5, is_whole=True), 2, 0.25),
    ],
)
def test_units_and_values(parameter, value, unit):
    assert to_unit(parameter, value) == pytest.approx(unit)
    assert from_unit(parameter, unit) == pytest.approx(value)
    assert [from_unit(parameter, u) for u in (-1, 2)] == [from_unit(parameter, u) for u in (0, 1)]


def test_a_grid_where_values_are_few():
    assert grid(choice("c", 2, 4, 8), most=2) == [0.0, 0.5, 1.0]
    whole = Parameter("i", low=1, high=5, is_whole=True)
    assert grid(whole, most=5) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert grid(whole, most=4) is None
    assert grid(Parameter("f", low=0, high=1), most=9) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [({"low": 1, "high": 1}, "low < high"), ({"high": 1, "log": True}, "low > 0")],
)
def test_what_has_no_two_values_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Parameter("x", **options)


def test_layers_that_are_not_there_change_nothing():
    columns = columns_of(layers().parameters, random_configs(layers(), 20))
    other = dict(columns)
    for i in range(8):
        absent = columns["n_layers"] <= i
        other[f"bits_{i}"] = np.where(absent, 4, columns[f"bits_{i}"])
        other[f"ratio_{i}"] = np.where(absent, 4, columns[f"ratio_{i}"])
    assert layer_losses(other) == pytest.approx(layer_losses(columns), abs=0)


def test_the_layered_law_has_its_trades():
    def losses(width=256, n=4, **last):
        config = {"n_layers": n, "width": width}
        for i in range(n):
            config |= {f"heads_{i}": 4, f"ratio_{i}": 2, f"bits_{i}": 16}
        return layers().truth([config | last])[0]

    base = losses()
    for larger in (losses(width=512), losses(n=8), losses(bits_1=32)):
        assert larger[0] < base[0] and larger[1] > base[1]
    # Rounding hurts most at the ends, and twice in a row more than the sum of both.
    rounded = [losses(**{f"bits_{i}": 4})[0] - base[0] for i in range(4)]
    assert rounded[3] > 1.5 * rounded[2] > 0
    assert losses(bits_1=4, bits_2=4)[0] - base[0] > rounded[1] + rounded[2]


def test_evolution_finds_the_front_that_enumeration_does():
    space = tuple(p for p in layers().parameters if p.name[-1] not in "34567")
    few = tuple(
        choice("n_layers", 2, 3) if p.name == "n_layers" else p
        for p in space
        if not p.name.endswith("_2")
    )
    rest = {
        f"{n}_{i}": v for n, v in (("heads", 4), ("ratio", 2), ("bits", 8)) for i in range(2, 8)
    }

    def law(columns):
        n = len(columns["width"])
        return layer_losses({**{k: np.full(n, v) for k, v in rest.items()}, **columns})

    every = np.array(list(product(*(p.values for p in few))))
    losses = law({p.name: every[:, i] for i, p in enumerate(few)})
    assert non_dominated_mask(losses, MINIMISED).sum() > 20
    found = best_front(few, law, seed=0, starts=2, generations=80, population=150)
    # By volume: losses that are equal differ in the last digit with the number of rows.
    assert layers().volume(found) == pytest.approx(layers().volume(losses), rel=1e-9)


def test_no_recipe_is_beyond_the_mixed_front():
    problem = mixed()
    best = problem.best()
    columns = columns_of(problem.parameters, random_configs(problem, 3000))
    tuned = columns | mixed_optimum(columns)
    plain, at_best = mixed_losses(columns), mixed_losses(tuned)
    assert np.all(at_best[:, 0] <= plain[:, 0])
    for parameter in problem.parameters[:3]:
        values = tuned[parameter.name]
        assert parameter.low <= values.min() and values.max() <= parameter.high
    assert problem.volume(plain) < problem.volume(at_best) <= best


def test_the_mixed_front_is_in_pieces_and_concave():
    problem = mixed()
    columns = columns_of(problem.parameters, random_configs(problem, 4000))
    losses = mixed_losses(columns | mixed_optimum(columns))
    front = losses[non_dominated_mask(losses, MINIMISED)]
    front = front[np.argsort(front[:, 1])]
    gaps = np.diff(front[:, 1])
    assert gaps.max() > 10 * np.median(gaps)
    # A point of a concave front lies above the line between its ends.
    ends = np.interp(front[:, 1], front[[0, -1], 1], front[[0, -1], 0])
    assert np.mean(front[1:-1, 0] > ends[1:-1]) > 0.8


def test_snapping_by_columns_then_by_rank_then_by_order():
    rows = np.array([[0, 0, 0], [3, 0, 1], [1, 2, 2], [1, 2, 2]])
    snap = Snapping(rows, np.array([True, True, False]))
    assert snap(np.array([3, 0, 1])) == (1, 0)
    assert snap(np.array([2, 0, 9])) == (1, 2)
    assert snap(np.array([1, 2, 0])) == (2, 1)


def write(path, rows):
    path.write_text("\n".join([",".join(map(str, row)) for row in rows]) + "\n")
    return path


def full_grid(path):
    rows = [(k, w, 10 * w + (k == "b"), 100 - w**2) for k in "ab" for w in (1, 2, 3)]
    return write(path / "grid.csv", [("kind", "width", "cost", "accuracy"), *rows])


def test_a_table_of_every_combination(tmp_path):
    problem = read_table(full_grid(tmp_path), ("accuracy", "cost"), ("max", "min"))
    assert [p.values for p in problem.parameters] == [("a", "b"), (1, 2, 3)]
    assert "full grid" in problem.about
    found = problem.truth([{"kind": "b", "width": 2}, {"kind": "a", "width": 1}])
    assert found.tolist() == [[-96, 21], [-99, 10]]
    # Worst -91 and 31, and a tenth of the extents 8 and 21 beyond.
    assert problem.reference == pytest.approx((-90.2, 33.1))
    assert problem.best() == pytest.approx((99 - 90.2) * (33.1 - 10))


def test_a_table_with_a_hole_is_snapped_and_says_so(tmp_path):
    path = full_grid(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith("b,2")) + "\n")
    problem = read_table(path, ("accuracy", "cost"), ("max", "min"))
    assert "0.83 of the grid" in problem.about
    assert problem.truth([{"kind": "b", "width": 2}]).tolist() == [[-99, 11]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objectives": ("cost", "nothing")}, "got 'nothing'"),
        ({"objectives": ("cost", "accuracy"), "directions": ("min", "up")}, "min or max"),
        ({"objectives": ("cost", "accuracy"), "ignore": ("kind", "width")}, "column that varies"),
    ],
)
def test_a_table_that_is_asked_for_wrongly(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        read_table(full_grid(tmp_path), **options)


def test_a_table_is_named_with_its_objectives():
    found = parse_table("a/b.csv:error,energy", ["id"])
    assert (found.path.name, found.objectives, found.ignore) == (
        "b.csv",
        ("error", "energy"),
        ("id",),
    )
    assert found.directions == ("min", "min")
    assert parse_table("b.csv:x,y:max,min").directions == ("max", "min")
    for text in ("b.csv", "b.csv:x", "b.csv:x,y:max"):
        with pytest.raises(ValueError, match="--table must be"):
            parse_table(text)
    with pytest.raises(ValueError, match="kind must be"):
        make_problem(ProblemName("nothing"))
