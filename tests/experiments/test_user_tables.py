"""Tables of a user's own, as ``search_quality`` and ``predictor_tables`` read them."""

import numpy as np
import pandas as pd
import pytest

from experiments.benchmarks.prediction import predictor_tables
from experiments.benchmarks.sampling import search_quality
from experiments.benchmarks.sampling.problems.registry import make_problem, parse_table
from experiments.benchmarks.sampling.problems.tabular import read_table
from experiments.benchmarks.tables.plain import read_plain


def grid():
    rows = [(k, w, 10.0 * w + (k == "b"), 100 - w**2) for k in "ab" for w in (1, 2, 3)]
    return pd.DataFrame(rows, columns=["kind", "width", "cost", "accuracy"])


def numbers(n=60):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"width": rng.integers(8, 99, n), "depth": rng.integers(1, 9, n)})
    return table.assign(energy=(table["width"] * table["depth"] + 1) * 1e-6)


@pytest.mark.parametrize(
    ("text", "path", "directions"),
    [
        ("a.csv:x,y", "a.csv", ("min", "min")),
        ("C:\\tables\\a.csv:x,y", "C:\\tables\\a.csv", ("min", "min")),
        ("C:\\tables\\a.csv:x,y:max,min", "C:\\tables\\a.csv", ("max", "min")),
        ("at 12:30/a:b.csv:x,y:min,max", "at 12:30/a:b.csv", ("min", "max")),
        ("a.csv:accuracy,energy:max,min", "a.csv", ("max", "min")),
        ("a.csv:accuracy,energy:min,min", "a.csv", ("min", "min")),
        ("a.csv:accuracy_loss,energy", "a.csv", ("min", "min")),
    ],
)
def test_a_table_is_named_from_the_right(text, path, directions):
    found = parse_table(text)
    assert str(found.path) == path and found.directions == directions


@pytest.mark.parametrize(
    "names", ["accuracy,energy", "energy,val_acc", "Accuracy,ms", "testAccuracy,ms", "bleu,J"]
)
def test_what_is_rarely_minimised_is_questioned(names):
    with pytest.raises(ValueError, match="would be minimised; add :(max,min|min,max) if more"):
        parse_table(f"a.csv:{names}")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_are_read_in_both_forms(tmp_path, ending):
    folder = tmp_path / "at 12:30"
    folder.mkdir()
    path = folder / f"grid.{ending}"
    grid().to_csv(path, index=False) if ending == "csv" else grid().to_parquet(path)
    problem = make_problem(parse_table(f"{path}:accuracy,cost:max,min"))
    assert [p.values for p in problem.parameters] == [("a", "b"), (1, 2, 3)]
    own = folder / f"own.{ending}"
    numbers().to_csv(own, index=False) if ending == "csv" else numbers().to_parquet(own)
    assert len(read_plain(own, "energy")) == 60


def test_none_is_a_value_and_an_empty_cell_is_none(tmp_path):
    path = tmp_path / "grid.csv"
    grid().replace({"kind": {"a": "None", "b": "NA"}}).to_csv(path, index=False)
    problem = read_table(path, ("accuracy", "cost"), ("max", "min"))
    assert problem.parameters[0].values == ("NA", "None")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("column", "words"), [("kind", "a value"), ("width", "a value"), ("cost", "a finite number")]
)
def test_an_empty_cell_is_one_line_that_names_it(tmp_path, capsys, ending, column, words):
    table = grid().astype({"width": float})
    table.loc[3, column] = None if column == "kind" else np.nan
    path = tmp_path / f"grid.{ending}"
    table.to_csv(path, index=False) if ending == "csv" else table.to_parquet(path)
    options = [f"--table={path}:accuracy,cost:max,min", "--out", str(tmp_path / "out")]
    assert search_quality.main(options) == 2
    error = capsys.readouterr().err
    assert f"{words} in every row of '{column}', got" in error and "row 4" in error
    assert error.count("\n") == 1 and not (tmp_path / "out").exists()


