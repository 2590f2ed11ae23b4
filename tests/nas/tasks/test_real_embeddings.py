"""The vectors of all-MiniLM-L6-v2 as targets, where ``make checkpoints`` has fetched it."""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from parent_fakes import embedding_task

from nas.tasks.registry import get_task
from nas.training.evaluate import evaluate
from nas.training.scores import score
from search_spaces.compression.inherit import inherit
from search_spaces.compression.prune import magnitude_importance
from search_spaces.pretrained import load_checkpoint

ROOT = Path(__file__).parents[3]
MINILM = ROOT / "build" / "checkpoints" / "all-minilm-l6-v2"
# Data beside the project or in it, which are no part of it.
CAPTIONS = [
    folder / "shared" / "data" / "multi30k" / "val.en.gz" for folder in (ROOT, ROOT.parent)
]


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    if not MINILM.is_dir():
        pytest.skip("make checkpoints fetches all-MiniLM-L6-v2")
    captions = next((path for path in CAPTIONS if path.is_file()), None)
    if captions is None:
        pytest.skip("captions of Multi30k are not here")
    folder = tmp_path_factory.mktemp("captions")
    with gzip.open(captions, "rt", encoding="utf-8") as file:
        lines = list(dict.fromkeys(line.strip() for line in file))
    parts = {"train": lines[:256], "validation": lines[256:556], "test": lines[556:600]}
    for name, part in parts.items():
        (folder / f"{name}.txt").write_text("\n".join(part))
    options = {name: f"{name}.txt" for name in parts} | {"data": None}
    options |= {"checkpoint": str(MINILM), "tokenizer": str(MINILM / "tokenizer.json")}
    path = embedding_task(folder, **options, padding_token=0, vocab_size=30522)
    text = Path(path).read_text().replace("data: null\n", "")
    Path(path).write_text(text.replace("sequence_length: 12", "sequence_length: 24"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield get_task(path)


@pytest.mark.thorough
def test_minilm_agrees_with_itself_and_with_its_cuts_in_part(task):
    checkpoint = load_checkpoint(MINILM).with_length(24)
    network, architecture = checkpoint.build(), checkpoint.architecture
    validation, objective = task.split("validation"), task.objective
    workload = task.workload(32)

    def recall(model):
        with torch.no_grad():
            return evaluate(model, validation, batch_size=32, objective=objective).value

    assert recall(network) == 1
    scores = score(network, task.split("train"), objective)
    assert all(np.ptp(s.numpy()) > 0 for s in scores.importance.channels)
    layer = architecture.layers[0]
    narrow = replace(
        layer,
        attention=replace(layer.attention, n_heads=8, n_kv_heads=8),
        ffn=replace(layer.ffn, d_ff=1024),
    )
    to = replace(architecture, layers=(narrow,) * architecture.depth)
    shallow = replace(architecture, layers=architecture.layers[:4])

    def cut(to, importance, moments=None):
        own = {"importance": importance, "moments": moments}
        return recall(inherit(network, architecture, to, workload, **own).eval())

    ours = cut(to, scores.importance, scores.moments)
    magnitude = cut(to, magnitude_importance(network))
    assert ours > magnitude + 0.05 and 0.4 < ours < 1
    # By the loss without layers rather than evenly.
    even = replace(scores.importance, layers=None)
    assert cut(shallow, scores.importance) >= cut(shallow, even)
