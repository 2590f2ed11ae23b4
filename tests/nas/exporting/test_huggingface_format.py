"""Trials as folders of stock classes: texts go in by transformers alone, others are refused."""

import json
from dataclasses import replace

import pytest
import torch
from export_fakes import FAST, made_artifact, name_tasks
from loadable_fakes import mixed
from media_fakes import task_file
from pages import DOCS, blocks
from search_fakes import WORKLOAD, drive, finished, make_session
from style_fakes import network
from text_fakes import reviews, tale, write_table, write_task
from tokenizers import Tokenizer, models, pre_tokenizers

from nas.cli.main import main
from nas.core.files import write_json
from nas.exporting import verify_worker
from nas.exporting.formats import stock, stock_worker
from nas.exporting.formats.base import ExportError
from nas.exporting.formats.huggingface import HuggingFaceFormat
from nas.exporting.formats.registry import check_supported, exportable_front
from nas.records.config import SearchConfig
from nas.store import new_run, run_file
from nas.tasks.registry import get_task
from nas.tasks.text.tokenize import read_tokenizer
from nas.training.weights import ARCHITECTURE, WEIGHTS, save_weights
from nas.training.weights import WORKLOAD as WORKLOAD_FILE
from predictors.measurement.exclusive import DeviceLock
from search_spaces import plugins
from search_spaces.architecture import (
    STYLES,
    Architecture,
    AttentionSpec,
    Compression,
    FfnSpec,
    LayerSpec,
)
from search_spaces.pretrained.writing.stock import stock_refusals
from search_spaces.space import SearchSpace
from search_spaces.workload import Workload

FORM = HuggingFaceFormat()
LAYER = LayerSpec(AttentionSpec(4, 4, 8), FfnSpec(48))


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch, tmp_path):
    """Verification without a process of its own."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(stock, "run", stock_worker.do)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def own_tokenizer(path):
    """A user's tokenizer, which has no padding token."""
    words = ["[UNK]", *sorted({word for text, _ in reviews(200) for word in text.split()})]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(path))


def artifact_of(task, style, folder, layer=LAYER):
    """A network of random weights, and what an export writes of it first."""
    workload, of = task.workload(4), Architecture(32, (layer, layer), style=STYLES[style])
    folder.mkdir()
    made = network(of, workload)
    save_weights(made, folder / WEIGHTS)
    write_json(folder / ARCHITECTURE, of.to_dict())
    write_json(folder / WORKLOAD_FILE, workload.to_dict())
    for name, text in task.artifact_files().items():
        (folder / name).write_text(text)
    return made, folder


@pytest.mark.parametrize("tokenizer", ["word", "bpe", "own"])
def test_texts_give_the_networks_outputs_by_transformers_alone(tokenizer, tmp_path):
    import transformers

    write_table(tmp_path / "reviews.csv", reviews(200))
    options = {"tokens": tokenizer}
    if tokenizer == "own":
        own_tokenizer(tmp_path / "own.json")
        options = {"tokenizer": "own.json"}
    task = get_task(
        write_task(
            tmp_path / "t.yaml",
            kind="text_classification",
            data="reviews.csv",
            sequence_length=10,
            **options,
        )
    )
    made, folder = artifact_of(task, "bert", tmp_path / "model")
    facts = FORM.write(folder)
    assert facts["load_verification"]["stock_class"] == "BertForSequenceClassification"
    inputs = torch.from_numpy(task.split("test").inputs[:16])
    with torch.no_grad():
        expected = made(inputs)
    again = FORM.load(folder, device="cpu", threads=1).call(inputs)
    assert (again - expected).abs().max() < 1e-5
    stored = folder / "huggingface"
    reader = transformers.AutoTokenizer.from_pretrained(stored)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(stored).eval()
    texts = [text for text, _ in reviews(60)[::4]]
    rows = read_tokenizer(folder / "tokenizer.json", 10, int(tokenizer == "own")).encode(texts)
    with torch.no_grad():
        expected = made(torch.from_numpy(rows))
        given = reader(texts, padding=True, truncation=True, return_tensors="pt")
        found = model(**given).logits
    assert len({len(text.split()) for text in texts}) > 3
    assert (found - expected).abs().max() < 1e-5
    assert model.config.id2label == {0: "neg", 1: "pos"}


