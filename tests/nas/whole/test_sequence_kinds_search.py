"""True searches for summaries and for speech to text: trained, measured, shown and exported."""

import json
from dataclasses import replace

import pytest
from media_fakes import task_file
from pages import DOCS, blocks
from text_fakes import write_table

import nas
from experiments.made_data import documents, write_melodies
from experiments.recipes import summarisation, transcription
from nas.cli.main import main
from nas.exporting.artifact import load_artifact
from nas.records.config import GateConfig
from search_spaces.space import SearchSpace

HEADS = {f"{side}n_heads": [2] for side in ("", "decoder_", "cross_")}
HEADS |= {f"{side}n_kv_heads": [1, 2] for side in ("", "decoder_", "cross_")}
WRITERS = SearchSpace.from_dict(
    {
        "name": "writers",
        "d_model": [24, 32],
        "depth": [1, 2],
        "ffn_ratio": [1, 2],
        "decoder_d_model": [24, 32],
        "decoder_depth": [1],
        "decoder_ffn_ratio": [1],
        **HEADS,
    }
)
LISTENERS = SearchSpace.from_dict(
    {
        "name": "listeners",
        "d_model": [24, 32],
        "depth": [1, 2],
        "n_heads": [2],
        "n_kv_heads": [1, 2],
        "ffn_ratio": [1, 2],
        "patch_size": [2, 4],
    }
)


def searched(config, folder, capsys):
    """The run, its best trial and the members of its front."""
    run = nas.search(config, folder / "run", workers=0)
    trials = run.trials()
    assert [trial.state for trial in trials] == ["complete"] * 3, [t.reason for t in trials]
    best = max(trials, key=lambda trial: trial.quality)
    assert main(["front", str(run.folder), "--json"]) == 0
    members = json.loads(capsys.readouterr().out)["members"]
    assert best.number in {member["trial"] for member in members}
    return run, best, members


@pytest.mark.thorough
def test_a_search_for_summaries_goes_the_whole_way(tmp_path, monkeypatch, capsys, counted_joules):
    pytest.importorskip("rouge_score")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pairs = documents(400)
    write_table(tmp_path / "all.jsonl", pairs, ("source", "target"))
    made = {"kind": "summarisation", "data": "all.jsonl", "max_vocabulary": 400}
    made |= {"sequence_length": 96, "target_length": 8}
    recipe = summarisation("cpu")
    config = replace(
        recipe,
        task=task_file(tmp_path / "reports.yaml", name="reports", **made),
        space=WRITERS,
        baselines=(),
        trials=3,
        meter=counted_joules,
        training=replace(recipe.training, epochs=4, learning_rate=8e-3),
        gate=GateConfig(startup_trials=2),
    )
    run, best, members = searched(config, tmp_path, capsys)
    # After so few epochs words are those of summaries, and their order.
    assert best.quality > 0.3
    assert {member["unit"] for member in members} == {"output token"}
    assert main(["explain", str(run.folder), str(best.number)]) == 0
    assert "per document" in capsys.readouterr().out
    folder = tmp_path / "model"
    words = ["export", str(run.folder), "--trial", str(best.number), "--to", str(folder)]
    assert main(words) == 0
    card = json.loads((folder / "card.json").read_text())
    assert card["verified"]["output_difference"] == 0 and card["kind"] == "summarisation"
    readme = (folder / "README.md").read_text()
    assert "joules per output token" in readme and "joules per document" in readme
    written = load_artifact(folder).summarise([source for source, _ in pairs[:20]])
    assert all(" beat " in text for text in written)
    capsys.readouterr()
    (shown,) = blocks(DOCS / "summarisation.md", "python")
    monkeypatch.chdir(tmp_path)
    exec(shown.replace("path/to/this/folder", "model"), {})
    assert capsys.readouterr().out.startswith("['")


@pytest.mark.thorough
def test_a_search_for_transcripts_goes_the_whole_way(
    tmp_path, monkeypatch, capsys, counted_joules
):
    pytest.importorskip("jiwer")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_melodies(tmp_path, 300)
    made = {"kind": "transcription", "data": "melodies.jsonl", "sample_rate": 8000}
    made |= {"duration_s": 2.0, "n_mels": 24, "hop_ms": 16, "window_ms": 32}
    recipe = transcription("cpu")
    config = replace(
        recipe,
        task=task_file(tmp_path / "melodies.yaml", name="melodies", **made),
        space=LISTENERS,
        baselines=(),
        trials=3,
        meter=counted_joules,
        training=replace(recipe.training, epochs=16, learning_rate=5e-3),
        gate=GateConfig(startup_trials=2),
    )
    run, best, members = searched(config, tmp_path, capsys)
    assert best.quality > 0.5
    assert {member["unit"] for member in members} == {"second of audio"}
    folder = tmp_path / "model"
    words = ["export", str(run.folder), "--trial", str(best.number), "--to", str(folder)]
    assert main([*words, "--format", "python"]) == 2
    assert "networks of transcription" in capsys.readouterr().err
    # The meter of tests counts what torch does: ONNX is compared in test_transcription_task.py.
    code = main([*words, "--format", "pt2"])
    assert code == 0, capsys.readouterr().err
    card = json.loads((folder / "card.json").read_text())
    assert card["verified"]["output_difference"] == 0
    assert card["formats"].keys() == {"pt2"}
    assert "joules per second of audio" in (folder / "README.md").read_text()
    capsys.readouterr()
    (shown,) = blocks(DOCS / "transcription.md", "python")
    shown = shown.replace("path/to/this/folder", "model")
    monkeypatch.chdir(tmp_path)
    exec(shown.replace("a recording of your own.wav", "clips/00000.wav"), {})
    assert capsys.readouterr().out.startswith("['")
