"""Folders of embeddings as sentence-transformers reads them, by the package where it is there."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pages import DOCS, blocks
from parent_fakes import embedding_task, sentence_checkpoint
from style_fakes import network
from text_fakes import reviews

from nas.core.files import write_json
from nas.exporting.artifact import load_artifact
from nas.exporting.formats import stock, stock_worker
from nas.exporting.formats.huggingface import HuggingFaceFormat
from nas.tasks.registry import get_task
from nas.training.weights import ARCHITECTURE, WEIGHTS, WORKLOAD, save_weights
from search_spaces.architecture import STYLES, Architecture, AttentionSpec, FfnSpec, LayerSpec
from search_spaces.pretrained import load_checkpoint
from search_spaces.pretrained.writing.stock import stock_refusals
from search_spaces.workload import Workload

FORM = HuggingFaceFormat()
LAYER = LayerSpec(AttentionSpec(4, 4, 6), FfnSpec(40))


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch, tmp_path):
    """Verification without a process of its own."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(stock, "run", stock_worker.do)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def written(folder, pooling, has_unit_vectors, prefix=""):
    """A network of random weights as a folder of its own; the artifact, and the folder."""
    checkpoint = sentence_checkpoint(folder / "checkpoint")
    own = {"checkpoint": "checkpoint", "tokenizer": "checkpoint/tokenizer.json"}
    task = get_task(embedding_task(folder, **own, padding_token=0, vocab_size=97, prefix=prefix))
    assert checkpoint.is_dir()
    style = replace(STYLES["bert"], pooling=pooling, has_unit_vectors=has_unit_vectors)
    workload, of = task.workload(4), Architecture(24, (LAYER,) * 2, style=style)
    model = folder / "model"
    model.mkdir()
    save_weights(network(of, workload), model / WEIGHTS)
    write_json(model / ARCHITECTURE, of.to_dict())
    write_json(model / WORKLOAD, workload.to_dict())
    for name, text in task.artifact_files().items():
        (model / name).write_text(text)
    facts = FORM.write(model)
    assert facts["load_verification"]["stock_class"] == "BertModel"
    return load_artifact(model), model


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "pooler"])
@pytest.mark.parametrize("has_unit_vectors", [True, False])
def test_the_folder_says_how_vectors_are_pooled(pooling, has_unit_vectors, tmp_path):
    if pooling == "pooler" and has_unit_vectors:
        pytest.skip("no class divides a pooler's vector by its length")
    artifact, model = written(tmp_path, pooling, has_unit_vectors)
    folder = model / "huggingface"
    assert (folder / "modules.json").is_file() == (pooling != "pooler")
    read = load_checkpoint(folder)
    assert read.architecture.style.pooling == pooling
    assert read.architecture.style.has_unit_vectors == has_unit_vectors
    texts = [text for text, _ in reviews(30)]
    tokens = torch.from_numpy(artifact.encoder.encode(texts))
    with torch.no_grad():
        found = read.build()(tokens).numpy()
    again = FORM.load(model, device="cpu", threads=1).call(tokens).numpy()
    assert np.abs(found - artifact.embed(texts)).max() < 1e-5
    assert np.abs(again - artifact.embed(texts)).max() < 1e-5
    for name in {"1_Pooling/config.json", "modules.json"} if pooling != "pooler" else ():
        assert f"huggingface/{name}" in FORM.optional_files


def test_the_prefix_is_the_default_prompt(tmp_path):
    _, model = written(tmp_path, "mean", True, prefix="good ")
    config = json.loads((model / "huggingface" / "config_sentence_transformers.json").read_text())
    assert config["prompts"] == {"text": "good "} and config["default_prompt_name"] == "text"
    length = json.loads((model / "huggingface" / "sentence_bert_config.json").read_text())
    assert length["max_seq_length"] == 12


def test_unit_vectors_of_a_pooler_are_of_no_class():
    workload = Workload("texts", "text_embedding", (12,), 24, 4, vocab_size=97)
    style = replace(STYLES["bert"], has_unit_vectors=True)
    assert style.pooling == "pooler"
    reasons = stock_refusals(Architecture(24, (LAYER,), style=style), workload)
    assert "computed by no class of transformers for text_embedding" in reasons[0]


@pytest.mark.parametrize(
    ("pooling", "has_unit_vectors", "prefix"),
    [("mean", True, "good "), ("cls", False, ""), ("mean", False, "")],
)
def test_sentence_transformers_gives_the_same_vectors(
    pooling, has_unit_vectors, prefix, tmp_path, monkeypatch, capsys
):
    package = pytest.importorskip("sentence_transformers")
    monkeypatch.chdir(tmp_path)
    artifact, model = written(tmp_path, pooling, has_unit_vectors, prefix)
    loaded = package.SentenceTransformer(str(model / "huggingface"), device="cpu")
    # Some are longer than the network reads.
    texts = [f"{text} film plot story" for text, _ in reviews(60)]
    assert loaded.max_seq_length == 12
    found = loaded.encode(texts)
    assert np.abs(found - artifact.embed(texts)).max() < 1e-4
    _, shown = blocks(DOCS / "embeddings.md", "python")
    exec(shown, {})
    assert capsys.readouterr().out.splitlines()[-1] == "(2, 24)"
