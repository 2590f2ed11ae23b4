"""True searches for what is no class of a sample: masks, and answers in a paragraph."""

import json
from dataclasses import replace

import pytest
from media_fakes import task_file, write_scenes
from text_fakes import write_squad

import nas
from experiments.recipes import question_answering, segmentation
from nas.cli.main import main
from nas.records.config import GateConfig
from search_spaces.space import SearchSpace

SMALL = {"d_model": [16, 32], "n_heads": [2], "n_kv_heads": [1, 2], "ffn_ratio": [1, 2]}


def scenes(folder):
    write_scenes(folder, 120)
    made = {
        "kind": "segmentation",
        "data": {"images": "pictures", "masks": "masks"},
        "classes": ["ground", "bright", "red"],
    }
    space = {"name": "scenes", **SMALL, "depth": [1], "patch_size": [2, 4], "resolution": [None]}
    recipe = segmentation("cpu")
    training = replace(recipe.training, epochs=10, learning_rate=8e-3, shift_pixels=0)
    return recipe, made, space, training, "mean IoU"


def notes(folder):
    write_squad(folder / "notes.json", 150)
    made = {"kind": "question_answering", "data": "notes.json", "sequence_length": 24}
    recipe = question_answering("cpu")
    training = replace(recipe.training, epochs=6, learning_rate=5e-3)
    return recipe, made, {"name": "notes", **SMALL, "depth": [1, 2]}, training, "F1"


@pytest.mark.parametrize("make", [pytest.param(scenes, marks=pytest.mark.thorough), notes])
def test_a_search_goes_the_whole_way(tmp_path, monkeypatch, capsys, counted_joules, make):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe, made, space, training, shown = make(tmp_path)
    config = replace(
        recipe,
        task=task_file(tmp_path / "mine.yaml", name="mine", **made),
        space=SearchSpace.from_dict(space),
        trials=2,
        meter=counted_joules,
        training=training,
        gate=GateConfig(startup_trials=2),
    )
    run = nas.search(config, tmp_path / "run", workers=0)
    trials = run.trials()
    assert [trial.state for trial in trials] == ["complete"] * 2, [t.reason for t in trials]
    assert all(trial.reading.energy_j > 0 and trial.reading.is_estimate for trial in trials)
    best = max(trials, key=lambda trial: trial.quality)
    assert best.quality > 0.6 and best.test_quality > 0.5
    capsys.readouterr()
    assert main(["front", str(run.folder)]) == 0
    assert shown in capsys.readouterr().out
    folder = tmp_path / "model"
    words = ["export", str(run.folder), "--trial", str(best.number), "--to", str(folder)]
    assert main(words) == 0
    card = json.loads((folder / "card.json").read_text())
    assert card["verified"]["output_difference"] == 0
