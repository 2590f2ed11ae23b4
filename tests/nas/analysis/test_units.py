"""Joules are said per what the workload is about: a sample, or a token of a phase of decoding."""

import json
import re
from dataclasses import replace

import pytest
from run_fakes import check_schema, make_run
from search_fakes import changed, finished, reading

from nas.analysis.account import render_account
from nas.analysis.summary import summarise
from nas.cli.main import main
from nas.core.files import read_json, write_json
from nas.exporting.card import make_card
from nas.exporting.readme import render_readme
from nas.exporting.verify import Verification
from nas.pareto.queries import FrontMember
from nas.records.front_member import member_of
from nas.reporting.data import page_data
from nas.reporting.page import render_page
from nas.store.run_file import go_on, load
from nas.tasks.base.metric import BITS_PER_BYTE
from search_spaces.workload import OUTPUT_TOKEN, PHASES, SAMPLE, Workload

UNIT = "generated token"


def per_token(candidate):
    """As ``finished``, with a reading that names its tokens."""
    record = finished(candidate)
    return changed(record, reading=replace(record.reading, unit=UNIT))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = make_run(tmp_path_factory.mktemp("units") / "run", trials=24, judge=per_token)
    go_on(replace(made, unit=UNIT, metric=BITS_PER_BYTE))
    return load(made.folder)


def said(capsys, *words):
    assert main(list(map(str, words))) == 0
    return capsys.readouterr().out


def test_a_run_knows_its_unit(run, tmp_path):
    assert run.unit == UNIT
    data = read_json(run.folder / "run.json")
    write_json(tmp_path / "run.json", data | {"unit": 3})
    with pytest.raises(ValueError, match="unit must be a non-empty string, got 3"):
        load(tmp_path)


@pytest.mark.parametrize("form", [(), ("--markdown",), ("--inferences", "1e9")])
def test_the_front_names_it_in_tables(run, capsys, form):
    text = said(capsys, "front", run.folder, *form)
    assert f"energy per {UNIT} (fake)" in text and "sample" not in text
    assert ("1e+09 generated tokens" in text) == ("--inferences" in form)


def test_the_front_names_it_in_files(run, capsys):
    data = json.loads(said(capsys, "front", run.folder, "--json"))
    check_schema(data, "front")
    assert {m["unit"] for m in data["members"]} == {UNIT} == {data["summary"]["unit"]}
    head, *rows = said(capsys, "front", run.folder, "--csv").splitlines()
    at = head.split(",").index("unit")
    assert rows and all(UNIT in row for row in rows) and at


def test_other_verbs_name_it(run, capsys):
    text = said(capsys, "compare", run.folder, run.folder)
    assert f"energy per {UNIT}" in text and "sample" not in text
    trial = run.front().members[0].trial
    text = said(capsys, "explain", run.folder, trial)
    assert f"per {UNIT} [" in text and "sample" not in text
    data = json.loads(said(capsys, "explain", run.folder, trial, "--json"))
    check_schema(data, "explain")
    assert data["unit"] == UNIT


def test_what_pays_for_the_search_is_counted_in_it(run):
    summary = summarise(run)
    assert summary.saving is not None
    tokens = f"{summary.saving.inferences_to_break_even:,.0f} generated tokens"
    assert tokens in render_account(summary, run.metric)
    assert " inferences" in render_account(replace(summary, unit=SAMPLE), run.metric)


@pytest.mark.parametrize("what", ["front", "predictions"])
def test_pictures_name_it(run, tmp_path, capsys, what):
    path = tmp_path / "x.svg"
    said(capsys, "plot", run.folder, "--what", what, "--to", path)
    words = " ".join(re.findall(r">([^<>]+)</text>", path.read_text()))
    assert f"per {UNIT} (" in words and "sample" not in words


def test_the_page_takes_it_from_its_data(run):
    text = render_page(page_data(run))
    assert "per sample" not in text and text.count(f"per {UNIT}") >= 5


def test_the_card_names_it(run):
    record = run.trial(run.front().members[0].trial)
    figures = Verification(0, 0, 1, 1, 0, 1, 1, replace(reading(2e-6), unit=UNIT))
    text = render_readme(make_card(run, record, figures))
    assert f"| joules per {UNIT} |" in text and "per sample" not in text


def test_a_member_is_of_samples_by_default(run):
    record = run.trials()[0]
    assert member_of(record, "cpu").unit == SAMPLE
    assert FrontMember.__dataclass_fields__["unit"].default == SAMPLE
    workloads = [
        Workload("lm", "language_modelling", (8,), 9, 1, vocab_size=9, phase=phase)
        for phase in (None, *PHASES)
    ]
    assert [w.unit for w in workloads] == [SAMPLE, "prefill token", UNIT]


def test_translations_are_named_by_their_tokens(tmp_path, capsys):
    """What comes from the unit alone, so that other units need no other words."""
    made = make_run(tmp_path / "run", trials=8)
    go_on(replace(made, unit=OUTPUT_TOKEN))
    shown = said(capsys, "front", made.folder, "--inferences", "1e6")
    assert f"energy per {OUTPUT_TOKEN} (fake)" in shown and "1e+06 output tokens" in shown
    assert f"per {OUTPUT_TOKEN}" in page_data(load(made.folder))["filter"]["budget"]
    plot = tmp_path / "x.svg"
    said(capsys, "plot", made.folder, "--what", "front", "--to", plot)
    assert f"per {OUTPUT_TOKEN} (" in " ".join(re.findall(r">([^<>]+)</text>", plot.read_text()))
