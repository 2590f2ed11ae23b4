"""A true search for what translates: trained, measured per output token, shown and exported."""

import json
from dataclasses import replace

import pytest
from media_fakes import task_file
from pages import DOCS, blocks
from text_fakes import sentences, write_parallel

import nas
from experiments.recipes import translation
from nas.cli.main import main
from nas.exporting.artifact import load_artifact
from nas.records.config import GateConfig
from search_spaces.space import SearchSpace

SPACE = SearchSpace.from_dict(
    {
        "name": "tongues",
        "d_model": [24, 32],
        "depth": [1, 2],
        "n_heads": [2],
        "n_kv_heads": [1, 2],
        "ffn_ratio": [1, 2],
        "decoder_d_model": [24, 32],
        "decoder_depth": [1, 2],
        "decoder_n_heads": [2],
        "decoder_n_kv_heads": [2],
        "cross_n_heads": [2],
        "cross_n_kv_heads": [1, 2],
        "decoder_ffn_ratio": [1],
    }
)


@pytest.mark.thorough
def test_a_search_for_translations_goes_the_whole_way(
    tmp_path, monkeypatch, capsys, counted_joules
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pairs = sentences(900)
    made = {
        "kind": "translation",
        "data": write_parallel(tmp_path, pairs),
        "sequence_length": 20,
        "target_length": 12,
        "max_vocabulary": 300,
    }
    recipe = translation("cpu")
    config = replace(
        recipe,
        task=task_file(tmp_path / "tongue.yaml", name="tongue", **made),
        space=SPACE,
        baselines=(),
        trials=3,
        meter=counted_joules,
        training=replace(recipe.training, epochs=12, batch_size=32, learning_rate=8e-3),
        gate=GateConfig(startup_trials=2),
    )
    run = nas.search(config, tmp_path / "run", workers=0)
    trials = run.trials()
    assert [trial.state for trial in trials] == ["complete"] * 3, [t.reason for t in trials]
    for trial in trials:
        assert trial.reading.unit == "output token" and trial.reading.is_estimate
        assert trial.architecture.decoder is not None and trial.prediction.mean > 0
    best = max(trials, key=lambda trial: trial.quality)
    assert best.quality > 0.5 and best.test_quality > 0.4
    assert main(["front", str(run.folder), "--json"]) == 0
    members = json.loads(capsys.readouterr().out)["members"]
    assert best.number in {member["trial"] for member in members}
    assert {member["unit"] for member in members} == {"output token"}
    folder = tmp_path / "model"
    words = ["export", str(run.folder), "--trial", str(best.number), "--to", str(folder)]
    assert main(words) == 0
    card = json.loads((folder / "card.json").read_text())
    assert card["verified"]["output_difference"] == 0
    assert "joules per output token" in (folder / "README.md").read_text()
    artifact = load_artifact(folder)
    found = artifact.translate([source for source, _ in pairs[:50]])
    right = sum(a.split() == b.split() for a, (_, b) in zip(found, pairs[:50], strict=True))
    assert right > 15
    # As the page of translations has it.
    _, shown = blocks(DOCS / "translation.md", "python")
    monkeypatch.chdir(tmp_path)
    exec(shown.replace("path/to/this/folder", "model"), {})
    assert capsys.readouterr().out.splitlines()[-1].startswith("['")