def test_quantised_blocks_of_a_trial_are_read_by_transformers_alone(tmp_path):
    (tmp_path / "tale.txt").write_text(tale(400))
    config = {"kind": "language_modelling", "data": "tale.txt", "context_length": 16}
    task = get_task(write_task(tmp_path / "t.yaml", **config))
    layer = replace(LAYER, ffn=FfnSpec(48, None, Compression("int8")))
    made, folder = artifact_of(task, "llama", tmp_path / "model", layer)
    found = FORM.write(folder)["load_verification"]
    assert found["stock_class"] == "LlamaForCausalLM" and found["n_exact"] == 6
    inputs = torch.from_numpy(task.split("test").inputs[:4])
    with torch.no_grad():
        expected = made(inputs)
    found = FORM.load(folder, device="cpu", threads=1).call(inputs)
    of = Architecture(32, (layer, layer), style=STYLES["llama"])
    allowed = FORM.output_tolerance(of, float(expected.abs().max()))
    assert 0 < (found - expected).abs().max() < allowed


@pytest.mark.parametrize("style", ["gpt2", "llama"])
def test_language_models_read_texts_by_transformers_alone(style, tmp_path):
    import transformers

    (tmp_path / "tale.txt").write_text(tale(400))
    options = {"context_length": 16, "block_length": 256, "data": "tale.txt"}
    path = tmp_path / "task.yaml"
    task = get_task(task_file(path, name="tale", kind="language_modelling", **options))
    made, folder = artifact_of(task, style, tmp_path / "model")
    FORM.write(folder)
    inputs = torch.from_numpy(task.split("test").inputs[:4])
    with torch.no_grad():
        expected = made(inputs)
    again = FORM.load(folder, device="cpu", threads=1).call(inputs)
    assert (again - expected).abs().max() < 1e-5
    stored, text = folder / "huggingface", "ant aaeats"
    reader = transformers.AutoTokenizer.from_pretrained(stored)
    ((tokens, _),) = read_tokenizer(folder / "tokenizer.json", 16, 0).encode_whole([text])
    assert reader(text).input_ids == tokens.tolist() and reader.decode(tokens) == text
    model = transformers.AutoModelForCausalLM.from_pretrained(stored).eval()
    with torch.no_grad():
        found = model(**reader(text, return_tensors="pt")).logits
        expected = made(torch.from_numpy(tokens)[None])
    assert (found - expected).abs().max() < 1e-5


def test_a_folder_with_other_outputs_is_no_export(tmp_path, monkeypatch):
    folder = made_artifact(
        tmp_path / "model", Architecture(32, (LAYER,), 2, style=STYLES["vit"]), "digits"
    )

    def differs(job):
        return stock_worker.findings(job) | {"output_difference": 1.0}

    monkeypatch.setattr(stock, "run", differs)
    with pytest.raises(ExportError, match="outputs of ViTForImageClassification .* differ by 1"):
        FORM.write(folder)


@pytest.mark.parametrize(
    ("changes", "gene"),
    [
        ({"style": STYLES["default"]}, "blocks default"),
        ({"layers": (LAYER, replace(LAYER, ffn=FfnSpec(24)))}, "ffn.d_ff"),
        ({"layers": (replace(LAYER, ffn=FfnSpec(48, 4)),)}, "ffn.rank"),
        ({"layers": (replace(LAYER, attention=AttentionSpec(4, 1, 8)),)}, "attention.n_kv_heads"),
        ({"resolution": 4}, "resolution"),
    ],
)
def test_a_refusal_has_the_gene_that_excludes_trials(changes, gene):
    of = replace(Architecture(32, (LAYER,), 2, style=STYLES["vit"]), **changes)
    assert FORM.refusal(of, WORKLOAD, "cpu").gene == gene
    with pytest.raises(
        ValueError, match="huggingface does not support .*formats that do: safetensors, .*pyt"
    ):
        check_supported([FORM], of, WORKLOAD, "cpu")


def test_the_refusal_of_the_page_is_what_is_said():
    of = Architecture(32, (LAYER,), 2)
    with pytest.raises(ValueError) as error:
        check_supported([FORM], of, WORKLOAD, "cpu")
    assert f"nas export: {error.value}\n" in blocks(DOCS / "export.md", "text")


