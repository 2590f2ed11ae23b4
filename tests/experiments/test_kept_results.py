"""Results of benchmarks are kept whole, with what they came of, and pages show what files hold."""

import argparse
import importlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.results import __main__ as shower
from experiments.results import sheet as sheets
from experiments.results.pages import named, updated
from experiments.results.record import FOLDER, Machine, Result, kept
from experiments.results.sheet import Sheet, add_keep_option, command_of, config_of
from experiments.results.table import Column, Table

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "experiments" / "README.md", *(ROOT / "docs").rglob("*.md")]
TABLE = Table.of(
    "speed",
    {"what": "{what}", "CPU s": "{cpu_s:.2f}", "tau": "{tau:.1f} [{low:.1f}]", "ok": "{ok}"},
    [
        {"what": "a|b", "cpu_s": 1234.567, "tau": None, "low": 0.5, "ok": True},
        {"what": "c", "cpu_s": 2.0, "tau": 0.25, "low": 0.5, "ok": False},
    ],
    "a note",
)


def result_of(**others):
    machine = Machine("A CPU", "A CPU", 2, "Linux x86_64", 0.5, 1.5)
    fields = {
        "theme": "speed-of-it",
        "hardware": "a-cpu-2-cores",
        "date": "2026-11-26",
        "about": "How fast it is.",
        "command": "python -m experiments.benchmarks.prediction.predictor_speed --rows 20",
        "config": {"rows": 20, "marks": [1, 2]},
        "machine": machine,
        "versions": {"python": "3.11.7"},
        "revision": None,
        "cpu_s": 3.5,
        "wall_s": None,
        "tables": (TABLE,),
    }
    return Result(**fields | others)


def parser_of():
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.made_up")
    parser.description = "What it is about.\n\nAnd more."
    parser.add_argument("which")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", default=[1])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--table", action="append", default=[])
    parser.add_argument("--fast", action="store_true")
    add_keep_option(parser)
    return parser


def test_a_table_reads_alike_in_text_and_in_markdown():
    assert TABLE.markdown().splitlines() == [
        "| what | CPU s | tau | ok |",
        "| --- | ---: | ---: | --- |",
        "| a/b | 1234.57 |  | yes |",
        "| c | 2.00 | 0.2 [0.5] | no |",
        "",
        "a note",
    ]
    head, rule, first, second, note = TABLE.text().splitlines()
    assert (
        set(rule) == {"-", " "}
        and head.split()[:2] == ["what", "CPU"]
        and "1234.57" in first
        and second.endswith("no")
    )
    assert note == "a note"


@pytest.mark.parametrize(
    "cell", ["no field", "{x.__class__}", "{x:>99999999}", "{x!r}", "{x", "{x} {}", "{0}"]
)
def test_a_cell_has_fields_and_nothing_that_follows_or_pads(cell):
    with pytest.raises(ValueError, match="cell must have fields"):
        Column("head", cell)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "must have columns and rows"),
        ([{"x": 1}, {"y": 1}], "rows of t must all have"),
        ([{"x": float("nan")}], "x must be text, a finite number or none, got nan"),
        ([{"x": [1]}], "x must be text"),
        ([{"y": 1}], r"cell must read of \['y'\], got x"),
    ],
)
def test_a_table_that_cannot_be_shown_is_refused(rows, words):
    with pytest.raises(ValueError, match=words):
        Table.of("t", {"head": "{x:.1f}"}, rows)


def test_what_was_written_is_read_again(tmp_path):
    path = result_of().write(tmp_path)
    assert path.name == "speed-of-it_a-cpu-2-cores_2026-11-26.json"
    assert Result.read(path) == result_of()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"theme": "Speed"}, "theme must be words in small letters"),
        ({"date": "26-11-2026"}, "isoformat"),
        ({"command": "make it"}, "command must begin with"),
        ({"tables": ()}, "about and tables must not be empty"),
        ({"tables": (TABLE, TABLE)}, "different names"),
        ({"cpu_s": float("inf")}, "cpu_s must be"),
        ({"versions": {"torch": 2}}, "versions"),
    ],
    ids=str,
)
def test_a_result_checks_itself(change, words):
    with pytest.raises(ValueError, match=words):
        result_of(**change)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("machine"),
        lambda data: data.update(schema=2),
        lambda data: data.update(surplus=1),
        lambda data: data.update(date="2026-11-27"),
        lambda data: data["tables"][0]["rows"][0].pop("cpu_s"),
        lambda data: data["machine"].update(cores="two"),
    ],
)
def test_a_file_that_is_no_result_is_refused(tmp_path, change):
    path = result_of().write(tmp_path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"2026-11-26\.json|cores|rows"):
        Result.read(path)


def test_the_command_is_what_was_asked_without_folders():
    parser = parser_of()
    words = ["it", "--rows", "1", "2", "--data", "/home/me/hat.csv", "--fast", "--keep"]
    arguments = parser.parse_args([*words, "--table", "/home/me/a.csv:x,y", "--table", "b c"])
    command = command_of(parser, arguments)
    assert command == (
        "python -m experiments.benchmarks.made_up it --rows 1 2 --data hat.csv "
        "--table a.csv:x,y --table 'b c' --fast"
    )
    assert config_of(arguments)["data"] == "hat.csv" and "keep" not in config_of(arguments)
    assert command_of(parser, parser.parse_args(["it"])).endswith("made_up it")