def test_an_objective_that_is_no_number_is_named(tmp_path):
    path = tmp_path / "grid.csv"
    grid().astype({"cost": object}).replace({"cost": {20.0: "None"}}).to_csv(path, index=False)
    with pytest.raises(ValueError, match="finite number in every row of 'cost', got 'None'"):
        read_table(path, ("accuracy", "cost"), ("max", "min"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", b"", "must be a CSV or Parquet table"),
        ("x.csv", b"a,b\n", "must have rows"),
        ("x.csv", b"\xff\xfe\x00a", "must be a CSV or Parquet table"),
        ("x.parquet", b"a,b\n1,2\n", "must be a CSV or Parquet table"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, capsys, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    out = ["--out", str(tmp_path / "out")]
    assert search_quality.main([f"--table={path}:a,b", *out]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert predictor_tables.main([f"--plain={path}:a"]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.parametrize("inside", [False, True])
def test_an_out_that_is_a_file_is_one_line_before_any_work(tmp_path, capsys, inside):
    path, out = tmp_path / "grid.csv", tmp_path / "taken"
    grid().to_csv(path, index=False)
    out.write_text("mine")
    to = out / "below" if inside else out
    options = [f"--table={path}:accuracy,cost:max,min", "--out", str(to), "--seeds", "1"]
    assert search_quality.main([*options, "--peers", "random", "--evaluations", "3"]) == 2
    error = capsys.readouterr().err
    assert "taken" in error and error.count("\n") == 1 and out.read_text() == "mine"


def test_a_table_of_numbers_alone_is_predicted(tmp_path, capsys):
    path = tmp_path / "a:b.csv"
    numbers().to_csv(path, index=False)
    options = [f"--plain={path}:energy", "--rows", "30", "--seeds", "1", "--ours-only"]
    assert predictor_tables.main(options) == 0
    assert "a:b" in capsys.readouterr().out


def test_a_table_without_a_proxy_is_one_line(tmp_path, capsys):
    path = tmp_path / "x.csv"
    table = numbers()
    table.assign(width=-table["width"], depth=-table["depth"]).to_csv(path, index=False)
    assert predictor_tables.main([f"--plain={path}:energy"]) == 2
    assert "numbers >= 0 that varies" in capsys.readouterr().err


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
def test_an_infinite_parameter_is_named(tmp_path, value):
    path = tmp_path / "t.csv"
    numbers().astype(float).assign(width=lambda t: t["width"].mask(t.index == 3, value)).to_csv(
        path, index=False
    )
    words = r"finite number in every row of 'width', got -?inf in row 4"
    with pytest.raises(ValueError, match=words):
        read_plain(path, "energy")
    with pytest.raises(ValueError, match=words):
        make_problem(parse_table(f"{path}:depth,energy"))


def test_two_objectives_of_one_column_are_refused():
    with pytest.raises(ValueError, match="objectives must be two columns, got 'cost,cost'"):
        parse_table("a.csv:cost,cost")


@pytest.mark.parametrize(
    ("option", "value"), [("--rows", "0"), ("--rows", "-3"), ("--rows", "9"), ("--seeds", "0")]
)
def test_numbers_of_rows_and_seeds_are_checked(tmp_path, capsys, option, value):
    numbers().to_csv(tmp_path / "t.csv", index=False)
    words = ["--plain", f"{tmp_path / 't.csv'}:energy", "--ours-only", option, value]
    assert predictor_tables.main(words) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and option in err


def test_a_folder_below_a_file_is_one_line(tmp_path, capsys):
    grid().to_csv(tmp_path / "t.csv", index=False)
    table = f"{tmp_path / 't.csv'}:accuracy,cost:max,min"
    words = ["--table", table, "--render", "--out", str(tmp_path / "t.csv" / "x")]
    assert search_quality.main(words) == 2
    assert "--out must be a folder" in capsys.readouterr().err
