"""Names are one printable line wherever they enter, and stay text wherever they are shown."""

import ast
import csv
import io
import json
import re
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown import markdown
from run_fakes import make_run
from search_fakes import SPACE

from nas.charts.chart import Axis, Chart, Series, line
from nas.charts.matplotlib_figure import save
from nas.cli.main import main
from nas.cli.output.tables import render_columns, render_csv, render_markdown
from nas.core import markdown as escape
from nas.core.names import check_name, printable
from nas.exporting.card import make_card
from nas.exporting.model_card import render_model_card
from nas.exporting.readme import render_readme
from nas.exporting.verify import Verification
from nas.tasks.base.metric import Metric
from nas.tasks.registry import get_task
from predictors.meters.base import EnergyReading
from search_spaces.space import SearchSpace
from search_spaces.workload import Workload

HOSTILE = [
    'words\nimport os; os.system("id")  #',
    "words\rimport os",
    "words\u2028import os",
    "words\x85import os",
    "words\x0cimport os",
    "a\x1b[31mb",
    "a\u202etxt.exe",
    "a\u2066b",
    "a\x00b",
    "\ud800",
    "x" * 5000,
    "",
    "  ",
    "\ufeffa",
    7,
    None,
    ["a"],
]
MARKED = [
    "<img src=x onerror=alert(1)>",
    "</code></pre><script>alert(1)</script>",
    "ok\n## Forged heading",
    "a | b | c",
    "![x](http://evil.example/x.png)",
    "[click](javascript:alert(1))",
    "`` ` ```",
    "**bold** __init__ _x_ ~~x~~",
    "$x^2$",
    "&lt;b&gt;",
    "# head",
    "```\nimport os\n```",
    "a\\",
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:20])
def test_what_is_no_name_is_refused_in_one_line(name, tmp_path):
    workload = Workload("w", "image_classification", (1, 8, 8), 10, 1).to_dict()
    space = SPACE.to_dict()
    makers = [
        lambda: check_name("name", name),
        lambda: Workload.from_dict(workload | {"name": name}),
        lambda: SearchSpace.from_dict(space | {"name": name}),
        lambda: Metric("key", name),
    ]
    for make in makers:
        with pytest.raises((ValueError, TypeError)) as caught:
            make()
        said = str(caught.value)
        assert said.isprintable() and len(said) < 400, said


@pytest.mark.parametrize("name", [n for n in HOSTILE if isinstance(n, str)], ids=ascii)
def test_no_task_file_has_such_a_name(name, tmp_path, capsys):
    (tmp_path / "x.txt").write_text("".join(f"{'ab'[i % 2]} word{i}\n" for i in range(40)))
    path = tmp_path / "t.yaml"
    text = json.dumps({"name": name, "data": "x.txt", "sequence_length": 4})
    path.write_text(text)
    assert main(["check-data", str(path)]) == 2
    said = capsys.readouterr()
    assert all(printable(line) == line for line in (said.out + said.err).split("\n"))


@pytest.mark.parametrize("label", ["a\\u001b[2J", "a\\u202eb", "a" * 400])
def test_no_label_has_such_a_name(label, tmp_path):
    rows = "".join(f'{{"text": "word {i}", "label": "{label}{i % 2}"}}\n' for i in range(40))
    (tmp_path / "x.jsonl").write_text(rows)
    path = tmp_path / "t.yaml"
    path.write_text("name: t\ndata: x.jsonl\nsequence_length: 4\n")
    with pytest.raises(ValueError, match="label must"):
        get_task(str(path)).about()


@pytest.mark.parametrize(
    "name", ["films", "émotions", "日本語", "می‌خواهم", "a b", "👩‍👩‍👧", "x/y", "C++"]
)
def test_names_of_any_script_are_names(name):
    assert check_name("name", name) == name and printable(name) == name


def test_a_run_that_somebody_has_changed_is_refused(tmp_path):
    from nas.store.run_file import load

    run = make_run(tmp_path / "run", trials=2)
    path = run.folder / "run.json"
    good = json.loads(path.read_text())
    for change in (
        {"name": "a\nb"}, {"meter": "a\x1b[2J"}, {"unit": "a\u202eb"}, {"versions": {"a\n": "1"}},
        {"config": good["config"] | {"task": "a\nb.yaml"}},
    ):  # fmt: skip
        path.write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match="printable") as caught:
            load(run.folder)
        assert str(caught.value).isprintable()
    reading = run.trials()[0].reading.to_dict()
    with pytest.raises(ValueError, match="device must be one line"):
        EnergyReading.from_dict(reading | {"device": "cpu\n## x"})


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("cards") / "run", trials=4)
    trial = next(t for t in run.trials() if t.state == "complete")
    labels = {"labels.json": json.dumps({"labels": MARKED[:9]})}
    return make_card(run, trial, Verification(0, 0, 1, 1, 0, 1, 1, trial.reading), labels)