def test_a_sheet_keeps_what_it_prints_with_where_it_came_of(tmp_path, capsys):
    parser = parser_of()
    arguments = parser.parse_args(["it", "--keep", str(tmp_path / "new")])
    Sheet(parser, arguments, "made-up").show(TABLE)
    out, err = capsys.readouterr()
    (result,) = kept(tmp_path / "new")
    assert out.strip() == TABLE.text() and result.name in err
    assert result.tables == (TABLE,) and result.about == "What it is about."
    assert result.config["seeds"] == 3 and result.versions["torch"] and result.machine.cpu
    assert result.hardware.endswith("-cores") and result.wall_s >= 0
    assert result.revision is None or re.fullmatch(r"[0-9a-f]{12,}\+?", result.revision)
    # The same command may take its own place, another one may not, and says so at once.
    Sheet(parser, arguments, "made-up")
    with pytest.raises(SystemExit):
        Sheet(parser, parser.parse_args(["other", "--keep", str(tmp_path / "new")]), "made-up")
    assert "must be of the same command" in capsys.readouterr().err


def test_nothing_is_kept_unasked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sheets, "FOLDER", tmp_path)
    parser = parser_of()
    Sheet(parser, parser.parse_args(["it"]), "made-up").show(TABLE)
    assert capsys.readouterr().out and not list(tmp_path.iterdir())


def benchmarks():
    """The folder and the name of each, as its command has them: ``sampling.warm_start``."""
    root = ROOT / "experiments" / "benchmarks"
    for path in sorted(root.rglob("*.py")):
        if "def main(" in path.read_text():
            yield ".".join(path.relative_to(root).with_suffix("").parts)


@pytest.mark.parametrize("name", list(benchmarks()))
def test_every_benchmark_can_keep_its_result(name, capsys):
    module = importlib.import_module(f"experiments.benchmarks.{name}")
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and "--keep [FOLDER]" in shown
    # The command that is kept names the module.
    assert f"usage: python -m experiments.benchmarks.{name} [-h]" in " ".join(shown.split())


def test_a_benchmark_is_found_by_its_name():
    names = [name.rpartition(".")[2] for name in benchmarks()]
    assert len(names) > 15 and len(set(names)) == len(names)


def test_every_kept_result_is_one():
    assert kept()
    for path in FOLDER.glob("*.json"):
        assert Result.read(path).name == path.name


def test_what_the_readme_names_is_there():
    text = (ROOT / "experiments" / "README.md").read_text()
    files = re.findall(r"`([\w-]+\.json)`", text)
    assert len(files) >= 11 and set(files) <= {result.name for result in kept()}
    # Each with the benchmark that its command names.
    rows = re.findall(r"\| `([\w.]+)(?: [^`]*)?` \|[^|]*\| `([\w-]+\.json)` \|", text)
    assert len(rows) == len(files)
    for name, file in rows:
        command = Result.read(FOLDER / file).command
        assert f"{command} ".startswith(f"python -m experiments.benchmarks.{name} ")
    named_here = re.findall(r"^\|[^|]*\| `([\w.]+)(?: [^`]*)?` \|", text, re.MULTILINE)
    assert set(named_here) <= set(benchmarks())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_tables_of_pages_are_those_of_their_files(page):
    text = page.read_text()
    assert updated(text) == text, f"python -m experiments.results --update {page}"


def test_pages_are_made_of_files(tmp_path, capsys):
    result = result_of()
    result.write(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        f"before\n\n<!-- results: {result.name} speed -->\nold\n<!-- end of results -->\n"
    )
    assert named(page.read_text()) == [(result.name, "speed")]
    assert shower.main(["--folder", str(tmp_path), "--update", str(page)]) == 0
    text = page.read_text()
    assert "old" not in text and TABLE.markdown() in text and text.startswith("before\n\n<!--")
    assert f"`{result.command}`, A CPU, 2 cores, 2026-11-26" in text
    assert updated(text, tmp_path) == text
    page.write_text(text.replace("a/b", "a/c"))
    assert updated(page.read_text(), tmp_path) == text
    for wrong, words in (
        (text.replace(" speed -->", " haste -->"), "table must be one of speed, got 'haste'"),
        (text.replace("<!-- end of results -->", ""), "must have its"),
        (text.replace(result.name, "absent.json"), "must exist"),
        (text.replace(result.name, f"../{result.name}"), "without a folder"),
    ):
        page.write_text(wrong)
        assert shower.main(["--folder", str(tmp_path), "--update", str(page)]) == 2
        assert words in capsys.readouterr().err


def test_kept_results_are_listed_and_printed(tmp_path, capsys):
    result_of().write(tmp_path)
    replace(result_of(), theme="other", note="of note").write(tmp_path)
    assert shower.main(["--folder", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert "speed-of-it_a-cpu-2-cores_2026-11-26.json" in listed and len(listed.splitlines()) == 4
    assert shower.main(["--folder", str(tmp_path), "--markdown", "other"]) == 0
    shown = capsys.readouterr().out
    assert TABLE.markdown() in shown and "of note" in shown and "revision not known" in shown
    assert shower.main(["--folder", str(tmp_path), "none"]) == 2
    assert "must begin the name of a file" in capsys.readouterr().err
