"""``nas export --format``: whole exports, what is refused before, and files of strangers."""

import ast
import contextlib
import importlib.metadata
import io
import json
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from export_fakes import FAST, made_run
from search_fakes import SPACE, WORKLOAD, changed
from sources import nodes_of, sources, text_of
from text_fakes import reviews, write_table, write_task

from nas.cli.main import main
from nas.core.units import format_joules
from nas.exporting.card import make_card
from nas.exporting.formats import base as base_module
from nas.exporting.formats.registry import ARTIFACT, FORMATS, check_supported, parse_formats
from nas.exporting.readme import render_readme
from nas.exporting.verify import Verification
from nas.records.trial import Trial
from nas.store.run import Run
from nas.tasks.base.artifact_files import artifact_files_of
from nas.tasks.registry import get_task
from predictors.measurement import protocol
from search_spaces.architecture import (
    STYLES,
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.runtimes.onnx_graph import OPSET
from search_spaces.space import SearchSpace
from search_spaces.workload import Workload

ROOT = Path(__file__).parents[3]
TOKENS = Workload("t", "language_modelling", (12,), 40, 8, vocab_size=40, phase="generate")


# The others are converted in tests/contracts/test_exporter_contract.py.
EXPORTED = ("pt2", "onnx", "onnx-int8", "openvino-int8", "huggingface", "python")


def stock(precision):
    """A network that a stock class of transformers computes, too."""
    compression = Compression(precision)
    layer = LayerSpec(AttentionSpec(2, 2, 16, None, compression), FfnSpec(32, None, compression))
    return Architecture(32, (layer,), 2, style=STYLES["vit"])


def small(precision="fp32", sparsity="dense"):
    compression = Compression(precision, sparsity)
    layer = LayerSpec(AttentionSpec(2, 1, 16, None, compression), FfnSpec(32))
    return Architecture(32, (layer,), 2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    space = SearchSpace.from_dict(SPACE.to_dict() | {"name": "styles", "blocks": ["vit"]})
    folder = tmp_path_factory.mktemp("runs") / "run"
    return made_run(folder, stock("bf16"), protocol="quick", space=space)


@pytest.fixture
def fast(monkeypatch):
    make_fast(monkeypatch)


def make_fast(monkeypatch):
    """Few short windows, and no compiler, with which networks run op by op."""
    monkeypatch.setitem(protocol.PROTOCOLS, "quick", FAST)
    monkeypatch.setenv("CXX", "none")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The folder of an export of every form, and what the command printed."""
    root = tmp_path_factory.mktemp("exported")
    words = ["export", run.folder, "--trial", 0, "--to", root / "model", "--quiet"]
    words += ["--joule-tolerance", 1e6, "--quality-tolerance", 0.2]
    words += ["--format", "safetensors,pt2", "--format", ", ".join(EXPORTED)]
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        make_fast(patch)
        assert main([str(word) for word in words]) == 0
    return root / "model", out.getvalue()


def said(words, capsys):
    """Exit code and error of a command."""
    code = main([str(word) for word in words])
    return code, capsys.readouterr().err.strip()


def test_an_export_of_every_form(exported):
    folder, out = exported
    shown = out.splitlines()
    card = json.loads((folder / "card.json").read_text())
    assert set(card["formats"]) == {*EXPORTED}
    readme = (folder / "README.md").read_text()
    for name, form in card["formats"].items():
        verified = form["verified"]
        reading = verified["reading"]
        assert reading["is_estimate"] and reading["n_repeats"] >= 6 and reading["energy_j"] > 0
        assert reading["protocol_hash"] == FAST.hash and reading["workload"] == "digits/b128"
        assert sum((folder / f).stat().st_size for f in form["files"]) > 1000
        assert any(line.strip().startswith(f"{name} ") and "estimated" in line for line in shown)
        assert f"| {name} (" in readme and "an estimate (cpu-seconds" in readme
    assert "opset 20" in readme and "batch of any size" in readme
    assert card["formats"]["pt2"]["verified"]["output_difference"] < 1e-3
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    front, model_card = model_card_of(folder / "huggingface")
    check_model_card(front, model_card, card)


# What a block of the page is of, by a word in it, and the form whose tolerance is its.
PAGE = {
    "load_artifact": "pt2",
    "onnxruntime": "onnx",
    "torch.export": "pt2",
    "model/python": "python",
}
WITHOUT_US = """
import sys
for name in ("nas", "search_spaces", "predictors", "experiments", {more}):
    sys.modules[name] = None
"""


@pytest.mark.parametrize("word", PAGE)
def test_a_block_of_the_page_runs_and_gives_the_outputs(exported, word):
    folder, _ = exported
    page = (ROOT / "docs" / "export.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    # One is of checkpoints: tests/nas/cli/test_export_checkpoint.py.
    assert len(blocks) == len(PAGE) + 1
    (example,) = (block for block in blocks if word in block)
    if word != "load_artifact":
        more = {"onnxruntime": '"torch"'}.get(word, '"torchao"')
        example = WITHOUT_US.format(more=more) + example
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    card = json.loads((folder / "card.json").read_text())
    allowed = card["formats"][PAGE[word]]["verified"]["output_tolerance"]
    assert done.stdout.startswith("outputs differ by ")
    assert float(done.stdout.split()[-1]) <= (1e-3 if word == "load_artifact" else allowed)


def test_what_the_page_says_of_forms_is_so():
    page = (ROOT / "docs" / "export.md").read_text()
    table = page.partition("## Formats")[2].partition("###")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| `")]
    named = {row[0].strip("| `"): row for row in rows[1:]}
    assert set(named) == {ARTIFACT, *FORMATS}
    for name, form in FORMATS.items():
        files, holds = named[name][1], named[name][3]
        assert form.files[0].split("/")[0] in files
        assert set(re.findall(r"\b(?:fp|bf|int)\d+\w*", holds.split("(")[0])) == form.precisions
        assert ("opset" in files) == name.startswith("onnx")
        assert form.has_outputs or "not judged" in named[name][4]
    assert f"opset {OPSET}" in page


def model_card_of(folder):
    """The YAML of a model card, and its text."""
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def check_model_card(front, text, card):
    """What people must find: figures with their interval, and how they came about."""
    verified = card["formats"]["huggingface"]["verified"]
    reading = verified["reading"]
    (result,) = front["model-index"][0]["results"]
    figures = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert (
        result["dataset"]["name"] == "digits" and front["pipeline_tag"] == result["task"]["type"]
    )
    assert figures["test accuracy"] == verified["test_quality"]
    assert figures["joules per sample (estimate)"] == reading["energy_j"]
    for figure in ("energy_j", "low_j", "high_j"):
        assert format_joules(reading[figure]) in text
    assert FAST.hash in text and "an estimate" in text and "cpu-seconds" in text
    grams = reading["energy_j"] * 1e6 / 3.6e6 * 445
    assert f"{grams:.3g} g CO2e" in text and "445 g/kWh" in text
    assert "## Limits" in text and "digits" in text
    verification = card["formats"]["huggingface"]["load_verification"]
    assert verification["stock_class"] == "ViTForImageClassification"
    assert not verification["missing"]
    assert front["library_name"] == "transformers"
    assert 'AutoModelForImageClassification.from_pretrained("' in text
    assert "`ViTForImageClassification`" in text and verification["version"] in text


def test_a_form_that_fails_leaves_nothing(run, fast, tmp_path, capsys, monkeypatch):
    class Verified:
        validation_quality = 0.5

    def broken(folder):
        (folder / "model.onnx").write_bytes(b"half of it")
        raise RuntimeError("no more room\nand so on")

    monkeypatch.setattr(FORMATS["onnx"], "write", broken)
    monkeypatch.setattr("nas.exporting.export.verify_artifact", lambda *_, **__: Verified)
    monkeypatch.setattr("nas.exporting.export.make_card", lambda *_: {"formats": {}})
    words = ["export", run.folder, "--trial", 0, "--to", tmp_path / "out" / "a"]
    code, error = said([*words, "--format", "onnx", "--quiet"], capsys)
    assert code == 1 and "format onnx could not be written: no more room" in error
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "architecture", "workload", "device", "words"),
    [
        ("pt2", small("fp8"), WORKLOAD, "cuda:0", "pt2 does not support fp8 (layers.0.attention)"),
        ("pt2", small("int4wo"), WORKLOAD, "cpu", "pt2 does not support int4wo"),
        ("pt2", small("bf16", "2:4"), WORKLOAD, "cuda:0", "does not support 2:4 kernels"),
        ("onnx", small("int8"), WORKLOAD, "cpu", "formats that do: safetensors, pt2, onnx-int8"),
        ("onnx-int8", small("fp8"), WORKLOAD, "cuda:0", "formats that do: safetensors"),
        ("pt2", replace(small(), patch_size=1), TOKENS, "cpu", "does not support the cache"),
        (
            *("huggingface", small(), WORKLOAD, "cpu"),
            "executorch-int8, python; --exportable huggingface chooses another trial",
        ),
    ],
)
def test_what_a_format_does_not_support_is_refused(name, architecture, workload, device, words):
    with pytest.raises(ValueError) as error:
        check_supported(parse_formats([name]), architecture, workload, device)
    assert words in str(error.value) and "formats that do: safetensors" in str(error.value)


def test_a_refusal_is_one_line_and_nothing_is_written(run, tmp_path, capsys, monkeypatch):
    trial = run.trial(0)
    record = replace(trial, candidate=replace(trial.candidate, architecture=small("int8")))
    monkeypatch.setattr(Run, "trial", lambda self, number: record)
    words = ["export", run.folder, "--trial", 0, "--to", tmp_path / "out" / "a"]
    code, error = said([*words, "--format", "onnx", "--quiet"], capsys)
    assert code == 2 and len(error.splitlines()) == 1 and "does not support int8" in error
    code, error = said([*words, "--format", "onxx", "--quiet"], capsys)
    assert code == 2 and "did you mean 'onnx'" in error
    tolerance = ["--quality-tolerance", "7", "--quiet"]
    code, error = said([*words, "--format", "onnx-int8", *tolerance], capsys)
    assert code == 2 and "quality_tolerance must be in [0, 1)" in error
    code, error = said([*words, "--format", "pt2", *tolerance], capsys)
    assert code == 2 and "--quality-tolerance is of formats in int8 alone" in error
    assert not (tmp_path / "out").exists()


def test_zeros_that_no_kernel_skips_are_held(tmp_path):
    forms = [f for f in FORMATS.values() if f.name != "huggingface" and f.missing() is None]
    check_supported(forms, small("bf16", "2:4"), WORKLOAD, "cpu")
    check_supported(forms, small("fp32", "unstructured-90"), WORKLOAD, "cuda:0")


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    found = base_module.find_spec
    monkeypatch.setattr(
        base_module, "find_spec", lambda name: None if name == "onnxruntime" else found(name)
    )
    with pytest.raises(
        ValueError, match=r"onnx needs onnxruntime: pip install 'joulenas\[onnx\]'"
    ):
        check_supported(parse_formats(["onnx"]), small(), WORKLOAD, "cpu")
    check_supported(parse_formats(["pt2"]), small(), WORKLOAD, "cpu")


class Trap:
    def __reduce__(self):
        return (Path.touch, (Path("sprung"),))


@pytest.mark.parametrize("content", [b"", b"\x80\x04N.", pickle.dumps(Trap()), b"PK\x03\x04"])
def test_what_is_no_onnx_is_refused_and_not_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    for name in ("onnx", "onnx-int8"):
        with pytest.raises(ValueError, match="must exist"):
            FORMATS[name].load(tmp_path, device="cpu", threads=1)
        (tmp_path / FORMATS[name].files[0]).write_bytes(content)
        with pytest.raises(ValueError, match="must be a file of onnxruntime"):
            FORMATS[name].load(tmp_path, device="cpu", threads=1)
    assert not (tmp_path / "sprung").exists()


def test_only_the_verifying_process_loads_what_torch_unpickles():
    """``torch.export.load`` stands in one format, which only that process asks to load.

    LiteRT's converter reads a program of the process that starts it, for that alone.
    """
    found = set()
    for path in sources():
        calls = [node for node in nodes_of(text_of(path)) if isinstance(node, ast.Call)]
        names = {ast.unparse(call.func) for call in calls}
        if "torch.export.load" in names:
            found.add(path.name)
        if path.name not in ("verify_worker.py",) and "exporting" in path.parts:
            assert "stored.load" not in names, path
    assert found == {"torch_export.py", "litert_worker.py"}


def test_a_card_names_the_task_and_not_where_its_file_lies(run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_table(tmp_path / "reviews.csv", reviews(200))
    task = write_task(tmp_path / "t.yaml", kind="text_classification", data="reviews.csv")
    at = replace(run, config=replace(run.config, task=task))
    record = run.trial(0)
    found = Verification(0.0, 1e-3, 0.5, 0.5, 0.1, 1.0, 0.3, record.reading)
    card = make_card(at, record, found, artifact_files_of(get_task(task)))
    assert card["task"] == "reviews" and "on reviews" in render_readme(card)
    assert str(tmp_path) not in json.dumps(card) + render_readme(card)


def test_a_card_lists_the_versions_that_trained_measured_and_verified(run):
    """Not those of today alone, nor those that the run was begun with."""
    record = changed(
        run.trial(0),
        trained_by=({"torch": "2.10.1"}, {"torch": "2.11.2"}),
        measured_by={"torch": "2.11.3", "driver": "570.1"},
    )
    assert Trial.from_dict(json.loads(json.dumps(record.to_dict()))) == record
    found = Verification(0.0, 1e-3, 0.5, 0.5, 0.1, 1.0, 0.3, record.reading)
    card = make_card(replace(run, versions={"torch": "1.0"}), record, found)
    assert card["searched"]["trained_by"] == [{"torch": "2.10.1"}, {"torch": "2.11.2"}]
    assert card["searched"]["measured_by"] == {"torch": "2.11.3", "driver": "570.1"}
    assert card["verified"]["versions"]["torch"] == importlib.metadata.version("torch")
    lines = render_readme(card).splitlines()
    assert "- Trained by torch 2.10.1." in lines and "- Trained by torch 2.11.2." in lines
    assert "- Measured by torch 2.11.3, driver 570.1." in lines
    assert "torch 1.0" not in render_readme(card)
