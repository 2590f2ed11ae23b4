"""Options that users set: a page names each, and the table of training has their defaults."""

import re
from dataclasses import fields

import pytest
from sources import ROOT

from nas.records.supernet import SupernetConfig
from nas.tasks.audio.recording import FrontEnd
from nas.training.config import DistillConfig, RecoveryConfig, TrainingConfig

OPTIONS = (TrainingConfig, DistillConfig, RecoveryConfig, SupernetConfig, FrontEnd)


@pytest.mark.parametrize("options", OPTIONS)
def test_a_page_names_each_option(options):
    pages = "\n".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    missing = [f.name for f in fields(options) if not re.search(rf"\b{f.name}\b", pages)]
    assert missing == []


def test_the_table_of_training_has_the_defaults():
    page = (ROOT / "docs" / "search.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ([^|]+) \|", page, re.MULTILINE)
    stated = {
        name: value
        for names, values in rows
        for name, value in zip(re.findall(r"\w+", names), values.strip().split(", "), strict=True)
    }
    defaults = TrainingConfig()
    for name, value in stated.items():
        default = getattr(defaults, name)
        assert value == str(default).lower() or float(value) == default, name
    assert stated.keys() | {"distill", "recovery"} == {f.name for f in fields(TrainingConfig)}
