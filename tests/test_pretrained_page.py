"""What pretrained.md shows: its Python runs, and its table of families is that of the code."""

import re

import pytest
from pages import DOCS, ROOT, blocks, output_of
from pretrained_fakes import causal, saved

from experiments.results.record import FOLDER, Result
from nas.core.estimate import Estimate
from nas.core.units import format_interval
from search_spaces.pretrained.registry import FAMILIES

PAGE = DOCS / "pretrained.md"


def kept_result():
    return Result.read(FOLDER / "checkpoint-minilm-avx512_amd-epyc-2-cores_2026-11-30.json")


@pytest.mark.usefixtures("measured_eagerly")
def test_the_python_of_pretrained_md_runs_as_written(tmp_path):
    (example,) = blocks(PAGE, "python")
    (folder,) = re.findall(r'load_checkpoint\("([^"]+)"\)', example)
    saved(causal("llama", head="Model"), tmp_path / folder)
    architecture, joules = output_of(example, tmp_path, timeout=240).splitlines()
    assert architecture.startswith("d24 L3 h4/2")
    shown = r"fp32: [\d.e-]+ J per sample \(\w+\)"
    assert re.fullmatch(shown, joules) and (tmp_path / "minilm.jsonl").is_file()
    printed = blocks(PAGE, "text")[-1].splitlines()
    style = "bert(pooling=mean,has_unit_vectors=True)"
    assert printed[0] == f"d384 L6 h12/12 ff1536 {style} fp32"
    kept = next(row for row in kept_result().table("minilm").rows if row["precision"] == "fp32")
    assert printed[1] == f"fp32: {kept['energy_mj'] / 1e3:.2g} J per sample (estimate)"


def test_every_family_and_kind_of_head_is_in_the_table():
    table = PAGE.read_text().partition("## Families")[2].partition("|---|---|---|")[2]
    rows = re.findall(r"^\| (`.+?) \| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    listed = {}
    for types, _, heads in rows:
        for model_type in re.findall(r"`([^`]+)`", types):
            listed[model_type] = set(heads.split(", "))
    names = {
        "text_embedding": "embeddings",
        "image_embedding": "embeddings",
        "text_classification": "sequence classification",
    }
    kinds = {
        model_type: {
            names.get(head.kind, head.kind.replace("_", " ")) for head in family.heads.values()
        }
        for family in FAMILIES
        for model_type in family.classes
    }
    assert listed == kinds


@pytest.mark.parametrize("page", [PAGE, ROOT / "README.md"], ids=lambda page: page.name)
def test_shown_joules_are_those_of_the_kept_result(page):
    kept = kept_result()
    (shown,) = (text for text in blocks(page, "text") if text.startswith("precision "))
    rows = kept.table("minilm").rows
    assert len(rows) == 3 and all(row["is_estimate"] for row in rows)
    for row in rows:
        energy = Estimate(*(row[f"{name}_mj"] / 1e3 for name in ("energy", "low", "high")), "kept")
        ratio = "1 " if row["ratio"] is None else f"{row['ratio']:.3g} [{row['ratio_low']:.3g}, "
        (line,) = (line for line in shown.splitlines() if line.startswith(row["precision"]))
        assert f"{format_interval(energy)}  {ratio}" in line
        assert line.endswith(f"{row['weight_mb']:.1f} MB")
