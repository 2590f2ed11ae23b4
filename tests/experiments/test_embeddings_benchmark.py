"""The benchmark of a search around a sentence encoder."""

import gzip
from types import SimpleNamespace

import pytest
import torch
from parent_fakes import embedding_task, sentence_checkpoint

from experiments.benchmarks.compression import embeddings
from experiments.benchmarks.compression.embeddings import Shown, chosen, row_of, write_texts
from nas.core.estimate import Estimate
from nas.tasks.registry import get_task
from search_spaces.pretrained import load_checkpoint


def captions(folder):
    parts = {
        "train": ["A dog runs.", "Two men sit.", "a cat sleeps.", "A dog runs.", "Birds fly.", ""],
        "val": ["A cat sleeps.", "A boy jumps."],
        "test_2016_flickr": ["A boy jumps.", "Rain."],
    }
    for name, lines in parts.items():
        with gzip.open(folder / f"{name}.en.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(lines))


def test_no_caption_is_in_two_splits_or_twice(tmp_path):
    captions(tmp_path)
    write_texts(tmp_path, 2, tmp_path)
    texts = {
        name: (tmp_path / f"{name}.txt").read_text().splitlines()
        for name in ("train", "validation", "test")
    }
    assert texts["test"] == ["A boy jumps.", "Rain."] and texts["validation"] == ["A cat sleeps."]
    assert texts["train"] == ["A dog runs.", "Two men sit."]


def member(trial, quality, energy_j, *, baseline=False):
    return SimpleNamespace(trial=trial, quality=quality, energy_j=energy_j, baseline=baseline)


def test_the_member_of_fewest_joules_with_the_recall_is_chosen():
    front = [
        member(0, 1.0, 9.0, baseline=True),
        member(1, 0.95, 5.0),
        member(2, 0.91, 3.0),
        member(3, 0.8, 1.0),
    ]
    run = SimpleNamespace(front=lambda: front)
    assert chosen(run, 0.9).trial == 2 and chosen(run, 0.99).trial == 1
    with pytest.raises(SystemExit, match="raise --trials"):
        chosen(SimpleNamespace(front=lambda: front[:1]), 0.9)


def test_a_row_has_both_splits_and_the_ratio_the_other_way_round(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = sentence_checkpoint(tmp_path / "minilm")
    own = {"checkpoint": str(folder), "tokenizer": str(folder / "tokenizer.json")}
    task = get_task(embedding_task(tmp_path, **own, padding_token=0, vocab_size=97))
    checkpoint = load_checkpoint(folder).with_length(12)
    energy = SimpleNamespace(
        energy=Estimate(2e-3, 1e-3, 3e-3, "made"), ratio=Estimate(0.25, 0.2, 0.5, "made")
    )
    network = checkpoint.build()
    row = row_of(task, Shown("whole", checkpoint.architecture, network), energy)
    assert row["recall"] == row["test"] == 100 and row["spearman"] == pytest.approx(100)
    assert (row["times"], row["times_low"], row["times_high"]) == (4, 2, 5)
    with torch.no_grad():
        network.layers[1].ffn.down.weight.mul_(-1)
    row = row_of(task, Shown("damaged", checkpoint.architecture, network), energy)
    assert row["test"] < 95 and row["spearman"] < 99


def test_the_command_needs_a_checkpoint_and_captions(capsys):
    with pytest.raises(SystemExit):
        embeddings.main([])
    assert "--captions" in capsys.readouterr().err
