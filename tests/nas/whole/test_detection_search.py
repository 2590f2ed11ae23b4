"""A true search for boxes: found, shown, exported, and read back from raw pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest
from media_fakes import task_file
from PIL import Image

import nas
from experiments.benchmarks.training.drawn_shapes import CLASSES, write_shapes
from experiments.recipes import detection
from nas.cli.main import main
from nas.exporting.artifact import load_artifact
from nas.records.config import GateConfig
from nas.reporting.data import page_data
from nas.tasks.vision.boxes import overlap
from nas.tasks.vision.example_boxes import examples_in
from search_spaces.space import SearchSpace

SMALL = {"d_model": [32], "depth": [2, 3], "n_heads": [2], "n_kv_heads": [2], "ffn_ratio": [2]}


def config_of(folder, meter, **changes):
    data = {"images": "pictures", "annotations": "boxes.json"}
    space = {"name": "shapes", **SMALL, "patch_size": [4], "resolution": [None]}
    recipe = detection("cpu")
    training = replace(recipe.training, epochs=50, batch_size=8, shift_pixels=2, flip_images=True)
    return replace(
        recipe,
        task=task_file(folder / "mine.yaml", name="mine", kind="detection", data=data, size=24),
        space=SearchSpace.from_dict(space),
        trials=2,
        meter=meter,
        training=training,
        gate=GateConfig(startup_trials=2),
        **changes,
    )


def test_a_teacher_is_refused(tmp_path, monkeypatch, counted_joules):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_shapes(tmp_path, 30, side=24, most=1, sizes=(8, 12), own_colours=True)
    config = config_of(tmp_path, counted_joules)
    taught = replace(config.training, distill=nas.training.config.DistillConfig())
    config = replace(config, teacher="largest", training=taught)
    with pytest.raises(ValueError, match="teacher must be None for object_detection"):
        nas.search(config, tmp_path / "run", workers=0)
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_a_search_goes_the_whole_way(tmp_path, monkeypatch, capsys, counted_joules):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kind = {"side": 24, "most": 2, "sizes": (8, 14), "lines": 0, "own_colours": True}
    shapes = write_shapes(tmp_path, 160, **kind)
    run = nas.search(config_of(tmp_path, counted_joules), tmp_path / "run", workers=0)
    trials = run.trials()
    assert [trial.state for trial in trials] == ["complete"] * 2, [t.reason for t in trials]
    best = max(trials, key=lambda trial: trial.quality)
    assert best.quality > 0.4 and best.test_quality > 0.3 and best.reading.energy_j > 0
    capsys.readouterr()
    assert main(["front", str(run.folder)]) == 0
    assert "mAP@[0.5:0.95]" in capsys.readouterr().out

    examples = examples_in(run.trial_folder(best.number))
    scores = {score.metric: score.value for score in examples.scores}
    assert (
        scores["map"] == pytest.approx(best.quality, abs=1e-6) and scores["map50"] > scores["map"]
    )
    assert len(examples.pictures) == 4
    assert len(page_data(run)["charts"]["examples"][0]["pictures"]) == 4
    words = ["plot", str(run.folder), "--what", "examples", "--trial", str(best.number)]
    assert main([*words, "--to", str(tmp_path / "found.png")]) == 0
    assert Image.open(tmp_path / "found.png").width == 990
    capsys.readouterr()
    assert main(["plot", str(run.folder), "--to", str(tmp_path / "plots")]) == 0
    assert (tmp_path / "plots" / "examples.png").is_file()

    folder = tmp_path / "model"
    words = ["export", str(run.folder), "--trial", str(best.number), "--to", str(folder)]
    assert main([*words, "--format", "python"]) == 0
    card = json.loads((folder / "card.json").read_text())
    assert card["verified"]["output_difference"] == 0 and card["labels"] == list(CLASSES)
    readme = (folder / "README.md").read_text()
    assert "artifact.detect(" in readme and "outputs of patches, not boxes" in readme
    check_artifact(load_artifact(folder), tmp_path, shapes)


def check_artifact(artifact, folder, shapes):
    """Boxes are in the pixels of a picture of any size."""
    number = next(i for i, picture in enumerate(shapes) if len(picture) == 1)
    ((label, box),) = shapes[number]
    path = folder / "pictures" / f"{number:04}.png"
    large = folder / "large.png"
    Image.open(path).resize((240, 120), Image.Resampling.NEAREST).save(large)
    first, second = artifact.detect([path, path.read_bytes()])
    assert first == second and artifact.detect(path) == first
    for found, scale in ((first, (1, 1)), (artifact.detect(large), (10, 5))):
        top = found[0]
        assert top.label == label and top.score > 0.3
        right = np.array([box]) * np.array([*scale, *scale])
        ours = np.array([[top.left, top.top, top.right, top.bottom]])
        assert overlap(ours, right)[0, 0] > 0.5
    assert artifact.detect(path, least_score=1.0) == []
    with pytest.raises(ValueError, match="classify requires the artifact of a classifier"):
        artifact.classify(path)
    with pytest.raises(ValueError, match="boxes.json must be a picture"):
        artifact.detect(folder / "boxes.json")