def test_a_package_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("nas.exporting.formats.base.find_spec", lambda name: None)
    of = Architecture(32, (LAYER,), 2, style=STYLES["vit"])
    with pytest.raises(ValueError, match=r"needs transformers: pip install 'joulenas\[checkpo"):
        check_supported([FORM], of, WORKLOAD, "cpu")


def test_a_decoder_that_was_measured_with_a_cache_is_measured_without(tmp_path, monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.setattr(plugins, "_LOADED", {})
    name_tasks(tmp_path)
    layer = LayerSpec(AttentionSpec(4, 2, 8), FfnSpec(48))
    of = Architecture(32, (layer,), style=STYLES["qwen3"])
    folder = made_artifact(tmp_path / "model", of, "next-words")
    path = folder / WORKLOAD_FILE
    workload = Workload.from_dict(json.loads(path.read_text())).with_phase("generate")
    write_json(path, workload.to_dict())
    assert FORM.refusal(of, workload, "cpu") is None
    FORM.write(folder)
    loaded = FORM.load(folder, device="cpu", threads=1)
    lock = DeviceLock(tmp_path / "locks", "cpu")
    reading, mode = verify_worker._measure(loaded, "estimate", FAST, "cpu", folder, lock)
    assert (reading.unit, mode) == ("sample", "as it is") and reading.energy_j > 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run over a mixed space, with its task's workload as searches store it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    space = mixed(WORKLOAD, "vit", loadable="transformers")
    plain = {gene: ["fp32"] for gene in ("attention_precision", "ffn_precision")}
    genes = space.to_dict() | plain | {"blocks": ["default", "vit"]}
    del genes["loadable"]
    changes = {"sampler": "random", "space": SearchSpace.from_dict(genes), "trials": 30}
    config = SearchConfig(task="digits", **changes)
    run_file.go_on(new_run.begin(folder, config, "fake", workload=WORKLOAD))
    drive(make_session(folder, **changes, seed=5), finished)
    return run_file.load(folder)


def said(capsys, *words):
    code = main([str(word) for word in words])
    return code, *capsys.readouterr()


def test_a_front_marks_loadable_members(run, capsys):
    code, out, _ = said(capsys, "front", run.folder, "--json")
    members = json.loads(out)["members"]
    for member in members:
        of = Architecture.from_dict(member["architecture"])
        assert member["loadable"] == (stock_refusals(of, WORKLOAD) == ())
    assert code == 0 and len({member["loadable"] for member in members}) == 2
    _, out, _ = said(capsys, "front", run.folder)
    assert "loadable" in out.splitlines()[0]
    assert "loadable: a stock class of transformers supports it" in out
    _, out, _ = said(capsys, "front", run.folder, "--exportable", "huggingface")
    assert "loadable" not in out.splitlines()[0]
    _, out, _ = said(capsys, "front", run.folder, "--exportable", "huggingface", "--json")
    assert all(member["loadable"] for member in json.loads(out)["members"])


@pytest.mark.parametrize("rule", ["--knee", "--recommended"])
def test_the_best_that_the_form_can_hold_is_exported(rule, run, capsys, tmp_path):
    front = exportable_front(run, ["huggingface"]).front
    held = [
        trial.quality
        for trial in run.trials()
        if trial.state == "complete" and not stock_refusals(trial.architecture, WORKLOAD)
    ]
    assert max(member.quality for member in front) == max(held)
    best = front.knee() if rule == "--knee" else front.recommended()
    words = ["export", run.folder, rule, "--exportable", "huggingface", "--to", tmp_path / "a"]
    code, _, err = said(capsys, *words)
    # The weights of a fake are missing.
    assert code == 2 and f"exporting trial {best.trial}, " in err and "weights of" in err


def test_none_that_the_form_can_hold_is_one_line(tmp_path, capsys):
    folder = tmp_path / "run"
    changes = {"sampler": "random", "space": mixed(WORKLOAD, "default"), "trials": 3}
    config = SearchConfig(task="digits", **changes)
    run_file.go_on(new_run.begin(folder, config, "fake", workload=WORKLOAD))
    drive(make_session(folder, **changes), finished)
    words = ("export", folder, "--recommended", "--exportable", "huggingface", "--to", "x")
    code, _, err = said(capsys, *words)
    assert code == 2 and len(err.splitlines()) == 1
    assert "are not supported by huggingface: blocks default (trials 0, 1, 2)" in err
    assert "so that none is left" in err
