"""The tables of export.md on what each format supports are those of the formats."""

import re

import pytest

from experiments.forms import COLUMNS, GENES, PAGE, is_supported, network_of, with_tables
from nas.exporting.formats.registry import FORMATS
from search_spaces.architecture import STYLES


def test_the_tables_of_the_page_are_those_of_the_formats():
    page = PAGE.read_text()
    assert with_tables(page) == page
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", page, re.MULTILINE)
    named = {first: rest.split(" | ") for first, rest in rows}
    assert all(f"`{blocks}`" in named for blocks in STYLES)
    assert all(len(named[gene]) == len(COLUMNS) for gene in GENES)
    assert {"yes", "no"} <= {cell for gene in GENES for cell in named[gene]}


@pytest.mark.parametrize("blocks", STYLES)
def test_a_network_of_each_kind_of_blocks_is_checked_as_an_export_checks_it(blocks):
    architecture = network_of(blocks)
    assert architecture.style == STYLES[blocks]
    for form in FORMATS:
        assert is_supported(form, architecture, blocks) or form == "huggingface"
    assert is_supported("gguf", architecture, blocks) == (blocks in ("llama", "qwen2", "qwen3"))