@pytest.mark.parametrize("name", [*MARKED, *(n for n in HOSTILE if isinstance(n, str))], ids=ascii)
def test_a_card_shows_names_as_text(name, card):
    card = card | {"task": name, "run": name, "architecture": name}
    reading = card["verified"]["reading"]
    reading = reading | dict.fromkeys(("device", "source", "meter", "workload", "unit"), name)
    card["verified"] = card["verified"] | {"reading": reading}
    text = render_readme(card)
    block = re.search(r"```python\n(.*?)\n```", text, re.DOTALL)[1]
    found = [n for n in ast.walk(ast.parse(block)) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(n) for n in found] == ["from nas.exporting.artifact import load_artifact"]
    html = markdown(text, extensions=["tables", "fenced_code"])
    assert not re.search(r"<(img|script|a|del|strong|em)\b", html), html
    headings = re.findall(r"<h\d>", html)
    assert headings == ["<h1>", "<h2>", "<h2>"], html
    assert html.count("<tr>") == 5 and {row.count("<td") for row in html.split("<tr>")[2:]} == {3}


@pytest.mark.parametrize("name", MARKED, ids=ascii)
def test_a_model_card_shows_names_as_text(name, card):
    verified = card["verified"] | {
        "runtime": name, "mode": "eager", "validation_quality": 0.5, "test_quality": 0.5,
        "test_quality_se": 0.1,
    }  # fmt: skip
    verification = {
        "auto_class": "AutoModelForImageClassification", "stock_class": name, "version": name,
        "output_difference": 1e-7, "output_tolerance": 1e-4, "n_exact": 0,
    }  # fmt: skip
    form = {
        "verified": verified,
        "inputs": [1, 8, 8],
        "load_verification": verification,
        "files": [],
    }
    text = render_model_card(
        card | {"task": name, "run": name, "formats": {"huggingface": form}}, "huggingface"
    )
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["model-index"][0]["results"][0]["dataset"]["name"] == name
    html = markdown(body, extensions=["tables", "fenced_code"])
    assert not re.search(r"<(img|script|a|del|strong|em)\b", html), html
    assert re.findall(r"<h\d>", html) == ["<h1>", "<h2>", "<h2>"]


@given(st.text())
def test_whatever_it_is_it_stays_one_line_of_text(text):
    for shown in (escape.plain(text), escape.code(text), escape.comment(text), printable(text)):
        assert len(shown.splitlines()) <= 1
    html = markdown(f"x {escape.plain(text)} y")
    assert not re.search(r"<(?!/?p>|br)", html), html


def test_tables_hold_a_cell_in_its_cell():
    rows = [["=1+1", "@x", "a|b", "<b>`x`", "a\nb\x1b[2J"]]
    written = list(csv.reader(io.StringIO(render_csv([dict(zip("abcde", rows[0], strict=True))]))))
    assert written[1] == ["'=1+1", "'@x", "a|b", "<b>`x`", "a\\nb\\x1b[2J"]
    assert render_csv([{"a": -1.5, "b": None}]) == "a,b\n-1.5,\n"
    table = render_markdown(list("abcde"), rows)
    assert len(table.splitlines()) == 3 and "<b>" not in table and "a\\|b" in table
    assert len(render_columns(list("abcde"), rows).splitlines()) == 3


def test_what_a_message_quotes_is_not_obeyed_by_a_terminal(capsys):
    assert main(["front", "no\x1b[2Jrun\u202e"]) == 2
    assert "\x1b" not in (said := capsys.readouterr().err) and "\\x1b[2Jrun\\u202e" in said


def test_what_to_do_next_can_be_copied_into_a_shell(tmp_path, capsys):
    from nas.cli.commands.search import report

    run = make_run(tmp_path / "my run; touch x", trials=2)
    report(replace(run), as_json=False)
    line = capsys.readouterr().out.splitlines()[-1]
    assert f"nas front '{run.folder}'" in line


@pytest.mark.parametrize("text", ["$x^2$", "$\\frac{", "a $ b"])
def test_a_picture_shows_a_name_as_it_is(text, tmp_path):
    path = tmp_path / "a.svg"
    points = Series("front", text, "circle", line((0.0, 0.0), (1.0, 1.0)))
    x, y = Axis(text, 0, 1, ((0.5, text),)), Axis("", 0, 1, ((0.5, "0.5"),))
    save([Chart(text, x, y, (points,))], path)
    assert path.read_text().count(text) >= 4
